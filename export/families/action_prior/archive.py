"""Files of torch.save, read without running code of theirs and without believing what they say of their own size.

An archive that torch writes is not compressed, so it never unpacks to more than its length; the words of its pickle are
those of tensors and plain data; a tensor has as many elements as are stored. Whatever differs is refused before it is
allocated.
"""

from __future__ import annotations

import os
import pickletools
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from export.families.base import CheckpointError
from firmware_bridge.reading import MOST_MESSAGE, ReadError, check_depth, is_lfs_pointer, one_line

MOST_PLAIN_BYTES = 64 << 20
"""Of the pickle, which holds everything but the tensors' elements; a tokenizer of 150,000 words takes 11 MB."""
MOST_RECORDS = 1 << 17
DTYPES = (
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.bool,
)
WORDS = {
    *("collections OrderedDict", "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter"),
    *(f"torch {kind}Storage" for kind in ("Double", "Float", "Half", "BFloat16", "Long", "Int", "Byte", "Bool")),
}
"""What a pickle of tensors and plain data refers to."""
CODE = {"STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4", "PERSID"}


def save_whole(path: Path, document: dict[str, Any]) -> None:
    """Writes the file whole or not at all, also when the process is killed or the power fails while it does."""
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as opened:
            torch.save(document, opened)
            opened.flush()
            os.fsync(opened.fileno())
    except (OSError, RuntimeError) as error:
        partial.unlink(missing_ok=True)  # half a file on a full disk is in the way of everything else
        if isinstance(error, OSError):
            raise
        raise OSError(f"{path}: cannot be written ({one_line(str(error), 80)}); is the disk full?") from None
    partial.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name itself
    finally:
        os.close(folder)


def read_document(path: Path) -> dict[str, Any]:
    """Tensors and plain data of a file that `save_whole` wrote. Raises `CheckpointError`; runs no code of it."""
    try:
        check_archive(path)
        document = torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except Exception as error:  # torch's reader raises whatever a malformed pickle leads it to
        told = one_line(str(error) or type(error).__name__, 120)
        raise CheckpointError(one_line(f"{path} is damaged: {told}; copy or train it again", MOST_MESSAGE)) from None
    if not isinstance(document, dict):
        raise CheckpointError(
            f"{path} is not a vla-edge checkpoint: it holds a {type(document).__name__}, not a mapping"
        )
    try:
        check_depth(document)
        for tensor in _tensors(document):
            _check_tensor(tensor)
    except ReadError as error:
        raise CheckpointError(f"{path} {error}; train again, or take another checkpoint") from None
    return document


def plain_of(path: Path) -> bytes:
    """The pickle of a file of torch.save. Raises `CheckpointError` for anything else."""
    if not path.is_file():
        raise CheckpointError(f"{path}: {'not a regular file' if path.exists() else 'no such file'}")
    if is_lfs_pointer(path):
        raise CheckpointError(f"{path} is a pointer of Git LFS, not the checkpoint: fetch it with git lfs pull")
    if not zipfile.is_zipfile(path):
        raise CheckpointError(f"{path} is not a torch checkpoint, or it was cut short; copy it again")
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
            packed = any(one.compress_type != zipfile.ZIP_STORED for one in records)
            if packed or sum(one.file_size for one in records) > path.stat().st_size or len(records) > MOST_RECORDS:
                raise CheckpointError(f"{path} is compressed, which no file of torch.save is; save it with torch again")
            pickles = [one for one in records if one.filename.endswith("/data.pkl")]
            if len(pickles) != 1 or pickles[0].file_size > MOST_PLAIN_BYTES:
                raise CheckpointError(f"{path} is not a torch checkpoint: its plain part is missing or too large")
            return archive.read(pickles[0])
    except (zipfile.BadZipFile, zlib.error, OSError, ValueError, NotImplementedError, RuntimeError, EOFError) as error:
        told = one_line(str(error), 120)
        raise CheckpointError(f"{path} is damaged: {told}; copy or train it again") from None


def check_archive(path: Path) -> None:
    """Raises `CheckpointError` for a file that is damaged, or that is more than tensors and plain data."""
    foreign = _foreign(plain_of(path), path)
    if foreign:
        raise CheckpointError(
            f"{path} holds pickled code, which is never run ({one_line(foreign, 60)}); save tensors and plain data "
            "only (docs/architecture.md)"
        )
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()  # torch itself reads past a wrong checksum
    if damaged is not None:
        raise CheckpointError(f"{path} is damaged: the checksum of {one_line(damaged, 60)} is wrong; copy it again")


def _foreign(pickled: bytes, path: Path) -> str:
    """The first word of a pickle that tensors and plain data do without."""
    try:
        for code, argument, _ in pickletools.genops(pickled):
            if code.name in CODE:
                return code.name
            if code.name == "GLOBAL" and argument not in WORDS:
                return str(argument)
    except Exception as error:  # so does the reader of pickles, on malformed ones
        raise CheckpointError(f"{path} is damaged: {one_line(str(error), 120)}; copy or train it again") from None
    return ""


def _tensors(document: Any) -> Iterator[torch.Tensor]:
    """Every tensor in lists and mappings; `check_depth` has made sure that there is an end to them."""
    if isinstance(document, torch.Tensor):
        yield document
    elif isinstance(document, (dict, list, tuple)):
        for inner in document.values() if isinstance(document, dict) else document:
            yield from _tensors(inner)


def _check_tensor(tensor: torch.Tensor) -> None:
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter) or tensor.layout is not torch.strided:
        raise ReadError("has a tensor that is sparse or of a kind of its own")
    if tensor.device.type != "cpu" or tensor.dtype not in DTYPES:
        raise ReadError(f"has a tensor of type {tensor.dtype} on '{tensor.device}', which no checkpoint has")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ReadError(f"has a tensor of {tensor.numel():.2g} elements, more than are stored")
