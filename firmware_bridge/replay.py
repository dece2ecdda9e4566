"""Replays the fuzzer's corpus on the core and digests everything that leaves the device."""

from __future__ import annotations

import ctypes
from pathlib import Path

from firmware_bridge.native import FUZZ

CORPUS = FUZZ / "corpus" / "device"


class Replay:
    """A library made by `compile_replay`. An input that breaks one of the observer's demands ends the process."""

    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))
        self._library.LLVMFuzzerTestOneInput.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
        self._library.ve_fuzz_digest.restype = ctypes.c_uint64

    def digest(self, script: bytes) -> str:
        """Digest of set-points, velocities, drive signal and bytes sent, tick by tick: 16 hexadecimal digits."""
        self._library.LLVMFuzzerTestOneInput(script, len(script))
        return f"{self._library.ve_fuzz_digest():016x}"

    def corpus(self) -> dict[str, str]:
        """Digests of all committed inputs, by file name."""
        return {path.name: self.digest(path.read_bytes()) for path in sorted(CORPUS.iterdir())}
