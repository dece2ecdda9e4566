"""Replays the fuzzer's corpus on the core, and random steps on its limiter, and digests everything that comes out."""

from __future__ import annotations

import ctypes
import hashlib
import math
import random
from pathlib import Path

from firmware_bridge.native import FUZZ

CORPUS = FUZZ / "corpus"
"""`TARGET.hex`: one input in hexadecimal a line, in the order of their names."""
LIMITER_CASES, LIMITER_TICKS = 400, 60
PERIOD_S = 1e-3


def read_corpus(target: str) -> dict[str, bytes]:
    """The committed inputs of a fuzz target by name, which is the SHA-1 that libFuzzer names their files by."""
    inputs = map(bytes.fromhex, (CORPUS / f"{target}.hex").read_text().splitlines())
    return {hashlib.sha1(data).hexdigest(): data for data in inputs}


def unpack_corpus(target: str, folder: Path) -> list[Path]:
    """Writes each committed input of a fuzz target to a file of its own in `folder`."""
    folder.mkdir()
    for name, data in read_corpus(target).items():
        (folder / name).write_bytes(data)
    return sorted(folder.iterdir())


class JointLimits(ctypes.Structure):
    """`ve_joint_limits_t`."""

    _fields_ = [
        (name, ctypes.c_double)
        for name in (
            *("position_min", "position_max", "velocity", "acceleration", "jerk"),
            *("edge_offset", "edge_slope", "edge_low", "edge_high"),
        )
    ]


class JointState(ctypes.Structure):
    """`ve_joint_state_t`."""

    _fields_ = [*((name, ctypes.c_double) for name in ("q", "v", "a")), ("off_plan", ctypes.c_bool)]


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
        """Digests of all committed inputs, by name."""
        return {name: self.digest(script) for name, script in read_corpus("device").items()}

    def limiter(self, seed: int = 0) -> str:
        """Digest of the limiter's every step from random states towards set-points at, inside and beyond its limits."""
        library, draw, digest = self._library, random.Random(seed), hashlib.sha256()
        at, number = ctypes.c_void_p, ctypes.c_double
        library.ve_limiter_follow.argtypes = [at, number, number, at, number]
        library.ve_limiter_follow.restype = ctypes.c_bool
        library.ve_limiter_stop.argtypes = [at, at, number]
        for _ in range(LIMITER_CASES):
            widest = (5.0, 20.0, 10_000.0)
            limits = JointLimits(-1.0, 1.0, *(most * 10 ** draw.uniform(-1.5, 0.0) for most in widest))
            state = JointState(draw.uniform(-1.0, 1.0), draw.uniform(-0.3, 0.3) * limits.velocity, 0.0)
            for _ in range(LIMITER_TICKS):
                followed = self._limiter_step(state, limits, draw)
                digest.update(bytes(state)[: JointState.off_plan.offset + 1] + bytes([followed]))
        return digest.hexdigest()[:16]

    def _limiter_step(self, state: JointState, limits: JointLimits, draw: random.Random) -> bool:
        """One tick towards a set-point that asks for an acceleration of interest."""
        if draw.random() < 0.2:
            self._library.ve_limiter_stop(ctypes.byref(state), ctypes.byref(limits), PERIOD_S)
            return False
        step = limits.jerk * PERIOD_S
        a = draw.choice([0.0, state.a, state.a + step, state.a - step, limits.acceleration, -limits.acceleration])
        a *= draw.choice([1.0, 0.5, 1.0 + 1e-9, 1.0 - 1e-9, 2.0])
        q_next = state.q + PERIOD_S * (state.v + PERIOD_S * a)
        q_next = draw.choice([q_next, q_next, q_next, draw.uniform(-1.1, 1.1), math.nan])
        v_next = draw.choice([state.v, state.v + PERIOD_S * a, 0.0, draw.uniform(-1.0, 1.0), math.inf])
        return bool(
            self._library.ve_limiter_follow(ctypes.byref(state), q_next, v_next, ctypes.byref(limits), PERIOD_S)
        )
