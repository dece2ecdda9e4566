"""Tasks as people type them: punctuation is nobody's problem, in training or on the robot."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from edge.bundle import TextSpec
from edge.errors import InputError
from edge.policy.prompt import Prompter
from export.training.instructions import word_tokenizer

TEXT = TextSpec("tokenizer.json", 8)
TRAINED = ("Put it in the bin.", '"reach" the red cube!', "don't move")
TYPED = ("put it in the bin", "Put it, in the bin!", "(put) it in the 'bin'...", "\u201cput\u201d it in the bin\u2026")


def tokens(file: Path, task: str) -> list[int]:
    prompter = Prompter(TEXT, file, task)
    assert prompter._fixed is not None
    return prompter._fixed.tokens.tolist()


def saved(folder: Path, tokenizer: Tokenizer) -> Path:
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


def older() -> Tokenizer:
    """As checkpoints have it that were trained before: words end at spaces alone."""
    words = ["<pad>", "<unknown>", "put", "it", "in", "the", "bin"]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unknown>"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.WhitespaceSplit()
    return tokenizer


@pytest.mark.parametrize("tokenizer", [word_tokenizer(TRAINED), older()], ids=["trained now", "trained before"])
@pytest.mark.parametrize("task", TYPED)
def test_punctuation_changes_nothing(tmp_path: Path, tokenizer: Tokenizer, task: str) -> None:
    file = saved(tmp_path, tokenizer)
    assert tokens(file, task) == tokens(file, "put it in the bin")


def test_an_apostrophe_inside_a_word_stays(tmp_path: Path) -> None:
    assert word_tokenizer(TRAINED).encode("Don't move!").tokens == ["don't", "move"]
    with pytest.raises(InputError, match="never learned the word 'dont'"):
        Prompter(TEXT, saved(tmp_path, word_tokenizer(TRAINED)), "dont move")


@pytest.mark.parametrize(("task", "told"), [("", "is empty"), ("...", "is empty"), (" \n", "is empty")])
def test_a_task_without_words_is_empty(tmp_path: Path, task: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        Prompter(TEXT, saved(tmp_path, word_tokenizer(TRAINED)), task)


@pytest.mark.parametrize("typed", [b"caf\xe9", b"\xff\xfe", b"put it in the b\xefn"])
def test_bytes_that_are_no_text_are_named(tmp_path: Path, typed: bytes) -> None:
    with pytest.raises(InputError, match="is not text in UTF-8; type it again") as caught:
        Prompter(TEXT, saved(tmp_path, word_tokenizer(TRAINED)), typed.decode("utf-8", "surrogateescape"))
    assert str(caught.value).isprintable()
