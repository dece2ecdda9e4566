"""Everything that has to be done, in what order, and how one piece of it is done."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from edge.bundle.files import replacing
from lab.prior.data import SETS, record_set
from lab.prior.scale import Scale
from lab.prior.training import CHECKPOINT, Place, base_config, learning, train_eyes, train_stage1, train_stage2
from lab.prior.variants import PRIORS, Variant

RESULT = "result.json"
SCALE = "scale.json"


@dataclass(frozen=True)
class Job:
    """One piece of work. It is done when `product` exists; `needs` names jobs that come before it. `do` is pickled."""

    name: str
    product: Path
    needs: tuple[str, ...]
    do: Callable[[], None]

    @property
    def done(self) -> bool:
        return self.product.is_file()


@dataclass(frozen=True)
class Clock:
    """A moment, by the wall and by what this process has computed: only the latter leaves out that it was held up."""

    wall_s: float = field(default_factory=time.monotonic)
    cpu_s: float = field(default_factory=time.process_time)

    def since(self, other: Clock) -> tuple[float, float]:
        return round(self.wall_s - other.wall_s, 1), round(self.cpu_s - other.cpu_s, 1)


def run_variant(place: Place, variant: Variant, seed: int) -> None:
    """Stage 2 and the closed loop of one variant at one seed; what was trained before is not trained again."""
    folder, began = place.run(variant, seed), Clock()
    if not (folder / CHECKPOINT).is_file():
        train_stage2(place, variant, seed)
    trained = Clock()
    result: dict[str, Any] = {
        "variant": asdict(variant),
        "seed": seed,
        "scale": place.scale.to_plain(),
        "device": device_name(place),
        "threads": 1,
        **learning(folder),
    }
    if place.scale.episodes:
        from lab.prior.closed_loop import play

        result["closed_loop"] = play(folder / CHECKPOINT, place.engines, place.scale)
    result["train_s"], result["train_cpu_s"] = trained.since(began)
    result["play_s"], result["play_cpu_s"] = Clock().since(trained)
    write_json(folder / RESULT, result)


def plan(place: Place, variants: Sequence[Variant], seeds: int) -> list[Job]:
    """All jobs, what is needed first and what matters most before the rest."""
    base = base_config()
    sets = [
        Job(f"data {name}", place.data / f"{name}.npz", (), partial(record_set, name, place.scale, base, place.data))
        for name in SETS
    ]
    recorded = tuple(job.name for job in sets)
    eyes = Job("stage 0", place.vlm / CHECKPOINT, (), partial(train_eyes, place))
    jobs: dict[str, Job] = {job.name: job for job in [*sets, eyes]}
    for variant in variants:
        for seed in range(seeds):
            needs = (*recorded, eyes.name)
            name, product = f"run {variant.name} {seed}", place.run(variant, seed) / RESULT
            if variant.prior is not None and not product.is_file():  # a run that is done needs no prior any more
                prior = _prior(place, variant.prior, seed, recorded)
                jobs.setdefault(prior.name, prior)
                needs = (*needs, prior.name)
            jobs[name] = Job(name, product, needs, partial(run_variant, place, variant, seed))
    return list(jobs.values())


def _prior(place: Place, name: str, seed: int, recorded: tuple[str, ...]) -> Job:
    product = place.prior(PRIORS[name], seed) / CHECKPOINT
    return Job(f"stage 1 {name} {seed}", product, recorded, partial(train_stage1, place, PRIORS[name], seed))


def device_name(place: Place) -> str:
    """What training computed on."""
    import torch

    from bench.machine import fingerprint

    return torch.cuda.get_device_name() if place.device == "cuda" else f"CPU, {fingerprint()['cpu']}"


def write_json(path: Path, value: Any) -> None:
    """Whole or not at all."""
    with replacing(path) as whole:
        whole.write_text(json.dumps(value, allow_nan=False) + "\n", encoding="utf-8")


def results(out: Path) -> list[dict[str, Any]]:
    """The results of all runs that are done."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(out.glob(f"runs/*/{RESULT}"))]


def begin(out: Path, scale: Scale) -> bool:
    """Notes the size of the experiment in its folder; False if it has begun at another one."""
    noted = out / SCALE
    begun = [{"scale": json.loads(noted.read_text(encoding="utf-8"))}] if noted.is_file() else []
    if not same_scale([*begun, *results(out)], scale):
        return False
    if not begun:
        write_json(noted, scale.to_plain())
    return True


def same_scale(found: Sequence[dict[str, Any]], scale: Scale) -> bool:
    """Whether results belong to an experiment of this size; the closed loop may have been left out."""
    plain = replace(scale, episodes=0, durations_s=()).to_plain()
    return all({**result["scale"], "episodes": 0, "durations_s": ()} == plain for result in found)
