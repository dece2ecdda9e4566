"""An older LeRobot writes the documents of folders that a newer one made: `config.json` and the processors.

`VERSION=0.4.4 make lerobot-older` installs that version beside LeRobot's environment and runs
`python -m tools.lerobot.older FOLDERS --out DIR`. Weights, statistics and what a policy computes are the same; the
fields of a config and the steps of a processor are the version's own. No network is built, since what older versions
import for that no longer goes with newer libraries.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1")
# Not asked for here, and no longer imports.
sys.modules["lerobot.policies.groot.groot_n1"] = mock.MagicMock()

import lerobot  # noqa: E402
import torch  # noqa: E402
from lerobot.configs.types import FeatureType, NormalizationMode, PolicyFeature  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

FAMILIES = ("act", "act_variant", "diffusion_variant", "smolvla", "pi0", "pi05")
"""Whose configs every version can say."""
CLASSES = {"act": "ACT", "diffusion": "Diffusion", "smolvla": "SmolVLA", "pi0": "PI0", "pi05": "PI05"}
FEATURES, MODES = ("input_features", "output_features"), "normalization_mapping"


def config_of(held: dict[str, Any]) -> Any:
    """A config with the fields that this version has; one that it lacks must have said nothing."""
    kind = held["type"]
    made = getattr(importlib.import_module(f"lerobot.policies.{kind}.configuration_{kind}"), f"{CLASSES[kind]}Config")
    known = {field.name for field in dataclasses.fields(made)}
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in held.items() if name in known}
    for table in FEATURES:
        values[table] = {
            name: PolicyFeature(FeatureType(entry["type"]), tuple(entry["shape"]))
            for name, entry in held[table].items()
        }
    values[MODES] = {name: NormalizationMode(mode) for name, mode in held[MODES].items()}
    return made(**values)


def statistics_of(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    held: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in load_file(next(folder.glob("policy_preprocessor_*.safetensors"))).items():
        feature, _, statistic = name.rpartition(".")
        held.setdefault(feature, {})[statistic] = tensor
    return held


def write(folder: Path, out: Path) -> None:
    """The documents of one folder."""
    held = json.loads((folder / "config.json").read_text())
    steps = json.loads((folder / "policy_preprocessor.json").read_text())["steps"]
    options = {step["registry_name"]: step["config"] for step in steps}
    kind, config = held["type"], config_of(held)
    processor = importlib.import_module(f"lerobot.policies.{kind}.processor_{kind}")
    if "tokenizer_processor" in options:
        named = processor.TokenizerProcessorStep
        tokenizer = options["tokenizer_processor"]["tokenizer_name"]
        processor.TokenizerProcessorStep = lambda tokenizer_name, **more: named(tokenizer_name=tokenizer, **more)
    made = getattr(processor, f"make_{kind}_pre_post_processors")(config, statistics_of(folder))
    made[0].steps[0].rename_map = options["rename_observations_processor"]["rename_map"]
    with tempfile.TemporaryDirectory() as scratch:
        config._save_pretrained(Path(scratch))
        for one in made:
            one.save_pretrained(scratch)
        out.mkdir(parents=True)
        for file in sorted(Path(scratch).glob("*.json")):
            shutil.copy(file, out / file.name)
    print(f"{out}: of LeRobot {lerobot.__version__}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, metavar="FOLDERS", help="where the newer folders are")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    args = parser.parse_args()
    out = args.out.absolute() / lerobot.__version__
    shutil.rmtree(out, ignore_errors=True)
    os.chdir(args.folders)  # a folder names its tokenizer as seen from here
    for name in FAMILIES:
        write(Path(name), out / name)


if __name__ == "__main__":
    main()
