"""The task in words, as the token ids that a policy takes; made for every chunk anew where the state is in them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from edge.bundle import PUNCTUATION, StateBins, TextSpec, worded
from edge.errors import InputError
from firmware_bridge.reading import one_line, shown

MOST_GROWTH = 16
"""Most characters that a tokenizer's normalisation may make of one. Those of published policies make one of one."""


@dataclass(frozen=True)
class Prompt:
    """Padded to the budget: `tokens` int64 (budget,), `mask` bool (budget,)."""

    tokens: NDArray[np.int64]
    mask: NDArray[np.bool_]


class Prompter:
    """Makes the prompt of one task. Raises `InputError` for a task that is empty, too long, or has words the policy
    never saw."""

    def __init__(self, text: TextSpec, tokenizer_file: Path, task: str) -> None:
        self._text, self._tokenizer = text, open_tokenizer(tokenizer_file)
        if any("\ud800" <= letter <= "\udfff" for letter in task):
            raise InputError(f"the task {shown(task)} is not text in UTF-8; type it again, or set LANG=C.UTF-8")
        self._task = worded(task, text.clean, text.plain)
        if not self._tokenizer.encode(self._task.strip(), add_special_tokens=False).ids:
            raise InputError("the task is empty; give one with --task TEXT")
        if self._unknown() and not self._unknown(_spoken(self._task)):
            self._task = _spoken(self._task)  # a vocabulary of words has none with a full stop
        self._check_words()
        bins = text.state_bins
        states = [np.zeros(0)] if bins is None else _extremes(bins)
        most = max(len(self._encode(state)) for state in states)
        if most > text.budget:
            raise InputError(f"the task has {most} tokens and this bundle takes {text.budget}; shorten it")
        self._fixed = self._padded(states[0]) if bins is None else None

    def prompt(self, state: NDArray[np.floating[Any]]) -> Prompt:
        """The prompt with the state (columns) as the engines have it. Raises `ValueError` when it is too long."""
        return self._fixed if self._fixed is not None else self._padded(state)

    @property
    def fixed(self) -> bool:
        """Whether it is the same for every chunk."""
        return self._fixed is not None

    def _padded(self, state: NDArray[np.floating[Any]]) -> Prompt:
        ids, budget = self._encode(state), self._text.budget
        if len(ids) > budget:
            raise ValueError(f"the prompt has {len(ids)} tokens and this bundle takes {budget}; shorten the task")
        tokens = np.full(budget, self._text.pad, dtype=np.int64)
        tokens[: len(ids)] = ids
        return Prompt(tokens, np.arange(budget) < len(ids))

    def _encode(self, state: NDArray[np.floating[Any]]) -> list[int]:
        return list(self._tokenizer.encode(self._written(state), add_special_tokens=self._text.special).ids)

    def _written(self, state: NDArray[np.floating[Any]]) -> str:
        bins, parts = self._text.state_bins, {"{task}": self._task, "{newline}": "\n"}
        if bins is not None:
            parts["{state}"] = " ".join(map(str, binned(state, bins)))
        written, at = "", 0
        template = self._text.template
        while at < len(template):
            name = next((name for name in parts if template.startswith(name, at)), template[at])
            written, at = written + parts.get(name, name), at + len(name)
        return written

    def _unknown(self, task: str | None = None) -> list[str]:
        """The words of the task that the tokenizer has no token for."""
        task = self._task if task is None else task
        encoding = self._tokenizer.encode(task, add_special_tokens=False)
        token_of_none = getattr(self._tokenizer.model, "unk_token", None)
        return [
            task[start:end] for token, (start, end) in zip(encoding.tokens, encoding.offsets) if token == token_of_none
        ]

    def _check_words(self) -> None:
        unknown = self._unknown()
        if unknown:
            words = sorted(word for word in self._tokenizer.get_vocab() if not word.startswith("<"))
            raise InputError(
                f"the policy never learned the word {', '.join(map(shown, unknown[:3]))}; "
                f"it knows: {one_line(', '.join(words[:40]), 160)}"
            )


def binned(state: NDArray[np.floating[Any]], bins: StateBins) -> NDArray[np.int64]:
    """The bin of each of the state's columns, in float32 as it was trained: below the first -1, else 0 to count - 1."""
    normalised = (state.astype(np.float32) - np.array(bins.offset, np.float32)) / np.array(bins.scale, np.float32)
    edges = np.linspace(-1, 1, bins.count + 1)[:-1]
    return np.searchsorted(edges, normalised, side="right").astype(np.int64) - 1


def open_tokenizer(file: Path) -> Tokenizer:
    """A tokenizer whose output is bounded by the text it is given. Raises `InputError`."""
    try:
        data = file.read_bytes()
        growth = _growth(json.loads(data).get("normalizer"))
        tokenizer = Tokenizer.from_buffer(data)
    except Exception as error:  # the library raises bare Exception for a bad document
        raise InputError(
            f"{one_line(str(file), 100)}: cannot be read ({one_line(str(error), 100)}); export the checkpoint again"
        ) from None
    if growth > MOST_GROWTH:
        raise InputError(f"{one_line(str(file), 100)}: makes {growth} characters of one; export the checkpoint again")
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _growth(normalizer: Any) -> int:
    """How many characters a normaliser of the `tokenizers` library may make of one, from above."""
    if not isinstance(normalizer, dict):
        return 1
    if normalizer.get("type") == "Sequence":
        grown = 1
        for one in normalizer.get("normalizers", ()):
            grown *= _growth(one)
            if grown > MOST_GROWTH:
                break
        return grown
    if normalizer.get("type") == "Replace":
        pattern = normalizer.get("pattern", {})
        least = len(pattern["String"]) if isinstance(pattern, dict) and pattern.get("String") else 1
        return max(1, -(-len(str(normalizer.get("content", ""))) // least))
    return 1 + len(str(normalizer.get("prepend", ""))) if normalizer.get("type") == "Prepend" else 1


def _spoken(task: str) -> str:
    """The task without the punctuation around its words."""
    return " ".join(filter(None, (word.strip(PUNCTUATION) for word in task.split())))


def _extremes(bins: StateBins) -> list[NDArray[np.floating[Any]]]:
    """States whose bins take the most characters to write: all below the first, and all in the last."""
    offset, scale = np.array(bins.offset), np.array(bins.scale)
    return [offset - 2 * scale, offset + 2 * scale]
