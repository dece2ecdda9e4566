"""Exports a LeRobot folder of full size as a user would, watches time and memory, and holds it to LeRobot's answers.

`python -m tools.lerobot.full_size FOLDER --vlm DIR` keeps the export within `--longest-s` and `--largest-gb`. Where
LeRobot's answers stand in the folder (`make lerobot-full-size`), the bundle's engines have to give them, each axis
within 1e-4 of its range. The bundle is removed again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edge.bundle import load_bundle
from edge.engines import DEFAULT_ENGINE, Engine, open_engines
from export.engines.lerobot import read_policy
from export.engines.verify import run_engine
from export.families.lerobot.policy import Beside, Policy
from export.families.vla.text import prompt_ids
from tools.lerobot.inputs import DOCUMENT, Observation, observations, read
from tools.paper_size import watched

OF_RANGE = 1e-4
ARM = ("--arm", "so101", "--rate", "30", "--units", "degrees")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--vlm", type=Path, metavar="DIR")
    parser.add_argument("--tokenizer", type=Path, metavar="DIR")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--samples", type=int, default=4, help="observations to verify on (default %(default)d)")
    parser.add_argument("--longest-s", type=float, default=600.0)
    parser.add_argument("--largest-gb", type=float, default=8.0)
    args = parser.parse_args()
    bundle = args.folder.with_name(f"{args.folder.name}-bundle-{args.precision}")
    named = [("--vlm", args.vlm), ("--tokenizer", args.tokenizer)]
    given = [str(part) for option, path in named if path is not None for part in (option, path)]
    command = [sys.executable, "-m", "export.commands.export", str(args.folder), "-o", str(bundle), *ARM, *given]
    report: dict[str, Any] = {
        "export": watched([*command, "--precision", args.precision, "--samples", str(args.samples)])
    }
    found = report["export"]
    own, resident = found["peak_own_bytes"] / 2**30, found["peak_rss_bytes"] / 2**30
    print(f"export: exit code {found['exit_code']}, {found['wall_s']:.0f} s ({found['cpu_s']:.0f} s of CPU), ", end="")
    print(f"{own:.1f} GB of its own, {resident:.1f} GB with mapped files, at most", flush=True)
    passed = found["exit_code"] == 0 and found["wall_s"] <= args.longest_s and own <= args.largest_gb
    if found["exit_code"] == 0:
        report["verification"] = json.loads((bundle / "verification.json").read_text())
        if (args.folder / DOCUMENT).is_file() and args.precision == "fp32":
            policy = read_policy(args.folder, Beside(args.tokenizer, args.vlm))
            report["lerobot"] = beside_lerobot(policy, bundle, args.folder)
            print(
                f"against LeRobot: {report['lerobot']['of_range']:.1e} of an axis's range; seconds of each engine:",
                end=" ",
            )
            print(report["lerobot"]["seconds"])
            passed = passed and report["lerobot"]["of_range"] <= OF_RANGE
    (args.folder.parent / f"{bundle.name}.json").write_text(json.dumps(report, indent=2) + "\n")
    shutil.rmtree(bundle, ignore_errors=True)
    return 0 if passed else 1


def beside_lerobot(policy: Policy, bundle: Path, folder: Path) -> dict[str, Any]:
    """The largest difference of any axis, as a part of its range, and the least time of each engine, one thread."""
    opened = load_bundle(bundle)
    engines = open_engines(opened, DEFAULT_ENGINE, 1)
    inputs, wanted = read(folder)
    worst, seconds = 0.0, {name: float("inf") for name in engines}
    for seen, right in zip(observations(inputs), wanted):
        chunk = _chunk(policy, engines, seen, seconds) + seen.states[-1] * np.array(policy.relative, np.float32)
        worst = max(worst, float((np.abs(chunk - right).max(axis=0) / policy.action_range.numpy()).max()))
    return {"of_range": worst, "seconds": seconds, "observations": len(wanted)}


def _chunk(
    policy: Policy, engines: dict[str, Engine], seen: Observation, seconds: dict[str, float]
) -> NDArray[np.float32]:
    """Of one observation, without guidance."""
    values: dict[str, torch.Tensor] = {}
    sources = {target: source for source, target in policy.links}
    ids = prompt_ids(policy.text, seen.task, seen.states[-1]) if policy.text else []
    frames = dict(zip((camera.name for camera in policy.folder.cameras), seen.frames.values()))
    for part in policy.parts:
        for name, example in part.inputs.items():
            port, kind = f"{part.name}.{name}", policy.feeds.get(f"{part.name}.{name}", {}).get("kind")
            given = {
                "frame": lambda port=port: torch.from_numpy(frames[policy.feeds[port]["camera"]][-1]),
                "state": lambda: torch.from_numpy(seen.states[-1]),
                "normal": lambda name=name: torch.from_numpy(seen.noise[name]),
                "tokens": lambda: torch.tensor([*ids, *[0] * (policy.text["budget"] - len(ids))]),
                "token_mask": lambda: torch.arange(policy.text["budget"]) < len(ids),
                "committed_goals": lambda example=example: torch.zeros_like(example),
                "prefix_weights": lambda example=example: torch.zeros_like(example),
            }
            values[port] = given[kind]() if kind else values[sources[port]]
        began = time.perf_counter()
        made = run_engine(engines[part.name], {name: values[f"{part.name}.{name}"] for name in part.inputs})
        seconds[part.name] = min(seconds[part.name], time.perf_counter() - began)
        values |= {f"{part.name}.{name}": torch.from_numpy(array) for name, array in made.items()}
    chunk: NDArray[np.float32] = values[policy.result].numpy()
    return chunk


if __name__ == "__main__":
    sys.exit(main())
