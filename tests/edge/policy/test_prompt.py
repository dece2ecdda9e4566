"""A task becomes tokens as its policy was trained: templates, special tokens, state in the prompt; always bounded."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from tokenizers.processors import TemplateProcessing

from edge.bundle import StateBins, TextSpec
from edge.errors import InputError
from edge.policy.prompt import Prompter, binned

SPECIAL, UNKNOWN, NEWLINE = 1, 2, 3


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Every character is a token: its code and 10; the end of a line is 3, and 1 begins what has special tokens."""
    vocabulary = {chr(code): code + 10 for code in range(32, 127)} | {"<b>": SPECIAL, "<unk>": UNKNOWN, "\n": NEWLINE}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Split("", "isolated")
    tokenizer.post_processor = TemplateProcessing(single="<b> $A", special_tokens=[("<b>", SPECIAL)])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


def read(prompter: Prompter, *state: float) -> str:
    """The prompt's text again; its special token as <b>."""
    prompt = prompter.prompt(np.array(state))
    tokens = prompt.tokens[prompt.mask].tolist()
    return "".join({SPECIAL: "<b>", NEWLINE: "\n"}.get(token) or chr(token - 10) for token in tokens)


def test_a_template_with_its_special_tokens_and_padding(file: Path) -> None:
    text = TextSpec("tokenizer.json", 24, "{task}{newline}", special=True, pad=9)
    prompter = Prompter(text, file, "pick {state} up")
    assert prompter.fixed and read(prompter) == "<b>pick {state} up\n"
    prompt = prompter.prompt(np.zeros(0))
    assert prompt.tokens.shape == (24,) and set(prompt.tokens[~prompt.mask]) == {9}
    plain = Prompter(TextSpec("tokenizer.json", 24), file, " pick_it ")
    assert read(plain) == " pick_it "
    assert read(Prompter(TextSpec("tokenizer.json", 24, clean=True), file, " pick_it ")) == "pick it"
    assert read(Prompter(TextSpec("tokenizer.json", 24, plain=True), file, " Pick_2, Ok! ")) == " pick_2 ok "


def test_the_state_is_in_the_prompt_of_every_chunk(file: Path) -> None:
    """Bins as the trained policy's own code makes them: numpy's digitize over 256 of them from -1 to 1."""
    bins = StateBins(256, (10.0, -5.0, 0.0), (90.0, 2.0, 1.0))
    text = TextSpec("tokenizer.json", 60, "Task: {task}, State: {state};{newline}Action: ", state_bins=bins)
    prompter = Prompter(text, file, "go")
    assert not prompter.fixed
    draw = np.random.default_rng(0)
    for state in draw.uniform(-120, 120, (50, 3)):
        normalised = (state.astype(np.float32) - np.float32(bins.offset)) / np.float32(bins.scale)
        wanted = np.digitize(normalised, np.linspace(-1, 1, 257)[:-1]) - 1
        assert binned(state, bins).tolist() == wanted.tolist()
        words = " ".join(map(str, wanted))
        assert read(prompter, *state) == f"Task: go, State: {words};\nAction: "


@pytest.mark.parametrize(
    ("task", "line"),
    [
        ("", "the task is empty"),
        ("  ", "the task is empty"),
        ("x" * 30, "has 30 tokens and this bundle takes 24"),
        ("gr\u00fc\u00df", "never learned the word '\u00fc'"),
    ],
)
def test_a_task_that_does_not_fit_is_refused(file: Path, task: str, line: str) -> None:
    with pytest.raises(InputError, match=line):
        Prompter(TextSpec("tokenizer.json", 24), file, task)


def test_a_task_that_leaves_no_room_for_the_state_is_refused_before_the_run(file: Path) -> None:
    bins = StateBins(256, (0.0,) * 6, (1.0,) * 6)
    text = TextSpec("tokenizer.json", 30, "{task} {state}", state_bins=bins)
    assert Prompter(text, file, "go") is not None
    with pytest.raises(InputError, match="has 32 tokens and this bundle takes 30; shorten it"):
        Prompter(text, file, "go there")


def grown(document: dict[str, Any], times: int) -> None:
    steps = [{"type": "Replace", "pattern": {"String": "a"}, "content": "aa"} for _ in range(times)]
    document["normalizer"] = {"type": "Sequence", "normalizers": steps}


@pytest.mark.parametrize(
    "change",
    [
        lambda document: grown(document, 40),
        lambda document: document.update(
            normalizer={"type": "Replace", "pattern": {"Regex": "."}, "content": "b" * 9999}
        ),
        lambda document: document.update(normalizer={"type": "Prepend", "prepend": "b" * 9999}),
        lambda document: document.update(
            padding={
                "strategy": {"Fixed": 10**9},
                "direction": "Right",
                "pad_to_multiple_of": None,
                "pad_id": 0,
                "pad_type_id": 0,
                "pad_token": "<unk>",
            }
        ),
        lambda document: document.update(model="none"),
    ],
)
def test_a_tokenizer_that_expands_itself_costs_nothing(file: Path, change: Any) -> None:
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))
    began = time.monotonic()
    try:
        assert read(Prompter(TextSpec("tokenizer.json", 24), file, "aaa")) == "aaa"  # a padding is not the policy's
    except InputError as error:
        assert "export the checkpoint again" in str(error) and len(str(error)) < 280 and str(error).isprintable()
    assert time.monotonic() - began < 5
