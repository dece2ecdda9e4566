"""The tokenizer that a folder names and does not hold, and how its policy writes a prompt."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from edge.bundle import worded
from export.families.base import CheckpointError
from export.families.lerobot.folder import PREPROCESSOR, Folder

TOKENIZE, NEW_LINE = "tokenizer_processor", "smolvla_new_line_processor"
TOKENIZER_FILE = "tokenizer.json"


def check_tokenizing(folder: Folder, budget: int) -> None:
    """Refuses another way of tokenizing than the policies' own. Raises `CheckpointError`."""
    config = folder.step(TOKENIZE).config
    for name, wanted in (("max_length", budget), ("padding_side", "right"), ("task_key", "task"), ("truncation", True)):
        if config.get(name, wanted) != wanted:
            raise CheckpointError(
                f"{folder.path / PREPROCESSOR}: '{name}' of '{TOKENIZE}' is {config[name]!r}; "
                f"only {wanted!r} is implemented for {folder.kind}"
            )


def read_tokenizer(folder: Folder, named: Path | None, vocabulary: int) -> str:
    """The document of the tokenizer at `named`, a tokenizer.json or a folder with one. Raises `CheckpointError`."""
    wanted = str(folder.step(TOKENIZE).config.get("tokenizer_name", "the policy's tokenizer"))
    return document_of(folder, named, vocabulary, wanted)


def document_of(folder: Folder, named: Path | None, vocabulary: int, wanted: str) -> str:
    """As `read_tokenizer`; `wanted` is what messages call it. Raises `CheckpointError`."""
    if named is None:
        raise CheckpointError(
            f"{folder.path}: the tokenizer is not in the folder; name a copy of {wanted}: --tokenizer DIR"
        )
    file = named / TOKENIZER_FILE if named.is_dir() else named
    if not file.is_file():
        raise CheckpointError(f"{file}: missing; copy {TOKENIZER_FILE} of {wanted} there")
    tokenizer = _open(file)
    size = tokenizer.get_vocab_size(with_added_tokens=True)
    if size > vocabulary:
        raise CheckpointError(
            f"{file}: has {size} tokens, and the policy knows {vocabulary}; name a copy of {wanted} with --tokenizer"
        )
    return str(tokenizer.to_str())


def _open(file: Path) -> Any:
    """As transformers opens it: what it adds to each text is said beside the file."""
    from transformers import AutoTokenizer

    beside = file.with_name("tokenizer_config.json")
    try:
        tokenizer = Tokenizer.from_file(str(file))
        if beside.is_file():
            tokenizer = AutoTokenizer.from_pretrained(str(file.parent), local_files_only=True).backend_tokenizer
        json.loads(tokenizer.to_str())
    except Exception as error:  # both libraries raise bare exceptions for a bad document
        raise CheckpointError(f"{file}: cannot be read ({str(error)[:120]!r}); copy it again") from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def prompt_ids(text: Mapping[str, Any], task: str, state: NDArray[np.float32]) -> list[int]:
    """Token ids of a task as the robot's computer makes them of a manifest's text, at most the budget.

    state (columns,) in the robot's units
    """
    parts = {"task": worded(task, text["clean"], text["plain"]), "newline": "\n"}
    if "state_bins" in text:
        bins = text["state_bins"]
        offset, scale = (np.array(bins[name], np.float32) for name in ("offset", "scale"))
        edges = np.linspace(-1, 1, bins["count"] + 1)[:-1]
        parts["state"] = " ".join(map(str, np.digitize((state - offset) / scale, edges) - 1))
    written = text["template"].format(**parts)
    ids = Tokenizer.from_str(text["document"]).encode(written, add_special_tokens=text["special"]).ids
    return list(ids)[: text["budget"]]
