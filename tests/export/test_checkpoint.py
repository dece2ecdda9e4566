"""Only tensors and plain data are ever read; everything else is refused in one line."""

from __future__ import annotations

import dataclasses
import os
import zipfile
from pathlib import Path
from typing import BinaryIO

import pytest
import torch

from export.families.action_prior.checkpoint import (
    Checkpoint,
    CheckpointError,
    is_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from export.families.action_prior.config import tiny
from export.families.action_prior.embodiment import Embodiment, SlotStatistics
from export.families.action_prior.policy import ActionPrior, VlaPolicy
from export.training.instructions import word_tokenizer
from tests.export.small import small

STATISTICS = SlotStatistics(tuple(range(7)), (0.0,) * 7, (1.0,) * 7)
ARM = Embodiment("fr3", 0, 0.1, tuple(f"j{joint}" for joint in range(7)), STATISTICS, STATISTICS)


@pytest.fixture(scope="module")
def good() -> Checkpoint:
    torch.manual_seed(0)
    tokenizer = word_tokenizer(("reach the red cube",)).to_str()
    return Checkpoint(small(), VlaPolicy(small()).state_dict(), (ARM,), tokenizer)


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


def changed(path: Path, *names: str, to: object) -> None:
    """Writes the checkpoint again with one of its values changed."""
    document = torch.load(path, weights_only=True)
    inside = document
    for name in names[:-1]:
        inside = inside[name]
    inside[names[-1]] = to
    torch.save(document, path)


SPARSE = torch.eye(3).to_sparse()


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(3, device="meta"),
        SPARSE,
        torch.zeros(3).to(torch.float8_e4m3fn),
        torch.zeros(3, dtype=torch.complex64),
        torch.zeros(1).expand(10**12),
        torch.zeros(1).expand(10**6, 10**6),
    ],
    ids=lambda tensor: f"{tensor.dtype} {tensor.layout} {tensor.device}",
)
@pytest.mark.parametrize("where", [("state_dict", "a"), ("config", "horizon"), ("format",), ("tokenizer",)])
def test_tensors_that_no_checkpoint_has(path: Path, tensor: torch.Tensor, where: tuple[str, ...]) -> None:
    changed(path, *where, to=tensor)
    refused(path, "has a tensor|holds pickled code")


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        (("format",), torch.ones(1), "has format a Tensor; this version reads 1"),
        (("format",), torch.ones(3), "has format a Tensor"),
        (("format",), True, "has format true"),
        (("state_dict", 3), torch.zeros(1), "state_dict must map names to tensors"),
        (("state_dict", None), torch.zeros(1), "state_dict must map names to tensors"),
        (("config", None), 1, "bad configuration"),
        (("config", "cameras"), 10**9, "cameras must be a whole number from 1 to 16"),
        (("config", "frame_px"), (4096, 4096), r"1 frames of \(4096, 4096\) are more than 32 MB a step"),
        (("config", "horizon"), torch.tensor(15), "horizon must be a whole number from 1 to 256, not a Tensor"),
        (("embodiments", 7), {}, "a name in embodiments must be text"),
        (("embodiments", "fr3", "index"), 16, r"rows \[16\] of 16"),
        (("embodiments", "fr3", "index"), -3, "embodiments.fr3.index must be a whole number from 0"),
        (("embodiments", "fr3", "step_s"), float("nan"), "embodiments.fr3.step_s must be a number from 0.001 to 10"),
        (("embodiments", "fr3", "joints"), "abcdefg", "embodiments.fr3.joints must be a list"),
        (("embodiments", "fr3", "joints"), ["a"] * 6, "fr3 has 6 joints and 7 slots of actions"),
        (("embodiments", "\x1b[2J" * 999), {}, "a name in embodiments must be text of 1 to 64 printable"),
        (("normalisation", "fr3"), None, "normalisation.fr3 must be a table"),
        (("normalisation", "fr3", "actions", "offset", 0), float("nan"), r"actions.offset\[0\] must be a number"),
        (("normalisation", "fr3", "states", "offset", 6), 1e30, r"states.offset\[6\] must be a number"),
        (("normalisation", "fr3", "states", "scale", 0), 0.0, r"states.scale\[0\] must be a number from 1e-06"),
        (("normalisation", "fr3", "states", "slots", 0), -3, r"states.slots\[0\] must be a whole number"),
        (("normalisation", "fr3", "states", "slots", 0), 1, "states: slots name one slot twice"),
        (("normalisation", "fr3", "states", "slots", 0), 74, "fr3.states.slots go up to 74, and the policy has 74"),
        (("tokenizer",), {"a": 1}, "tokenizer cannot be read: it is a table of 1"),
    ],
)
def test_what_is_wrong_is_named(path: Path, where: tuple[str, ...], value: object, message: str) -> None:
    changed(path, *where, to=value)
    refused(path, message)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    assert str(caught.value).isprintable() and len(str(caught.value)) <= 300


def test_a_document_of_shared_lists_without_end(path: Path) -> None:
    """A pickle of a hundred words may hold 2^40 entries, or a list that holds itself."""
    shared: list[object] = [0]
    for _ in range(40):
        shared = [shared, shared]
    changed(path, "config", "horizon", to=shared)
    refused(path, "has more than 4194304 entries")
    itself: list[object] = []
    itself.append(itself)
    changed(path, "config", "horizon", to=itself)
    refused(path, "is nested deeper than 32")


@pytest.mark.parametrize("size", [10**9, 12 * 10**9])
def test_an_archive_is_never_unpacked_beyond_its_own_size(path: Path, size: int) -> None:
    """A record of zeros, which deflate packs a thousandfold; what a bomb claims is enough to be refused."""
    with zipfile.ZipFile(path) as old:
        plain = old.read(next(name for name in old.namelist() if name.endswith("data.pkl")))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", plain)
        with archive.open(zipfile.ZipInfo("archive/data/0"), "w", force_zip64=True) as record:
            record.write(bytes(10**6))
        archive.getinfo("archive/data/0").file_size = size
    refused(path, "is compressed, which no file of torch.save is")
    assert not is_checkpoint(path)


def allocated_by_a_pickle(count: int) -> bytes:
    """`bytearray(count)`, which torch's own list of harmless words has."""
    return b"\x80\x02cbuiltins\nbytearray\nJ" + count.to_bytes(4, "little") + b"\x85R."


def test_a_pickle_allocates_nothing(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", allocated_by_a_pickle(2**31 - 1))
        archive.writestr("archive/version", "3\n")
    refused(path, r"holds pickled code, which is never run \(builtins bytearray\)")


@pytest.mark.parametrize(
    "pickled", [b"", b"\x80", b"garbage", b"\x80\x02}q\x00(X\xff\xff\xff\x7f", b"\x80\x02K\x01.", b"\x80\x02)R."]
)
def test_a_malformed_pickle(path: Path, pickled: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/version", "3\n")
    refused(path, "is damaged|holds a int")


def test_a_pointer_of_git_lfs_is_named(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 11964467\n")
    refused(path, "is a pointer of Git LFS, not the checkpoint: fetch it with git lfs pull")


def test_sizes_that_the_weights_have_not_take_no_memory(path: Path, good: Checkpoint) -> None:
    """Each size is within its bounds; all of them together are a model of ten million million parameters."""
    text = dataclasses.replace(good.config.text, hidden=1 << 16, layers=256, ffn=1 << 17)
    other = dataclasses.replace(good, config=dataclasses.replace(good.config, text=text))
    with pytest.raises(CheckpointError, match="the weights do not fit the configuration"):
        other.build()
    odd = dataclasses.replace(good.config.encoder, heads=3, kv_heads=2)
    with pytest.raises(CheckpointError, match=r"the weights do not fit|no policy has its sizes"):
        dataclasses.replace(good, config=dataclasses.replace(good.config, encoder=odd)).build()


def test_a_full_disk_leaves_no_half_file(path: Path, good: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(document: object, opened: BinaryIO) -> None:
        opened.write(bytes(1000))
        raise RuntimeError("[enforce fail at inline_container.cc:678] unexpected pos 1000 vs 940")

    before = path.read_bytes()
    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match=r"cannot be written .* is the disk full"):
        save_checkpoint(path, good)
    assert path.read_bytes() == before and [one.name for one in path.parent.iterdir()] == ["checkpoint.pt"]


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
