"""Only tensors and plain data are ever read; everything else is refused in one line."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest
import torch

from export.families.action_prior.checkpoint import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
from export.families.action_prior.config import tiny
from export.families.action_prior.embodiment import Embodiment, SlotStatistics
from export.families.action_prior.policy import ActionPrior, VlaPolicy
from export.training.instructions import word_tokenizer

STATISTICS = SlotStatistics(tuple(range(7)), (0.0,) * 7, (1.0,) * 7)
ARM = Embodiment("fr3", 0, 0.1, tuple(f"j{joint}" for joint in range(7)), STATISTICS, STATISTICS)


@pytest.fixture(scope="module")
def good() -> Checkpoint:
    torch.manual_seed(0)
    tokenizer = word_tokenizer(("reach the red cube",)).to_str()
    return Checkpoint(tiny(), VlaPolicy(tiny()).state_dict(), (ARM,), tokenizer)


@pytest.fixture
def path(tmp_path: Path, good: Checkpoint) -> Path:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, good)
    return path


def test_round_trip(path: Path, good: Checkpoint) -> None:
    read = load_checkpoint(path)
    assert (read.config, read.embodiments, read.tokenizer) == (good.config, good.embodiments, good.tokenizer)
    assert all(torch.equal(read.state_dict[name], tensor) for name, tensor in good.state_dict.items())
    assert set(torch.load(path, weights_only=True)) == {
        "config", "state_dict", "normalisation", "embodiments", "tokenizer", "format",
    }  # fmt: skip
    read.build()


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch EXPLODED",)


def refused(path: Path, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_pickled_code_is_refused_and_not_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    document = torch.load(path, weights_only=True)
    torch.save({**document, "config": Bomb()}, path)
    refused(path, "holds pickled code, which is never run")
    assert not (tmp_path / "EXPLODED").exists()


def test_truncated_and_corrupt_files_are_refused(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    refused(path, "not a torch checkpoint, or it was cut short")
    middle = len(data) // 2
    path.write_bytes(data[:middle] + bytes(200) + data[middle + 200 :])
    refused(path, "damaged: the checksum of")


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "foreign.pt"
    refused(path, "no such file")
    path.write_text("hello")
    refused(path, "not a torch checkpoint")
    torch.save([1, 2], path)
    refused(path, "holds a list, not a mapping")
    torch.save({"state_dict": {}, "epoch": 3}, path)
    refused(path, "not a vla-edge checkpoint: it has no config, embodiments, format, normalisation, tokenizer")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "has format 2; this version reads 1"),
        ({"config": {"horizon": 15}}, "bad configuration"),
        ({"config": "tiny"}, "bad configuration"),
        ({"embodiments": {"fr3": {}}}, "bad configuration"),
        ({"state_dict": {"a": 1}}, "state_dict must map names to tensors"),
        ({"state_dict": {"a": torch.tensor([float("nan")])}}, "weights of a hold NaN"),
        ({"tokenizer": "{}"}, "tokenizer cannot be read"),
    ],
)
def test_a_wrong_part_is_named(path: Path, change: dict[str, object], message: str) -> None:
    torch.save({**torch.load(path, weights_only=True), **change}, path)
    refused(path, message)


def test_weights_of_another_shape_do_not_fit(path: Path, good: Checkpoint) -> None:
    other = dataclasses.replace(good, config=dataclasses.replace(good.config, soft_prompt_tokens=5))
    with pytest.raises(CheckpointError, match="the weights do not fit the configuration"):
        other.build()


def test_a_prior_is_not_a_policy() -> None:
    prior = Checkpoint(tiny(), ActionPrior(tiny()).state_dict(), (ARM,), None)
    with pytest.raises(CheckpointError, match="edge-train vla"):
        prior.build()


def test_a_failed_save_leaves_the_old_file(path: Path, good: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()
    monkeypatch.setattr(torch, "save", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(path, good)
    assert path.read_bytes() == before
