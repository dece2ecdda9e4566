"""Instructions as token ids, and the small word tokenizer of the tiny preset."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from edge.bundle import PUNCTUATION

PAD, UNKNOWN = "<pad>", "<unknown>"
MARKS = re.escape(PUNCTUATION)
AROUND = rf"(^|\s)[{MARKS}]+|[{MARKS}]+(?=\s|$)"
"""Punctuation before a word or behind one; inside of it, as in "don't", it belongs to the word."""
SPECIAL = (PAD, UNKNOWN, "<|vision_start|>", "<|vision_end|>")
"""Their order gives the ids 0 to 3, which the tiny preset relies on."""


def word_tokenizer(instructions: tuple[str, ...]) -> Tokenizer:
    """One token per lower-case word that occurs in `instructions`, without the punctuation around it.

    Anything else is unknown, and refused on the robot.
    """
    bare = {word.strip(PUNCTUATION) for text in instructions for word in text.lower().split()}
    words = sorted(bare - {""})
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Lowercase(), normalizers.Replace(Regex(AROUND), " "), normalizers.Strip()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


class InstructionTokens:
    """Every instruction of a dataset, tokenised once and padded to the budget."""

    def __init__(self, tokenizer: Tokenizer, instructions: tuple[str, ...], budget: int) -> None:
        self._ids = torch.zeros(len(instructions), budget, dtype=torch.int64)
        self._mask = torch.zeros(len(instructions), budget, dtype=torch.bool)
        for row, text in enumerate(instructions):
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            if len(ids) > budget:
                raise ValueError(f"'{text}' has {len(ids)} tokens and the budget is {budget}")
            self._ids[row, : len(ids)] = torch.tensor(ids)
            self._mask[row, : len(ids)] = True

    @property
    def longest(self) -> int:
        """Tokens of the longest instruction; every column after them is padding."""
        return int(self._mask.sum(dim=1).max())

    def of(self, rows: NDArray[np.integer[Any]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids int64 and mask bool, both (batch, budget)."""
        index = torch.from_numpy(rows.astype(np.int64))
        return self._ids[index], self._mask[index]
