"""The device behaves as it did: digests of all that leaves it, for every input of the fuzzer's corpus.

A change of behaviour that is meant is written down by `make generate`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from firmware_bridge.native import OVERRIDE, compile_replay, replay_in
from firmware_bridge.replay import Replay

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
