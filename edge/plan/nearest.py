"""The positions of one joint nearest to its goals that its limits allow: a small quadratic program.

Knots are joined by the cubic spline of `Timeline`, so what is judged of a segment, its accelerations at both ends and
its velocities, is linear in the knots. The knots nearest to the goals, by least squares, solve a quadratic
program. It is written in units of steps, in which its matrices depend on the number of knots alone. Where the curve
exceeds a limit between what the program holds, it is held there too and solved again.

Solver: daqp; Arnstroem, Bemporad, Axehill (2022), A dual active-set solver for embedded quadratic programming using
recursive LDL^T updates, IEEE Transactions on Automatic Control 67(8).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import daqp
import numpy as np

from edge.plan.trajectory import FloatArray, spline_matrices
from firmware_bridge.codes import MAX_KNOTS, MICRO, TICK_US

ROUNDS = 6
"""In which a curve that exceeds a limit between what is held is held there too."""
OVER = 1e-4
"""Share of the velocity limit that is kept back for what a curve may still exceed."""
STRAY_RAD = 1e-5
"""The same of each position limit."""
INSIDE = (1.0, 16.0, 256.0)
"""How many times that much is kept back, the later ones where the rounds do not suffice: where a curve turns moves with
what holds it."""
RUN_OVER_RAD = 1e-4
"""What a stop after the last knot may lack of its room; far less than the device keeps back for a stop."""
TOLERANCE, MOST_ITERATIONS = 1e-9, 2000
"""Of the solver; the tolerance in units of the deviation that is allowed."""
NO_BOUND = 1e30
TICK_S = TICK_US * MICRO
Cut = tuple[FloatArray, float, float]
"""A row, and the least and most that its product with the positions may be."""


@dataclass(frozen=True)
class JointBounds:
    """Limits of one joint in its unit, and how far (rms) its knots may be from the goals."""

    low: float
    high: float
    velocity: float
    acceleration: float
    jerk: float
    deviation: float


@dataclass(frozen=True)
class JointStart:
    """Position, velocity and acceleration with which the committed trajectory reaches the splice."""

    q: float
    dq: float
    ddq: float


@dataclass(frozen=True)
class Nearest:
    """Positions (n,) of a joint, their rms distance from the goals in shares of what is allowed, and the multipliers of
    what holds them there, with which a like program begins."""

    path_rad: FloatArray
    share: float
    multipliers: FloatArray

    @property
    def allowed(self) -> bool:
        return self.share <= 1.0


def rounding_rad_s2(step_s: float) -> float:
    """What rounding to whole microradians may add to an acceleration: 12 half units of a position in a second
    difference of the spline, 6 of a velocity in an acceleration, 3 of a position in a velocity."""
    return MICRO * (6 / step_s**2 + 3 / step_s)


class Program:
    """The quadratic program of one joint that leaves `start` in steps of `step_s`, each for one of `goals` (n,).

    It is: the x (n,) nearest to `wanted` with `least` <= (x, rows x) <= `most`. x are positions after the splice, less
    the one there, in units of the deviation that is allowed.
    """

    def __init__(self, goals: FloatArray, start: JointStart, bounds: JointBounds, step_s: float) -> None:
        n, unit = len(goals), bounds.deviation
        rounding = rounding_rad_s2(step_s)
        self._acceleration = max(bounds.acceleration - rounding, 0.5 * bounds.acceleration)
        self._velocity = max((1 - OVER) * bounds.velocity - MICRO * (2 / step_s + 1), 0.5 * bounds.velocity)
        self._jerk, self._unit, self._step_s, self._q = bounds.jerk, unit, step_s, start.q
        self.wanted = (goals - start.q) / unit
        self._low = (bounds.low + STRAY_RAD + 2 * MICRO - start.q) / unit
        self._high = (bounds.high - STRAY_RAD - 2 * MICRO - start.q) / unit
        self._w0 = start.dq * step_s / unit
        self._fastest = self._velocity * step_s / unit
        self._spline = _spline(n)
        jerky = bounds.jerk * step_s < 2 * self._acceleration  # else no two accelerations are too far apart
        self.rows, known = self._spline.held_with_jerk if jerky else self._spline.held
        self.most = np.empty(n + len(known))
        self.most[n : 2 * n] = self._acceleration * step_s**2 / unit
        self.most[2 * n : 4 * n] = self._fastest
        self.most[4 * n :] = bounds.jerk * step_s**3 / unit
        self.least = -self.most
        first = self._first_acceleration(start, rounding)
        self.least[n], self.most[n] = (value * step_s**2 / unit for value in first)
        moved = known * self._w0
        self.least[n:] -= moved
        self.most[n:] -= moved
        self.least[:n], self.most[:n] = self._low, self._high

    def nearest(self, multipliers: FloatArray | None = None, bounded: bool = True) -> Nearest | None:
        """None when nothing is within the limits, or, if `bounded`, nothing that is near enough to the goals.

        `multipliers` of a like program save the solver most of its work.
        """
        for inside in INSIDE:
            found, settled = self._held(inside, multipliers, bounded)
            if found is None or settled:
                break
        return found

    def _held(self, inside: float, multipliers: FloatArray | None, bounded: bool) -> tuple[Nearest | None, bool]:
        """The nearest positions with so much kept back at the limits, and whether the curve keeps to them."""
        n, rows, least, most = len(self.wanted), self.rows, self.least, self.most
        stray, over = (inside - 1) * STRAY_RAD / self._unit, (inside - 1) * OVER * self._fastest
        if inside > 1.0:
            least, most = least.copy(), most.copy()
            for part, more in ((slice(0, n), stray), (slice(2 * n, 4 * n), over)):
                least[part] += more
                most[part] -= more
        for _ in range(ROUNDS):
            found = self._solve(rows, least, most, multipliers, bounded)
            if found is None:
                return None, False
            x, held = found
            cuts = self._cuts(x, stray, over)
            if not cuts:
                break
            rows = np.vstack([rows, *(row for row, _, _ in cuts)])
            least = np.append(least, [low for _, low, _ in cuts])
            most = np.append(most, [high for _, _, high in cuts])
            multipliers = np.append(held, np.zeros(len(cuts)))
        away = x - self.wanted
        share = math.sqrt(float(away @ away) / n)
        return Nearest(self._q + self._unit * x, share, held[: len(self.most)]), not cuts

    def _solve(
        self, rows: FloatArray, least: FloatArray, most: FloatArray, multipliers: FloatArray | None, bounded: bool
    ) -> tuple[FloatArray, FloatArray] | None:
        """The nearest x (n,) with `least` <= (x, rows x) <= `most`, and its multipliers."""
        n = len(self.wanted)
        x, _, flag, info = daqp.solve(
            _identity(n),
            -self.wanted,
            rows,
            most,
            least,
            dual_start=multipliers,
            primal_tol=TOLERANCE,
            iter_limit=MOST_ITERATIONS,
            fval_bound=0.5 * n if bounded else NO_BOUND,
        )
        if flag == OPTIMAL:
            return x, info["lam"]
        if flag == INFEASIBLE or multipliers is None:
            return None
        return self._solve(rows, least, most, None, bounded)

    def _first_acceleration(self, start: JointStart, rounding: float) -> tuple[float, float]:
        """Least and largest acceleration with which the knots may leave the splice.

        It may jump by what the device follows within a tick, beside what the curve itself changes in one; and as far
        as it must for a velocity that stays within its limit while the acceleration falls to the opposite limit in one
        step.
        """
        step_s, brake = self._step_s, self._acceleration
        jump = (self._jerk - min(2 * brake / step_s, self._jerk)) * TICK_S + 2 * rounding
        up, down = max(self._velocity - start.dq, 0.0), max(self._velocity + start.dq, 0.0)
        steepest = (up + math.sqrt(up * (up + 2 * step_s * brake))) / step_s
        deepest = (down + math.sqrt(down * (down + 2 * step_s * brake))) / step_s
        least, most = min(start.ddq - jump, steepest), max(start.ddq + jump, -deepest)
        return max(min(least, brake), -brake), min(max(most, -brake), brake)

    # Between what is held ---------------------------------------------------------------------------------------------

    def _cuts(self, x: FloatArray, stray: float, over: float) -> list[Cut]:
        """What else must hold: where the curve is too fast or outside between the knots, and a stop after the last.

        It is held there, `stray` and `over` inside.
        """
        velocity, acceleration = self._spline.velocity, self._spline.acceleration
        w = velocity[0] @ x + velocity[1] * self._w0
        a = acceleration[0] @ x + acceleration[1] * self._w0
        return self._too_fast(w, a, over) + self._strays(x, w, a, stray) + self._runs_over(x, w)

    def _too_fast(self, w: FloatArray, a: FloatArray, over: float) -> list[Cut]:
        """The velocity of a segment turns where its acceleration changes sign."""
        if max(w.max(), -w.min()) + 0.25 * max(a.max(), -a.min()) <= self._fastest:  # the most that it can turn further
            return []
        turns = np.flatnonzero(a[:-1] * a[1:] < 0.0)
        u = a[turns] / (a[turns] - a[turns + 1])
        fast = np.abs(w[turns] + 0.5 * a[turns] * u) > (1 + OVER) * self._fastest
        return [
            self._cut(self._spline.velocity_at(segment, share), over - self._fastest, self._fastest - over)
            for segment, share in zip(turns[fast].tolist(), u[fast].tolist())
        ]

    def _strays(self, x: FloatArray, w: FloatArray, a: FloatArray, stray: float) -> list[Cut]:
        low, high = self._low, self._high
        overshoot = 8 / 27 * np.abs(w).max()  # the most that a Hermite segment leaves the range of its ends
        if x.max() + overshoot <= high and x.min() - overshoot >= low:
            return []
        bend = np.diff(a)
        with np.errstate(invalid="ignore", divide="ignore"):
            total = -(a[:-1] + np.copysign(np.sqrt(a[:-1] ** 2 - 2 * bend * w[:-1]), a[:-1]))
            turns = np.stack([total / bend, 2 * w[:-1] / total])
        u = np.where((turns > 0.0) & (turns < 1.0), turns, 0.0)
        at = np.append(0.0, x)[:-1] + u * (w[:-1] + u * (0.5 * a[:-1] + u * bend / 6))
        beyond = np.argwhere(np.maximum(at - high, low - at) * self._unit > STRAY_RAD)
        return [
            self._cut(self._spline.position_at(segment, float(u[root, segment])), low + stray, high - stray)
            for root, segment in beyond.tolist()
        ]

    def _runs_over(self, x: FloatArray, w: FloatArray) -> list[Cut]:
        """A stop from speed v takes v^2 / 2a, and a little more until the brake is on; held by its tangent."""
        up = w[-1] > 0.0
        speed = abs(float(w[-1])) * self._unit / self._step_s
        late_s = 0.5 * self._acceleration / self._jerk + 1.5 * TICK_S
        reach, slope_s = speed * (0.5 * speed / self._acceleration + late_s), speed / self._acceleration + late_s
        room = (self._high - x[-1] if up else x[-1] - self._low) * self._unit
        if reach <= room + RUN_OVER_RAD:
            return []
        weight, (position, velocity) = slope_s / self._step_s, (self._spline.position, self._spline.velocity)
        row = position[0][-1] + weight * velocity[0][-1], weight * float(velocity[1][-1])
        ahead = (slope_s * speed - reach) / self._unit
        return [self._cut(row, -NO_BOUND, self._high + ahead) if up else self._cut(row, self._low - ahead, NO_BOUND)]

    def _cut(self, row: tuple[FloatArray, float], least: float, most: float) -> Cut:
        moved = row[1] * self._w0
        return row[0], least - moved, most - moved


OPTIMAL, INFEASIBLE = 1, -1
"""Of daqp's exit flags."""


@dataclass(frozen=True)
class _Spline:
    """A joint's spline over n steps, in units of steps: linear in its positions x (n,) after the splice, less the one
    at the splice, and in its velocity w0 there. Each pair holds the factors of x and of w0.

    position, velocity, acceleration  at the n + 1 knots
    held   what is limited: accelerations at the first n knots (the last is free of it), velocities at the last n knots
           and in the middle of the n segments
    held_with_jerk   the same, and the acceleration of each knot less that of the one before
    """

    position: tuple[FloatArray, FloatArray]
    velocity: tuple[FloatArray, FloatArray]
    acceleration: tuple[FloatArray, FloatArray]
    held: tuple[FloatArray, FloatArray]
    held_with_jerk: tuple[FloatArray, FloatArray]

    def velocity_at(self, segment: int, u: float) -> tuple[FloatArray, float]:
        """Velocity at the share `u` of a segment."""
        row, factor = (
            w[segment] + u * (a[segment] + 0.5 * u * (a[segment + 1] - a[segment]))
            for w, a in zip(self.velocity, self.acceleration)
        )
        return row, float(factor)

    def position_at(self, segment: int, u: float) -> tuple[FloatArray, float]:
        """Position at the share `u` of a segment."""
        row, factor = (
            x[segment] + u * (w[segment] + u * (0.5 * a[segment] + u * (a[segment + 1] - a[segment]) / 6))
            for x, w, a in zip(self.position, self.velocity, self.acceleration)
        )
        return row, float(factor)


def prepare(longest: int) -> None:
    """Makes what programs of up to `longest` goals share, before an arm depends on it."""
    for goals in range(1, longest + 1):
        _spline(goals)
        _identity(goals)


@lru_cache(maxsize=MAX_KNOTS)
def _spline(steps: int) -> _Spline:
    from_q, from_velocity = spline_matrices(steps + 1)
    rises = np.diff(np.eye(steps + 1), axis=0)
    velocity = from_q[:, 1:], from_velocity
    acceleration = (
        np.vstack([6 * rises - 4 * from_q[:-1] - 2 * from_q[1:], np.zeros(steps + 1)])[:, 1:],
        np.append(-4 * from_velocity[:-1] - 2 * from_velocity[1:], 0.0),
    )
    held, with_jerk = [], []
    for w, a in zip(velocity, acceleration):
        rows = [a[:-1], w[1:], w[:-1] + 0.375 * a[:-1] + 0.125 * a[1:]]
        held.append(np.ascontiguousarray(np.concatenate(rows)))
        with_jerk.append(np.ascontiguousarray(np.concatenate([*rows, np.diff(a, axis=0)])))
    position = np.eye(steps + 1)[:, 1:], np.zeros(steps + 1)
    return _Spline(position, velocity, acceleration, (held[0], held[1]), (with_jerk[0], with_jerk[1]))


@lru_cache(maxsize=MAX_KNOTS)
def _identity(size: int) -> FloatArray:
    return np.eye(size)
