"""The device behaves as it did: digests of all that leaves it, for every input of the fuzzer's corpus.

A change of behaviour that is meant is written down by `make generate`.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from firmware_bridge.native import OVERRIDE, compile_replay, replay_in
from firmware_bridge.replay import CORPUS, Replay, read_corpus

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
import fuzz

VECTORS = Path(__file__).resolve().parents[1] / "vectors" / "behaviour.json"


@pytest.fixture(scope="module")
def replay(tmp_path_factory: pytest.TempPathFactory) -> Replay:
    folder = Path(os.environ.get(OVERRIDE, tmp_path_factory.mktemp("replay")))
    if OVERRIDE not in os.environ:
        compile_replay(folder)
    return Replay(replay_in(folder))


def test_the_device_behaves_as_it_did(replay: Replay) -> None:
    expected = json.loads(VECTORS.read_text())
    assert replay.corpus() == expected["corpus"]
    assert replay.limiter() == expected["limiter"]


def test_the_digest_sees_a_single_tick_more(replay: Replay) -> None:
    assert len({replay.digest(script) for script in (b"\x04\x05", b"\x04\x05\x00", b"\x04\x05\x08")}) == 3


def test_an_added_input_is_in_the_corpus_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = read_corpus("frame")
    shutil.copy(CORPUS / "frame.hex", tmp_path)
    for module in ("fuzz", "firmware_bridge.replay"):
        monkeypatch.setattr(f"{module}.CORPUS", tmp_path)
    new = tmp_path / "new"
    new.write_bytes(b"\x00never seen")
    for _ in range(2):
        monkeypatch.setattr(sys, "argv", ["fuzz.py", "frame", "--add", str(new)])
        assert fuzz.main() == 0
    added = {name: data for name, data in read_corpus("frame").items() if name not in before}
    assert list(added.values()) == [new.read_bytes()] and len(read_corpus("frame")) == len(before) + 1
    lines = (tmp_path / "frame.hex").read_text().splitlines()
    assert set((CORPUS / "frame.hex").read_text().splitlines()) == set(lines) - {new.read_bytes().hex()}
