"""A device's own 1 kHz trace, and an observer that judges it by its positions alone."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge.arms import JointLimits, VelocityEdges

TICK_US = 1000
ROUNDING = 1e-9
"""Differences of doubles read back a little larger than what was computed."""
SLOWEST_RAD_S = 1e-6
"""A velocity limit that has fallen to zero counts as this, well above the rounding of positions."""


@dataclass(frozen=True)
class Trace:
    """One row per tick: `q` and `dq` (n, J) in rad and rad/s; `chunk` (n,) the id in force, 0 for none."""

    tick_us: NDArray[np.int64]
    state: NDArray[np.str_]
    q: NDArray[np.float64]
    dq: NDArray[np.float64]
    chunk: NDArray[np.int64]
    limited: NDArray[np.int64]

    def part(self, rows: slice) -> Trace:
        """The same trace, some rows only."""
        return Trace(*(getattr(self, name)[rows] for name in ("tick_us", "state", "q", "dq", "chunk", "limited")))


def read_trace(path: Path) -> Trace:
    """Reads the CSV that `bridge-sim --trace` and `edge-run --trace` write."""
    with path.open() as file:
        reader = csv.reader(file)
        header = next(reader)
        return _trace(header, list(reader))


def trace_blocks(path: Path, rows: int = 60_000, overlap: int = 4) -> Iterator[Trace]:
    """A long trace piece by piece; each begins with the last `overlap` rows of the one before, for the differences."""
    with path.open() as file:
        reader = csv.reader(file)
        header = next(reader)
        kept: list[list[str]] = []
        while block := list(islice(reader, rows)):
            block = [row for row in block if len(row) == len(header)]  # the last line of a run that was cut short
            yield _trace(header, kept + block)
            kept = block[-overlap:]


def _trace(header: list[str], rows: list[list[str]]) -> Trace:
    joints = sum(name.startswith("q") for name in header)
    numbers = np.array([row[2 : 2 + 2 * joints] for row in rows], dtype=np.float64).reshape(len(rows), 2 * joints)
    whole = np.array([(row[0], *row[-2:]) for row in rows], dtype=np.int64).reshape(len(rows), 3)
    state = np.array([row[1] for row in rows], dtype=np.str_)
    return Trace(whole[:, 0], state, numbers[:, :joints], numbers[:, joints:], whole[:, 1], whole[:, 2])


def limit_shares(
    trace: Trace, limits: JointLimits, edges: VelocityEdges | None = None
) -> dict[str, NDArray[np.float64]]:
    """How much of each limit every row and joint used; above 1 is a violation.

    Velocity, acceleration and jerk are finite differences of the positions over one tick; position is the distance
    from the middle of its range. With `edges`, the velocity is judged by what they allow at the position it led to.
    """
    period_s = 1e-6 * TICK_US
    velocity = np.diff(trace.q, axis=0) / period_s
    acceleration = np.diff(velocity, axis=0) / period_s
    jerk = np.diff(acceleration, axis=0) / period_s
    low, high = np.array(limits.position_min_rad), np.array(limits.position_max_rad)
    fastest = np.broadcast_to(np.array(limits.velocity_rad_s), velocity.shape)
    if edges is not None:
        q = trace.q[1:]
        near_edge = np.where(velocity > 0, edges.up_rad_s(q), edges.down_rad_s(q))
        fastest = np.clip(near_edge, SLOWEST_RAD_S, fastest)
    return {
        "position": np.abs(2 * trace.q - high - low) / (high - low),
        "velocity": np.abs(velocity) / fastest,
        "acceleration": np.abs(acceleration) / limits.acceleration_rad_s2,
        "jerk": np.abs(jerk) / limits.jerk_rad_s3,
    }


def violations(
    trace: Trace, limits: JointLimits, edges: VelocityEdges | None = None, clock_jumps: bool = False
) -> list[str]:
    """The first violation of every kind; empty when all limits hold.

    Device time must advance by one tick a row, unless `clock_jumps` says that a fault made it jump.
    """
    found = []
    if not clock_jumps and not np.all(np.diff(trace.tick_us) == TICK_US):
        found.append("device time does not advance by one tick a row")
    for name, shares in limit_shares(trace, limits, edges).items():
        bad = np.argwhere(shares > 1 + ROUNDING)
        if bad.size:
            row, joint = (int(index) for index in bad[0])
            found.append(f"{name} of joint {joint + 1} at row {row}: {100 * shares[row, joint]:.3f} % of the limit")
    return found
