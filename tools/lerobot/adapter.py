"""PEFT adapts the small ACT with random LoRAs, saves them as training does, and merges them.

`python -m tools.lerobot.adapter --out tests/export/families/lerobot` writes `act_lora` and `act_rslora`: an adapter's
folder each, with what PEFT's own merge made of the tensors that it changes.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch
import torchvision
from lerobot.configs import PreTrainedConfig
from lerobot.policies.factory import get_policy_class
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from tools.lerobot.fixtures.common import narrow_resnet

MERGED = "merged.safetensors"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="holds `act`, and gets the adapters")
    out = parser.parse_args().out
    torchvision.models.resnet18 = narrow_resnet(8)
    base = out / "act"
    before = load_file(base / "model.safetensors")
    for name, rslora in (("act_lora", False), ("act_rslora", True)):
        config = PreTrainedConfig.from_pretrained(base)
        policy = get_policy_class(config.type).from_pretrained(base, config=config)
        options = {"r": 4, "lora_alpha": 10, "alpha_pattern": {"encoder.layers.0.linear1": 6}, "use_rslora": rslora}
        adapted = get_peft_model(
            policy, LoraConfig(target_modules=["linear1", "linear2"], modules_to_save=["action_head"], **options)
        )
        torch.manual_seed(3)
        for key, tensor in adapted.named_parameters():
            if "lora_" in key or "modules_to_save" in key:
                tensor.data.add_(0.1 * torch.randn_like(tensor))
        folder = out / name
        shutil.rmtree(folder, ignore_errors=True)
        adapted.save_pretrained(folder)
        (folder / "README.md").unlink(missing_ok=True)
        for file in (*base.glob("config.json"), *base.glob("policy_*")):
            shutil.copy(file, folder)
        merged = adapted.merge_and_unload().state_dict()
        save_file(
            {key: merged[key].contiguous() for key in before if not torch.equal(merged[key], before[key])},
            folder / MERGED,
        )


if __name__ == "__main__":
    main()
