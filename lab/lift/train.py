"""Trains the lifting policy against the clock: both stages and one-step distillation, on demonstrations as they come.

`python -m lab.lift.train --shards DIR --out DIR --budget 480` takes in what `lab.lift.record` leaves in `--shards`.
While that goes on it learns the action prior (stage 1). Then the whole policy (stage 2), whose VLM starts from nothing
and learns at the same time to say where the objects are, with a head that is thrown away; then one flow step instead of
ten. Rates follow the share of the time that has passed, so the result depends on the machine: a run is no function of
its seed. `--out` gets `lift.pt`, again every 45 s, `lift-prior.pt`, `lift-one-step.pt` and `metrics.jsonl`.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edge.sim.lift_phrases import INSTRUCTIONS
from export.families.action_prior.batch import Draw, Window, totals
from export.families.action_prior.batched import BatchedBackbone
from export.families.action_prior.checkpoint import Checkpoint, save_checkpoint
from export.families.action_prior.config import PRESETS
from export.families.action_prior.policy import Losses, Observation, VlaPolicy
from export.families.action_prior.qwen import PreciseLinear
from export.training.average import Average
from export.training.distil import distillation_losses, student
from export.training.instructions import word_tokenizer
from export.training.validation import chunk_errors, own_units
from lab.lift.memory import PLACES, Memory
from lab.lift.steps import DRAWS, Clock, alarm, applied, rate_at, repeated, uncompiled, zeros

ARMS = ("franka_hand", "so101")
PEAK_RATE = 1e-3
PRIOR_FACTOR = 0.5
"""Encoder and decoder go on at this share of the rate in stage 2."""
DISTILLED_BY = 0.4
"""lambda reaches 0 after this share of stage 2."""
POINTING = (1.0, 0.1)
"""Weight of pointing, at the beginning of stage 2 and at its end."""
LEAST_PRIOR = 0.06
"""Of the budget, for stage 1, however late its data come."""
SAVE_EVERY_S, JUDGE_EVERY_S, REPORT_EVERY_S = 45.0, 20.0, 5.0
EMA = 0.999


class Trainer:
    """The policy, its optimiser and everything that a stage does in one step."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.clock = args, Clock(args.began or time.time())
        self.device = torch.device(args.device)
        torch.manual_seed(args.seed)
        torch.set_float32_matmul_precision("high")
        self.config = PRESETS[args.preset]()
        self.tokenizer = word_tokenizer(INSTRUCTIONS)
        self.policy = VlaPolicy(self.config)
        self.policy.backbone = BatchedBackbone(self.config)
        self.policy.to(self.device)
        self.pointer = PreciseLinear(self.config.text.hidden, PLACES).to(self.device)
        self.memory = Memory(self.config, ARMS, INSTRUCTIONS, self.tokenizer, self.device, args.capacity, args.seed)
        self._plain: dict[tuple[nn.Module, str], Callable[..., Any]] = {}
        self.metrics = (args.out / "metrics.jsonl").open("a")

    def notify(self, **values: Any) -> None:
        """One line for people and one for the file."""
        record = {"t": round(self.clock(), 1), **values}
        shown = (
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in record.items()
        )
        print("  ".join(shown), flush=True)
        self.metrics.write(json.dumps(record) + "\n")
        self.metrics.flush()

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.device.type == "cuda")

    def ingest(self, most: int) -> int:
        """Takes in shards that are there; how many."""
        taken = 0
        for path in sorted(self.args.shards.glob("*.npz"), key=lambda path: path.stat().st_mtime)[:most]:
            taken += self.memory.add(path)
        return taken

    def await_data(self, until_s: float) -> None:
        """Waits for enough of every arm to fix statistics by."""
        while True:
            self.ingest(1000)
            enough = min(self.memory.episodes)
            if enough >= self.args.first_episodes or (self.clock() > until_s and enough > 0):
                break
            if self.clock() > 3 * until_s:
                raise SystemExit(f"no demonstrations came: {self.memory.episodes} episodes; see the recorders' logs")
            time.sleep(0.5)
        self.memory.fit()
        self.memory.settle()
        self.notify(phase="data", episodes=self.memory.episodes, steps=self.memory.steps)

    def warm_up_compiler(self, limit_s: float) -> None:
        """Compiles what takes the time; goes on without where that fails or takes too long."""
        backbone, decoder, encoder = self.policy.backbone, self.policy.decoder, self.policy.encoder
        parts = ((backbone, "_vision"), (backbone, "_text"), (decoder, "forward"), (encoder, "forward"))
        for part, name in parts:
            self._plain[part, name] = getattr(part, name)
            setattr(part, name, torch.compile(self._plain[part, name], dynamic=False))
        try:
            with alarm(limit_s):
                self.dummy_step()
                began = time.time()
                self.dummy_step()
                if self.device.type == "cuda":
                    torch.cuda.synchronize()
            self.notify(phase="compiled", step_s=time.time() - began)
        except Exception as error:  # whatever the compiler raises: training is worth more
            self.retreat(error)
        self.policy.zero_grad(set_to_none=True)
        self.pointer.zero_grad(set_to_none=True)

    def retreat(self, error: Exception) -> None:
        """Goes on with smaller batches when memory ran out, else without the compiler; raises what is neither."""
        if isinstance(error, torch.OutOfMemoryError):
            self.args.batch //= 2
        elif self._plain:
            for (part, name), function in self._plain.items():
                setattr(part, name, function)
            self._plain.clear()
            torch._dynamo.reset()
        else:
            raise error
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.notify(phase="retreat", batch=self.args.batch, why=f"{type(error).__name__}: {str(error)[:200]}")

    def dummy_step(self) -> None:
        """Both stages' losses and gradients on data of the right shapes."""
        batch, device = self.args.batch, self.device
        window, look = zeros(self.config, batch, device)
        with self.autocast():
            losses = self.vla_losses(window, look, torch.zeros(batch, PLACES, device=device), 1.0, 1.0)
        losses["loss"].backward()

    def prior_losses(self) -> Losses:
        """Stage 1's, as `ActionPrior.losses`, with several draws for every window."""
        window = self.memory.window(self.memory.draw_rows(self.args.batch, shown=False))
        policy = self.policy
        z = policy.encode_future(window)
        many = repeated(window)
        draw = self.memory.draw(len(many.valid))
        losses = {
            "reconstruct": policy.flow_loss(many, z.repeat_interleave(DRAWS, 0), draw, totals(self.config, many, draw))
        }
        losses["pose"] = policy.pose_loss(window, z, totals(self.config, many, draw)) * DRAWS
        losses["loss"] = losses["reconstruct"] + self.config.pose_weight * losses["pose"]
        return losses

    def vla_losses(
        self, window: Window, look: Observation, places: torch.Tensor, distillation: float, pointing: float
    ) -> Losses:
        """Stage 2's, as `VlaPolicy.vla_losses`, and pointing."""
        policy, config = self.policy, self.config
        many = repeated(window)
        draw = self.memory.draw(len(many.valid))
        whole = totals(config, many, draw)
        with_history = draw.with_history[::DRAWS]  # one choice for all draws of a window
        z_history = policy.encoder(window.past_states, window.past_actions, window.past_mask, window.embodiment)
        seen = look.seen_by(policy.backbone)
        output = policy.backbone.outputs(seen, look.tokens, look.token_mask, z_history, with_history, window.embodiment)
        z_prime = policy.backbone.latent(output)
        away = self.pointer(output[:, policy.backbone.layout.query]) - places
        losses = {
            "predict": policy.flow_loss(many, z_prime.repeat_interleave(DRAWS, 0), draw, whole),
            "point": away.square().mean(),
        }
        losses["loss"] = losses["predict"] + pointing * losses["point"]
        if distillation > 0:
            z = policy.encode_future(window)
            losses["align"] = (z_prime - z.detach()).square().sum(dim=1).mean()
            losses["reconstruct"] = policy.flow_loss(many, z.repeat_interleave(DRAWS, 0), draw, whole)
            losses["pose"] = policy.pose_loss(window, z, whole) * DRAWS
            teaching = losses["align"] + losses["reconstruct"] + config.pose_weight * losses["pose"]
            losses["loss"] = losses["loss"] + distillation * teaching
        return losses

    def stage(
        self, name: str, until_s: float, module: nn.Module, groups: list[tuple[list[nn.Parameter], float]],
        losses_at: Callable[[float], Losses], each: Callable[[float, Average], None],
    ) -> Average:  # fmt: skip
        """Steps until the clock says `until_s`; returns the average of the weights."""
        optimiser = torch.optim.AdamW(
            [{"params": weights, "factor": factor} for weights, factor in groups],
            lr=PEAK_RATE, weight_decay=0.01, betas=(0.9, 0.95), fused=self.device.type == "cuda",
        )  # fmt: skip
        weights = [weight for group, _ in groups for weight in group]
        average, began, step, reported_at_s = Average(module, EMA), self.clock(), 0, 0.0
        limit = self.args.steps or 10**9
        while self.clock() < until_s and step < limit:
            share = max((self.clock() - began) / max(until_s - began, 1e-9), step / limit)
            for group in optimiser.param_groups:
                group["lr"] = PEAK_RATE * group["factor"] * rate_at(share)
            optimiser.zero_grad(set_to_none=True)
            try:
                with self.autocast():
                    losses = losses_at(share)
                losses["loss"].backward()
            except RuntimeError as error:
                self.retreat(error)
                continue
            norm = nn.utils.clip_grad_norm_(weights, 1.0)
            if not math.isfinite(float(norm)):  # one batch is left out rather than everything lost
                self.notify(phase=name, step=step, skipped=float(norm))
                step += 1
                continue
            optimiser.step()
            average.update(step)
            step += 1
            if self.clock() - reported_at_s > REPORT_EVERY_S:
                reported_at_s = self.clock()
                values = {key: float(value.detach()) for key, value in losses.items()}
                self.notify(
                    phase=name, step=step, rate=step / (reported_at_s - began + 1e-9), norm=float(norm), **values
                )
            each(share, average)
        self.notify(phase=f"{name} done", step=step)
        return average

    @torch.no_grad()
    def judge(self, policy: VlaPolicy, average: Average | None, z_of_prior: bool = False) -> None:
        """Errors on episodes that were held out, by arm; nothing committed, with the history token."""
        memory, rows = self.memory, self.memory.held_out
        if not len(rows):
            return
        rows = rows[torch.linspace(0, len(rows) - 1, min(self.args.batch, len(rows)), device=rows.device).long()]
        units = own_units(memory.embodiments, self.config).to(self.device)
        with applied(average), uncompiled():
            window, look = memory.window(rows), memory.observation(rows, augment=False)
            if z_of_prior:
                z, values = policy.encode_future(window), {}
            else:
                z_history = policy.encoder(window.past_states, window.past_actions, window.past_mask, window.embodiment)
                everywhere = torch.ones_like(window.past_mask[:, 0])
                seen = look.seen_by(policy.backbone)
                output = policy.backbone.outputs(
                    seen, look.tokens, look.token_mask, z_history, everywhere, window.embodiment
                )
                z = policy.backbone.latent(output)
                away = (self.pointer(output[:, policy.backbone.layout.query]) - memory.places(rows)).abs()
                away_m = away * memory.place_scale_m[window.embodiment]
                values = {
                    f"{arm}_{what}_mm": 1e3 * float(away_m[window.embodiment == index][:, part].mean())
                    for index, arm in enumerate(ARMS)
                    for what, part in (("from_tool", slice(12, 15)), ("named", slice(0, 3)), ("all", slice(3, 12)))
                }
            noise = torch.zeros_like(window.actions)
            for index, arm in enumerate(ARMS):
                at = window.embodiment == index
                if not at.any():
                    continue
                mine = Window(**{field.name: getattr(window, field.name)[at] for field in fields(Window)})
                found = chunk_errors(policy, mine, z[at], noise[at], units)
                values[f"{arm}_mae"] = found.normalised / max(found.actions, 1.0)
        self.notify(phase="validation", rows=len(rows), **values)

    def save(self, name: str, policy: VlaPolicy, average: Average | None, prior: bool = False) -> None:
        with applied(average):
            weights = {key: value.clone() for key, value in policy.state_dict().items()}
        if prior:
            weights = {key: value for key, value in weights.items() if not key.startswith("backbone.")}
        text = None if prior else self.tokenizer.to_str()
        config = policy.config
        if not prior and not self.args.keep_history:
            config = replace(config, history_compressor="none")
        save_checkpoint(self.args.out / name, Checkpoint(config, weights, self.memory.embodiments, text))
        self.notify(phase="saved", file=name, mb=(self.args.out / name).stat().st_size / 1e6)

    def run(self) -> None:
        """All of it, within the budget."""
        args, policy, memory = self.args, self.policy, self.memory
        budget = args.budget
        if args.compile:
            self.warm_up_compiler(0.2 * budget)
        self.await_data(0.15 * budget)
        acting = [*policy.encoder.parameters(), *policy.decoder.parameters(), *policy.pose.parameters()]
        last = {"ingest": self.clock(), "save": self.clock(), "judge": self.clock()}

        def due(what: str, every_s: float) -> bool:
            if self.clock() - last[what] < every_s:
                return False
            last[what] = self.clock()
            return True

        def take_in(share: float, average: Average) -> None:
            if due("ingest", 4.0) and self.ingest(30):
                memory.settle()

        until_s = max(args.recording + args.tail, self.clock() + LEAST_PRIOR * budget)
        average = self.stage("prior", until_s, policy, [(acting, 1.0)], lambda share: self.prior_losses(), take_in)
        average.swap()
        self.ingest(1000)
        memory.settle()
        self.notify(phase="data", episodes=memory.episodes, attempts=memory.attempts, steps=memory.steps)
        self.judge(policy, None, z_of_prior=True)
        self.save("lift-prior.pt", policy, None, prior=True)

        def see_to_it(share: float, average: Average) -> None:
            if due("judge", JUDGE_EVERY_S):
                self.judge(policy, average)
            if due("save", SAVE_EVERY_S):
                self.save("lift.pt", policy, average)

        def whole_losses(share: float) -> Losses:
            rows = memory.draw_rows(args.batch, shown=True)
            pointing = POINTING[0] + (POINTING[1] - POINTING[0]) * share
            distillation = max(0.0, 1.0 - share / DISTILLED_BY)
            look = memory.observation(rows, augment=True)
            return self.vla_losses(memory.window(rows), look, memory.places(rows), distillation, pointing)

        seeing = [*policy.backbone.parameters(), *self.pointer.parameters()]
        average = self.stage(
            "vla", budget - args.distil - 8, policy, [(seeing, 1.0), (acting, PRIOR_FACTOR)], whole_losses, see_to_it
        )
        average.swap()
        self.judge(policy, None)
        self.save("lift.pt", policy, None)
        if args.distil > 0:
            self.distil(budget - 6)

    def distil(self, until_s: float) -> None:
        """SnapFlow: the decoder alone, on z' of the finished policy."""
        memory, teacher = self.memory, self.policy
        text = self.tokenizer.to_str()
        weights = teacher.state_dict()
        learner = student(Checkpoint(self.config, weights, memory.embodiments, text))
        assert isinstance(learner, VlaPolicy)
        learner.to(self.device)

        def losses(share: float) -> Losses:
            rows = memory.draw_rows(self.args.batch, shown=True)
            window, look = memory.window(rows), memory.observation(rows, augment=False)
            draw: Draw = memory.draw(len(rows))
            with torch.no_grad(), uncompiled():  # a graph without gradients would have to be compiled anew
                past = (window.past_states, window.past_actions, window.past_mask, window.embodiment)
                seen = look.seen_by(teacher.backbone)
                output = teacher.backbone.outputs(
                    seen, look.tokens, look.token_mask, teacher.encoder(*past), draw.with_history, window.embodiment
                )
                z = teacher.backbone.latent(output)
            return distillation_losses(learner.decoder, window, z, draw, totals(self.config, window, draw), 10)

        weights_of = list(learner.decoder.parameters())
        average = self.stage(
            "distil", until_s, learner.decoder, [(weights_of, 0.3)], losses, lambda share, average: None
        )
        average.swap()
        learner.backbone = teacher.backbone
        self.judge(learner, None)
        self.save("lift-one-step.pt", learner, None)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m lab.lift.train", description=__doc__)
    add = parser.add_argument
    add("--shards", type=Path, required=True)
    add("--out", type=Path, required=True)
    add("--budget", type=float, default=480.0, help="seconds for everything (default %(default)g)")
    add("--recording", type=float, default=110.0, help="seconds for which the recorders go on (default %(default)g)")
    add("--tail", type=float, default=6.0, help="seconds after that until stage 2 (default %(default)g)")
    add("--distil", type=float, default=35.0, help="seconds for the one flow step; 0 leaves it out")
    add("--began", type=float, default=0.0, help="time of day in seconds when the budget began (default: now)")
    add("--batch", type=int, default=1024)
    add("--capacity", type=int, default=200_000, help="steps that memory is reserved for, 98 kB each")
    add("--first-episodes", type=int, default=100, help="of every arm, that statistics are fixed by")
    add("--steps", type=int, default=0, help="at most so many of each stage; 0: as many as there is time for")
    add("--preset", choices=sorted(PRESETS), default="lift")
    add("--device", choices=("cpu", "cuda"), default="cuda")
    add(
        "--keep-history",
        action="store_true",
        help="the policy sees its history, as in training; by default it is saved without (docs/notebook/lift.md)",
    )
    add("--compile", action="store_true", help="torch.compile what takes the time")
    add("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    Trainer(args).run()


if __name__ == "__main__":
    main()
