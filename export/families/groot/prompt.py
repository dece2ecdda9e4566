"""The prompt of Qwen3-VL's chat: what is fixed of it, and how an instruction becomes the rest.

LeRobot writes one message of the pictures and the instruction by the template of the vision-language model's folder.
All that stands before the instruction is the same for every observation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from export.families.base import CheckpointError
from export.families.groot.pictures import Patches
from export.families.groot.vision import TowerShape
from export.families.lerobot.documents import read_document
from firmware_bridge.reading import told

BUDGET = 64
"""Tokens of an instruction with the end of its message. LeRobot has no bound; engines need one."""
PLACE = "\ue000"
PICTURE = "<|image_pad|>"
SAMPLE = "put the 2nd cube into the box"
QWEN2_VL: Mapping[str, Any] = {
    "size": {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 1280},
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "resample": 3,
    "rescale_factor": 1 / 255,
    "do_resize": True,
    "do_rescale": True,
    "do_normalize": True,
}
"""Defaults of the picture processor's class in transformers."""


@dataclass(frozen=True)
class Chat:
    """`parts` are the ids around the pictures; `template` is the instruction's, with what ends the message."""

    parts: tuple[tuple[int, ...], ...]
    template: str


def read_chat(folder: Path, document: str, cameras: int, picture: int) -> Chat:
    """Of the tokenizer in a folder, whose `document` is given; `picture` is the model's token for one.

    Raises `CheckpointError`.
    """
    from transformers import AutoTokenizer

    def refuse(why: str) -> CheckpointError:
        return CheckpointError(
            f"{folder}: its chat template {why}; name the folder that the policy was trained with: --vlm"
        )

    message = [{"type": "image", "image": ""}] * cameras + [{"type": "text", "text": f" {PLACE} "}]
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        written = tokenizer.apply_chat_template(
            [{"role": "user", "content": message}], tokenize=False, add_generation_prompt=False
        )
    except Exception as error:  # jinja and the tokenizers raise errors of their own
        raise refuse(f"cannot be used ({str(error)[:120]!r})") from None
    before, found, after = str(written).partition(f" {PLACE} ")
    if not found or PLACE in after or before.count(PICTURE) != cameras:
        raise refuse(f"does not write {cameras} pictures and the instruction")
    if any(brace in after for brace in "{}"):
        raise refuse("ends with braces")
    template = "{task}" + after.replace("\n", "{newline}")
    reader = Tokenizer.from_str(document)
    if reader.token_to_id(PICTURE) != picture:
        raise refuse(f"has '{PICTURE}' as token {reader.token_to_id(PICTURE)}, and the model {picture}")
    fixed, whole = (reader.encode(text).ids for text in (before, before + SAMPLE + after))
    if whole != [*fixed, *reader.encode(SAMPLE + after, add_special_tokens=False).ids]:
        raise refuse("joins the instruction to what is before it")
    parts: list[list[int]] = [[]]
    for one in fixed:
        if one == picture:
            parts.append([])
        else:
            parts[-1].append(one)
    return Chat(tuple(map(tuple, parts)), template)


def read_patches(folder: Path, tower: TowerShape) -> Patches:
    """Of the picture processor in a folder. Raises `CheckpointError`."""
    file = folder / "preprocessor_config.json"
    document = read_document(file)
    said = {**QWEN2_VL, **{name: value for name, value in document.items() if name in QWEN2_VL and value is not None}}
    for name, wanted in (
        *((name, QWEN2_VL[name]) for name in ("resample", "do_resize", "do_rescale", "do_normalize")),
        *(("patch_size", tower.patch_px), ("merge_size", tower.merge), ("temporal_patch_size", tower.repeats)),
    ):
        if said[name] != wanted:
            raise CheckpointError(f"{file}: '{name}' is {said[name]}, and only {wanted} is implemented for this model")
    try:
        size: Mapping[str, Any] = said["size"]
        least = int(document.get("min_pixels") or size["shortest_edge"])
        most = int(document.get("max_pixels") or size["longest_edge"])
        mean, std = (tuple(map(float, said[name])) for name in ("image_mean", "image_std"))
        scale = 255 * float(said["rescale_factor"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{file}: is no picture processor ({told(repr(error))}); copy it again") from None
    if len(mean) != 3 or len(std) != 3 or not min(std) > 0 or abs(scale - 1) > 1e-6 or not 0 < least <= most:
        raise CheckpointError(f"{file}: sizes, mean or scale of pictures are not possible; copy it again")
    return Patches(tower.patch_px * tower.merge, (least, most), mean, std)
