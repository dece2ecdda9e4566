"""The task in words, as the token ids the backbone takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from edge.errors import InputError


@dataclass(frozen=True)
class Instruction:
    """One task, padded to the budget: `tokens` int64 (budget,), `mask` bool (budget,)."""

    text: str
    tokens: NDArray[np.int64]
    mask: NDArray[np.bool_]


def tokenize(task: str, tokenizer_file: Path, budget: int) -> Instruction:
    """Token ids of a task. Raises `InputError` when it is empty, too long, or has words the policy never saw."""
    try:
        tokenizer = Tokenizer.from_file(str(tokenizer_file))
    except Exception as error:  # the library raises bare Exception for a bad document
        raise InputError(
            f"{tokenizer_file}: cannot be read ({str(error)[:120]}); export the checkpoint again"
        ) from None
    encoding = tokenizer.encode(task, add_special_tokens=False)
    if not encoding.ids:
        raise InputError("the task is empty; give one with --task TEXT")
    if len(encoding.ids) > budget:
        raise InputError(f"the task has {len(encoding.ids)} tokens and this bundle takes {budget}; shorten it")
    unknown_token = getattr(tokenizer.model, "unk_token", None)
    unknown = [
        task[start:end] for token, (start, end) in zip(encoding.tokens, encoding.offsets) if token == unknown_token
    ]
    if unknown:
        words = sorted(word for word in tokenizer.get_vocab() if not word.startswith("<"))
        raise InputError(
            f"the policy never learned the word {', '.join(map(repr, unknown))}; it knows: {', '.join(words[:40])}"
        )
    tokens = np.zeros(budget, dtype=np.int64)
    mask = np.zeros(budget, dtype=np.bool_)
    tokens[: len(encoding.ids)] = encoding.ids
    mask[: len(encoding.ids)] = True
    return Instruction(task, tokens, mask)
