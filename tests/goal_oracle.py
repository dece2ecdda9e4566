"""The least that a joint must depart from its goals, by another solver on another form of the problem: an oracle.

osqp (Stellato et al. 2020, OSQP: an operator splitting solver for quadratic programs), sparse, over positions,
velocities and accelerations of all knots, with the limits asked at eleven points of every segment. Where it does not
converge, HiGHS says whether anything is feasible, and daqp solves this form of the problem too.
"""

from __future__ import annotations

import math

import daqp
import numpy as np
import osqp
from scipy import optimize, sparse

from edge.plan.nearest import JointBounds, JointStart
from tests.goal_chunks import Rows

POINTS = np.array([1 / 64, 1 / 32, 1 / 16, *(np.arange(1, 9) / 8)])
"""Of a segment. The early ones hold a curve that leaves a splice at the velocity limit."""
TANGENTS = 24
TICK_S = 1e-3


def least_deviation(goals: Rows, start: JointStart, bounds: JointBounds, step_s: float) -> float:
    """The smallest rms distance (rad) of knots from `goals` (n,); infinite when no motion is within the limits."""
    n, unit = len(goals), bounds.deviation
    acceleration, velocity = bounds.acceleration * step_s**2 / unit, bounds.velocity * step_s / unit
    x0, w0 = 0.0, start.dq * step_s / unit
    low, high = (bounds.low - start.q) / unit, (bounds.high - start.q) / unit
    size = 3 * n + 1  # x_1..x_n, w_1..w_n, a_0..a_n
    rows, least, most = [], [], []

    def of(kind: str, knot: int) -> tuple[Rows, float]:
        row = np.zeros(size)
        if kind == "a":
            row[2 * n + knot] = 1.0
            return row, 0.0
        if knot == 0:
            return row, x0 if kind == "x" else w0
        row[(0 if kind == "x" else n) + knot - 1] = 1.0
        return row, 0.0

    def hold(terms: list[tuple[float, tuple[Rows, float]]], at_least: float, at_most: float) -> None:
        known = sum(factor * value for factor, (_, value) in terms)
        rows.append(sum(factor * row for factor, (row, _) in terms))
        least.append(at_least - known)
        most.append(at_most - known)

    for k in range(n):
        x, w, a, b = of("x", k), of("w", k), of("a", k), of("a", k + 1)
        hold([(1, of("x", k + 1)), (-1, x), (-1, w), (-1 / 3, a), (-1 / 6, b)], 0.0, 0.0)
        hold([(1, of("w", k + 1)), (-1, w), (-1 / 2, a), (-1 / 2, b)], 0.0, 0.0)
        hold([(1, a)], -acceleration, acceleration)
        for u in POINTS:
            hold([(1, w), (u - u * u / 2, a), (u * u / 2, b)], -velocity, velocity)
            hold([(1, x), (u, w), (u * u / 2 - u**3 / 6, a), (u**3 / 6, b)], low, high)
        if bounds.jerk * step_s < 2 * bounds.acceleration:
            hold([(1, b), (-1, a)], -bounds.jerk * step_s**3 / unit, bounds.jerk * step_s**3 / unit)
    hold([(1, of("a", n))], 0.0, 0.0)
    first = first_accelerations(start, bounds, step_s)
    hold([(1, of("a", 0))], *(value * step_s**2 / unit for value in first))
    late_s = 0.5 * bounds.acceleration / bounds.jerk + 1.5 * TICK_S
    for speed in np.linspace(0, bounds.velocity, TANGENTS + 1)[1:]:  # a stop after the last knot, by its tangents
        slope_s = speed / bounds.acceleration + late_s
        ahead = 0.5 * speed * speed / bounds.acceleration / unit
        hold([(1, of("x", n)), (slope_s / step_s, of("w", n))], -np.inf, high + ahead)
        hold([(1, of("x", n)), (slope_s / step_s, of("w", n))], low - ahead, np.inf)
    wanted = (goals - start.q) / unit
    weights = sparse.diags(np.r_[np.ones(n), np.zeros(size - n)], format="csc")
    matrix = sparse.csc_matrix(np.array(rows))
    solver = osqp.OSQP()
    solver.setup(
        weights, np.r_[-wanted, np.zeros(size - n)], matrix, np.array(least), np.array(most),
        verbose=False, eps_abs=1e-7, eps_rel=1e-7, max_iter=40_000, polishing=True,
    )  # fmt: skip
    found = solver.solve(raise_error=False)
    x = found.x
    if found.info.status != "solved":  # a splitting method is slow where nothing, or hardly anything, is feasible
        if not feasible(matrix, np.array(least), np.array(most)):
            return math.inf
        equal = 5 * (np.array(least) == np.array(most)).astype(np.intc)
        bounded = (np.nan_to_num(np.array(side), posinf=1e30, neginf=-1e30) for side in (most, least))
        x, _, flag, _ = daqp.solve(
            weights.toarray(), np.r_[-wanted, np.zeros(size - n)], np.array(rows), *bounded, equal
        )
        assert flag == 1, flag
    return unit * math.sqrt(np.square(x[:n] - wanted).mean())


def feasible(matrix: sparse.csc_matrix, least: Rows, most: Rows) -> bool:
    """Whether anything is within `least` <= matrix x <= `most`, by HiGHS."""
    above, below = np.isfinite(most), np.isfinite(least)
    found = optimize.linprog(
        np.zeros(matrix.shape[1]),
        A_ub=sparse.vstack([matrix[above], -matrix[below]]),
        b_ub=np.r_[most[above], -least[below]] + 1e-9,
        bounds=(None, None),
    )
    return found.status == 0


def first_accelerations(start: JointStart, bounds: JointBounds, step_s: float) -> tuple[float, float]:
    """The window of the acceleration at the splice, as `edge/plan/nearest.py` describes it."""
    brake = bounds.acceleration
    jump = (bounds.jerk - min(2 * brake / step_s, bounds.jerk)) * TICK_S + 2e-6 * (6 / step_s**2 + 3 / step_s)

    def peak_reaching(room: float) -> float:
        """The acceleration a that, falling to -brake within a step, adds `room` to the velocity at most."""
        return max(np.roots([step_s, -2 * room, -2 * room * brake]).real.max(), 0.0) if room > 0 else 0.0

    up, down = peak_reaching(bounds.velocity - start.dq), peak_reaching(bounds.velocity + start.dq)
    least, most = min(start.ddq - jump, up), max(start.ddq + jump, -down)
    return max(min(least, brake), -brake), min(max(most, -brake), brake)
