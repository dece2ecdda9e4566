"""Makes the folder to hand over of one that `lerobot-train` saved: weights in half precision, no paths of a machine.

`python -m tools.lerobot.ship PRETRAINED_MODEL OUT`. LeRobot and `edge-export` read it like the original.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

WEIGHTS = "model.safetensors"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for file in (args.folder / "config.json", *sorted(args.folder.glob("policy_*processor*"))):
        shutil.copyfile(file, args.out / file.name)
    weights = {name: tensor.half() for name, tensor in load_file(args.folder / WEIGHTS).items()}
    lost = [name for name, tensor in weights.items() if not torch.isfinite(tensor).all()]
    if lost:
        raise SystemExit(f"{args.folder}: {lost[0]} does not fit into half precision")
    save_file(weights, args.out / WEIGHTS, {"format": "pt"})
    print(f"{args.out}: {sum(file.stat().st_size for file in args.out.iterdir()) / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
