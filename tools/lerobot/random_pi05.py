"""Writes a pi0.5 folder of its own size with random weights in BF16, 8 GB, one tensor in memory at a time.

LeRobot would need 16 GB of memory to make it. Names and shapes are those that the exporter expects, which the committed
fixture holds to LeRobot's; config and processors are the fixture's, at the real sizes.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import struct
from pathlib import Path

import torch

from export.families.lerobot.folder import CONFIG, PREPROCESSOR, WEIGHTS, read_folder
from export.families.pi.config import expected_tensors, read_config, read_shape

FIXTURE = Path(__file__).parents[2] / "tests" / "export" / "families" / "lerobot" / "pi05"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    out = parser.parse_args().out
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(FIXTURE, out, ignore=shutil.ignore_patterns("fixture.json", "outputs.npz"))
    text = (out / CONFIG).read_text()
    config = json.loads(text)
    config |= {"image_resolution": [224, 224], "num_inference_steps": 10, "chunk_size": 50, "n_action_steps": 25}
    (out / CONFIG).write_text(json.dumps(config))
    assert json.loads((out / PREPROCESSOR).read_text())["steps"], "the processors are the fixture's"
    folder = read_folder(out)
    write(out / WEIGHTS, expected_tensors(read_shape(folder, read_config(folder))))


def write(file: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """A safetensors file: the length of the header, the header, the tensors in its order."""
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    generator = torch.Generator().manual_seed(0)
    with file.open("wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for shape in shapes.values():
            drawn = torch.randn(shape, generator=generator)
            drawn = drawn * math.prod(shape[1:]) ** -0.5 if len(shape) > 1 else 0.1 * drawn
            out.write(drawn.bfloat16().view(torch.int16).numpy().tobytes())


if __name__ == "__main__":
    main()
