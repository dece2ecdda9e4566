"""Configurations of vision-language models as their folders on the hub have them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from export.families.base import CheckpointError
from export.families.lerobot.documents import read_document


def read_model_config(folder: Path, kind: type, family: str) -> tuple[Any, Path]:
    """The folder's config.json as transformers' class `kind` reads it, and the file; `family` is who uses the model.

    Raises `CheckpointError`.
    """
    file = folder / "config.json"
    document = read_document(file)
    found, wanted = document.get("model_type"), kind.model_type  # type: ignore[attr-defined]
    if found != wanted:
        raise CheckpointError(f"{file}: a model of type '{found}'; {family}'s is a '{wanted}'")
    try:
        return kind.from_dict(document), file  # type: ignore[attr-defined]
    except Exception as error:  # its checks raise errors of their own
        raise CheckpointError(f"{file}: cannot be read ({str(error)[:120]!r}); copy it again") from None
