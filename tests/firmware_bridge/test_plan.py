"""The plan of the core, call by call: every check exactly at its bound, and no byte written that is not its own."""

from __future__ import annotations

import ctypes
import math
import struct
import zlib
from dataclasses import dataclass
from itertools import chain, product

import pytest

from firmware_bridge.codes import MAX_JOINTS, MAX_KNOTS, Refusal
from tests.firmware_core import POISON, Chunk, Commit, Knot, Limits, Plan, PlanPoint, Row, Verdict, core, fresh

MICRO = 1e-6
NOBODY = 255
MIN_LEAD_US, MAX_START_US = 20_000, 10_000_000
MIN_SPACING_US, MAX_SPACING_US = 2_000, 1_000_000
FASTEST_WIRE = 2_000_000_000
"""A velocity that the device works out itself ends here, in urad/s: int32 holds a little more."""
NOW_US = 5_000_000_000_000
Rows = list[list[int]]
Answer = tuple[int, int, int]
ACCEPTED: Answer = (0, NOBODY, NOBODY)


def limits_of(
    joints: int, position: tuple[float, float] = (-1e6, 1e6), velocity: float = 1e9, acceleration: float = 1e12
) -> Limits:
    """The same for every joint, and nothing that can be met for the joints that the arm does not have."""

    def row(value: float) -> ctypes.Array[ctypes.c_double]:
        return Row(*([value] * joints), *([math.nan] * (MAX_JOINTS - joints)))

    return Limits(row(position[0]), row(position[1]), row(velocity), row(acceleration), row(math.nan))


@dataclass
class Bench:
    """One plan; what belongs to joints that the arm does not have is poisoned."""

    joints: int = 7

    def __post_init__(self) -> None:
        self.library, self.plan = core(), fresh(Plan)
        self.library.ve_plan_init(ctypes.byref(self.plan), self.joints)
        self.rest = [0.0] * self.joints

    def still(self, knots: int = 2, q_urad: int = 0) -> Rows:
        return [[q_urad] * self.joints for _ in range(knots)]

    def stage(self, chunk: int, q: Rows, dq: Rows | None = None, first: int = 0) -> Answer:
        rows = list(chain(*zip(q, dq))) if dq is not None else q
        payload = b"".join(struct.pack(f"<{self.joints}i", *row) for row in rows)
        return answer(self.library.ve_plan_stage(self.plan_at(), chunk, first, len(q), payload, len(payload)))

    def plan_at(self) -> int:
        return ctypes.addressof(self.plan)

    def commit(
        self,
        chunk: int,
        q: Rows,
        dq: Rows | None = None,
        start_us: int = NOW_US + 100_000,
        spacing_us: int = 100_000,
        limits: Limits | None = None,
        crc: int = 0,
        now_us: int = NOW_US,
    ) -> Answer:
        """Commits what is staged; `crc` is the damage done to the right one."""
        rows = list(chain(*zip(q, dq))) if dq is not None else q
        right = zlib.crc32(b"".join(struct.pack(f"<{self.joints}i", *row) for row in rows))
        commit = Commit(chunk, len(q), dq is not None, start_us, spacing_us, right ^ crc)
        rest = Row(*self.rest, *([math.nan] * (MAX_JOINTS - self.joints)))
        limits = limits or limits_of(self.joints)
        return answer(
            self.library.ve_plan_commit(
                self.plan_at(), ctypes.byref(commit), ctypes.byref(limits), ctypes.byref(rest), now_us
            )
        )

    def put(self, chunk: int, q: Rows, dq: Rows | None = None, **commit: object) -> Answer:
        """Stages in fragments that fit a frame and commits."""
        for first in range(0, len(q), 5):
            assert self.stage(chunk, q[first : first + 5], dq and dq[first : first + 5], first) == ACCEPTED
        return self.commit(chunk, q, dq, **commit)  # type: ignore[arg-type]

    def at(self, time_us: int) -> PlanPoint | None:
        point = fresh(PlanPoint)
        return point if self.library.ve_plan_at(self.plan_at(), time_us, ctypes.byref(point)) else None


def answer(verdict: Verdict) -> Answer:
    return (verdict.refusal, verdict.joint, verdict.knot)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def one_joint(joint: int, *values: int, others: int = 0, joints: int = 7) -> Rows:
    """Rows in which only one joint has these values."""
    return [[value if index == joint else others for index in range(joints)] for value in values]


def poison_slots(plan: Plan) -> None:
    for slot in plan.slot:
        ctypes.memset(ctypes.byref(slot), POISON, ctypes.sizeof(Chunk))


def test_a_new_plan_is_all_zero_and_nothing_beyond_it_is_touched() -> None:
    size = ctypes.sizeof(Plan)
    memory = (ctypes.c_uint8 * (size + 64))(*([POISON] * (size + 64)))
    core().ve_plan_init(memory, 6)
    assert Plan.from_buffer(memory).joints == 6
    assert sum(memory[:size]) == 6 and set(memory[size:]) == {POISON}


@pytest.mark.parametrize(("joints", "with_dq"), list(product([1, 7, 8], [False, True])))
def test_staging_writes_its_own_knots_and_joints_and_nothing_else(joints: int, with_dq: bool) -> None:
    bench = Bench(joints)
    poison_slots(bench.plan)
    expected = Plan.from_buffer_copy(bench.plan)
    q = [[10 * knot + joint for joint in range(joints)] for knot in (3, 4)]
    dq = [[-value for value in row] for row in q] if with_dq else None
    assert bench.stage(9, q, dq, first=3) == ACCEPTED
    slot = expected.slot[expected.staging]
    slot.id, expected.staged, expected.staged_with_dq = 9, 0b11000, with_dq
    for index, row in enumerate(q):
        slot.knot[3 + index].q[:joints] = row
        if dq is not None:
            slot.knot[3 + index].dq[:joints] = dq[index]
    assert bytes(bench.plan) == bytes(expected)


@pytest.mark.parametrize(("size", "change"), [(7, 0), (14, 0), (7, 1), (7, -1), (14, 1), (14, -1)])
def test_a_fragment_has_the_size_that_its_count_says(bench: Bench, size: int, change: int) -> None:
    payload = bytes(4 * size + change)
    verdict = answer(bench.library.ve_plan_stage(bench.plan_at(), 1, 4, 1, payload, len(payload)))
    assert verdict == (ACCEPTED if change == 0 else (Refusal.BAD_LENGTH, NOBODY, 4))


@pytest.mark.parametrize(("first", "count", "fits"), [(49, 1, True), (48, 2, True), (49, 2, False), (50, 1, False)])
def test_a_fragment_ends_with_the_last_knot_there_is(bench: Bench, first: int, count: int, fits: bool) -> None:
    expected = ACCEPTED if fits else (Refusal.BAD_LENGTH, NOBODY, first)
    assert bench.stage(1, bench.still(count), first=first) == expected


def test_a_fragment_of_another_chunk_or_kind_starts_afresh(bench: Bench) -> None:
    bench.stage(1, bench.still(3))
    bench.stage(1, bench.still(1), first=3)
    assert bench.plan.staged == 0b1111
    bench.stage(2, bench.still(1), first=1)
    assert bench.plan.staged == 0b10
    bench.stage(2, bench.still(1), bench.still(1), first=2)
    assert bench.plan.staged == 0b100


@pytest.mark.parametrize("joints", [7, 8])
def test_velocities_that_were_not_sent_are_central_differences(joints: int) -> None:
    bench = Bench(joints)
    poison_slots(bench.plan)
    q = [[0] * joints, [1000 + joint for joint in range(joints)], [-7000] * joints, [-7001] * joints]
    assert bench.put(5, q, spacing_us=50_000, start_us=NOW_US + MIN_LEAD_US) == ACCEPTED
    knots, h = bench.plan.slot[0].knot, MICRO * 50_000
    for joint in range(joints):
        column = [row[joint] for row in q]
        wanted = [
            0,
            int((column[2] - column[0]) / (2 * h)),
            int((column[3] - column[1]) / (2 * h)),
            int((column[3] - column[2]) / h),
        ]
        assert [knots[knot].dq[joint] for knot in range(4)] == wanted
    poison = struct.unpack("<i", bytes([POISON] * 4))[0]
    if joints == 7:
        assert {(knots[knot].q[7], knots[knot].dq[7]) for knot in range(4)} == {(poison, poison)}
    assert bytes(knots[4]) == bytes([POISON]) * ctypes.sizeof(Knot)


@pytest.mark.parametrize(
    ("rise", "dq"), [(4_000_002, FASTEST_WIRE), (9_000_000, FASTEST_WIRE), (3_999_998, 1_999_999_000)]
)
@pytest.mark.parametrize("sign", [1, -1])
def test_a_velocity_beyond_the_wire_ends_at_its_edge(bench: Bench, rise: int, dq: int, sign: int) -> None:
    assert bench.put(3, one_joint(2, 0, sign * rise), spacing_us=MIN_SPACING_US) == ACCEPTED
    assert bench.plan.slot[0].knot[1].dq[2] == pytest.approx(sign * dq, rel=0, abs=1)


@pytest.mark.parametrize("joints", [1, 7, 8])
def test_the_curve_is_the_cubic_through_its_knots(joints: int) -> None:
    bench = Bench(joints)
    q, dq = one_joint(joints - 1, 0, 100_000, joints=joints), one_joint(joints - 1, 0, 40_000, joints=joints)
    start, h = NOW_US + 100_000, 0.5
    assert bench.put(2, q, dq, spacing_us=500_000) == ACCEPTED
    assert bench.at(start - 1) is None
    for elapsed_us in (0, 1, 125_000, 499_999):
        point = bench.at(start + elapsed_us)
        assert point is not None and not point.ended
        u = elapsed_us / 500_000
        blend, slope = 3 * u**2 - 2 * u**3, (6 * u - 6 * u**2) / h
        there = 0.1 * blend + h * 0.04 * (u**3 - u**2)
        speed = 0.1 * slope + 0.04 * (3 * u**2 - 2 * u)
        assert (point.q[joints - 1], point.dq[joints - 1]) == pytest.approx((there, speed), abs=1e-12)
    for after_us in (500_000, 500_001, 10_000_000):
        point = bench.at(start + after_us)
        assert point is not None and point.ended
        assert (point.q[joints - 1], point.dq[joints - 1]) == (MICRO * 100_000, MICRO * 40_000)
        untouched = bytes(fresh(PlanPoint))[8 * joints : 64]
        assert bytes(point)[8 * joints : 64] == bytes(point)[64 + 8 * joints : 128] == untouched


def test_motion_that_is_left_counts_down_to_nothing(bench: Bench) -> None:
    left = bench.library.ve_plan_buffered_us
    assert left(bench.plan_at(), 0) == 0
    bench.put(1, bench.still(3))
    end = NOW_US + 100_000 + 2 * 100_000
    assert [left(bench.plan_at(), end + after) for after in (-2, -1, 0, 1, 2)] == [2, 1, 0, 0, 0]


def test_a_cleared_plan_has_forgotten_what_was_staged_and_committed(bench: Bench) -> None:
    bench.put(1, bench.still())
    bench.stage(2, bench.still(2))
    bench.library.ve_plan_clear(bench.plan_at())
    assert (bench.plan.chained, bench.plan.staged, bench.library.ve_plan_free_slots(bench.plan_at())) == (0, 0, 3)
    bench.stage(2, bench.still(1), first=1)
    assert bench.commit(2, bench.still()) == (Refusal.KNOTS_MISSING, NOBODY, 0)


def test_a_chunk_whose_checksum_is_wrong_must_be_sent_again(bench: Bench) -> None:
    assert bench.put(1, bench.still(), crc=1) == (Refusal.CHUNK_CRC, NOBODY, NOBODY)
    assert bench.plan.chained == 0
    assert bench.commit(1, bench.still()) == (Refusal.KNOTS_MISSING, NOBODY, 0)
    assert bench.put(1, bench.still()) == ACCEPTED


def test_what_was_committed_counts_for_no_other_chunk(bench: Bench) -> None:
    assert bench.put(5, bench.still()) == ACCEPTED
    assert bench.plan.slot[bench.plan.staging].id == 0
    assert bench.commit(0, bench.still(), start_us=NOW_US + 500_000) == (Refusal.KNOTS_MISSING, NOBODY, 0)


def test_a_knot_that_is_missing_is_named(bench: Bench) -> None:
    for missing in range(4):
        for knot in range(4):
            if knot != missing:
                bench.stage(10 + missing, bench.still(1), first=knot)
        assert bench.commit(10 + missing, bench.still(4)) == (Refusal.KNOTS_MISSING, NOBODY, missing)
    bench.stage(20, bench.still(2))
    assert bench.commit(21, bench.still(2)) == (Refusal.KNOTS_MISSING, NOBODY, 0)


@pytest.mark.parametrize(("knots", "fits"), [(1, False), (2, True), (MAX_KNOTS, True), (MAX_KNOTS + 1, False)])
def test_the_number_of_knots_is_bounded(bench: Bench, knots: int, fits: bool) -> None:
    q = bench.still(knots)
    for first in range(0, min(knots, MAX_KNOTS), 5):
        bench.stage(1, q[first : min(first + 5, MAX_KNOTS)], first=first)
    assert bench.commit(1, q) == (ACCEPTED if fits else (Refusal.KNOT_COUNT, NOBODY, NOBODY))


def test_more_knots_or_another_kind_than_were_staged_is_no_match(bench: Bench) -> None:
    bench.stage(1, bench.still(3))
    assert bench.commit(1, bench.still(2)) == (Refusal.KNOT_COUNT, NOBODY, NOBODY)
    assert bench.commit(1, bench.still(3), bench.still(3)) == (Refusal.KNOT_COUNT, NOBODY, NOBODY)


@pytest.mark.parametrize(
    ("spacing_us", "fits"),
    [
        (MIN_SPACING_US - 1, False),
        (MIN_SPACING_US, True),
        (MAX_SPACING_US, True),
        (MAX_SPACING_US + 1, False),
    ],
)
def test_the_spacing_of_knots_is_bounded(bench: Bench, spacing_us: int, fits: bool) -> None:
    expected = ACCEPTED if fits else (Refusal.KNOT_SPACING, NOBODY, NOBODY)
    assert bench.put(1, bench.still(), spacing_us=spacing_us) == expected


@pytest.mark.parametrize(
    ("lead_us", "refusal"),
    [
        (MIN_LEAD_US - 1, Refusal.LEAD_TOO_SHORT),
        (MIN_LEAD_US, None),
        (MAX_START_US, None),
        (MAX_START_US + 1, Refusal.START_TOO_FAR),
    ],
)
def test_the_start_is_bounded_on_both_sides(bench: Bench, lead_us: int, refusal: Refusal | None) -> None:
    expected = ACCEPTED if refusal is None else (refusal, NOBODY, NOBODY)
    assert bench.put(1, bench.still(), start_us=NOW_US + lead_us) == expected


@pytest.mark.parametrize(("joint", "knot"), list(product([0, 6], [0, 1, 2])))
@pytest.mark.parametrize("side", [1, -1])
def test_a_knot_may_stand_on_a_position_limit_and_not_beyond(bench: Bench, joint: int, knot: int, side: int) -> None:
    edge = MICRO * 1_234_567
    limits = limits_of(7, position=(-edge, edge))
    values = [1_234_567 * side if index == knot else 1_234_000 * side for index in range(3)]
    q, still = one_joint(joint, *values), one_joint(joint, 0, 0, 0)
    bench.rest[joint] = MICRO * values[0]
    assert bench.put(1, q, still, limits=limits) == ACCEPTED
    q[knot][joint] += side
    bench.rest[joint] = MICRO * q[0][joint]
    assert bench.put(2, q, still, limits=limits) == (Refusal.POSITION, joint, knot)


def segment(
    bench: Bench, q: tuple[int, int], dq: tuple[int, int], spacing_us: int, limits: Limits, joint: int = 3
) -> Answer:
    """Commits one segment on one joint, joined to the plan without a jump."""
    bench.library.ve_plan_clear(bench.plan_at())
    bench.rest[joint] = MICRO * q[0]
    verdict = bench.put(
        1, one_joint(joint, *q), one_joint(joint, *dq), spacing_us=spacing_us, limits=limits, start_us=NOW_US + 20_000
    )
    started = verdict[0] == Refusal.SPLICE_VELOCITY  # all checks of the chunk itself have passed
    return ACCEPTED if started else verdict


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("q", "dq", "spacing_us", "edge_urad", "inside"),
    [
        # The parabola's vertex lies at 0.2 of a segment before it, and after it.
        ((960_000, 0), (-400_000, -2_000_000), 800_000, 961_000, True),
        ((0, 960_000), (2_000_000, 400_000), 800_000, 961_000, True),
        # Out and back: a vertex in the middle, at 0.25 rad.
        ((0, 0), (1_000_000, -1_000_000), 1_000_000, 250_001, True),
        ((0, 0), (1_000_000, -1_000_000), 1_000_000, 249_999, False),
        # Forth and back: turning points at +-0.0962 rad, one by either form of the root.
        ((0, 0), (1_000_000, 1_000_000), 1_000_000, 96_226, True),
        ((0, 0), (1_000_000, 1_000_000), 1_000_000, 96_224, False),
        # A knot at rest exactly on the limit, where the cubic at u = 1 reads an ulp more.
        ((-495_112, -1_945_692), (-1_110_256, 0), 2_000, 1_945_692, True),
        ((-250_712, 1_725_642), (1_282_883, 0), 100_000, 1_725_642, True),
        # The same where it comes to rest without acceleration: both turning points fall together, an ulp before u = 1.
        ((-941_219, -441_356), (1_999_452, 0), 750_000, None, True),
    ],
)
def test_the_curve_between_knots_stays_inside(
    bench: Bench,
    sign: int,
    q: tuple[int, int],
    dq: tuple[int, int],
    spacing_us: int,
    edge_urad: int | None,
    inside: bool,
) -> None:
    edge = (MICRO * edge_urad) if edge_urad is not None else None
    q, dq = (sign * q[0], sign * q[1]), (sign * dq[0], sign * dq[1])
    low, high = (-edge, edge) if edge is not None else sorted((MICRO * q[0], MICRO * q[1]))
    expected = ACCEPTED if inside else (Refusal.POSITION, 3, 1)
    limits = limits_of(7, position=(low, high))
    for joint in set(range(7)) - {3}:  # these stand at zero
        limits.position_min[joint], limits.position_max[joint] = -1.0, 1.0
    assert segment(bench, q, dq, spacing_us, limits) == expected


def test_each_of_two_turning_points_is_looked_at(bench: Bench) -> None:
    """Forth and back over +-0.0962 rad: only the later turning point is outside, then only the earlier one."""
    for sign, joint in product((1, -1), (0, 6)):
        dq = (sign * 1_000_000, sign * 1_000_000)
        near, far = (-0.5, 0.0962) if sign > 0 else (-0.0962, 0.5), (-0.0962, 0.5) if sign > 0 else (-0.5, 0.0962)
        for position in (near, far):
            limits = limits_of(7, position=position)
            assert segment(bench, (0, 0), dq, 1_000_000, limits, joint) == (Refusal.POSITION, joint, 1)


def ends_of(q: tuple[int, int], dq: tuple[int, int], spacing_us: int) -> tuple[float, float, float, float, float]:
    """Velocity and acceleration at both ends of a segment, and its duration; the arithmetic of plan.c."""
    h = MICRO * spacing_us
    rise = MICRO * (float(q[1]) - float(q[0])) / h
    v0, v1 = MICRO * dq[0], MICRO * dq[1]
    return v0, v1, ((6.0 * rise) - (4.0 * v0) - (2.0 * v1)) / h, ((2.0 * v0) + (4.0 * v1) - (6.0 * rise)) / h, h


SEGMENTS = [
    pytest.param((0, 0), (0, 0), (700_000, 0), id="the start"),
    pytest.param((0, 0), (0, 0), (0, 700_000), id="the end"),
    pytest.param((0, 100_000), (0, 0), (0, 0), id="the middle"),
    pytest.param((0, 60_000), (0, 0), (300_000, 200_000), id="in between"),
]


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("q", "_", "dq"), SEGMENTS)
def test_velocity_and_acceleration_may_be_the_limit_and_not_a_hair_more(
    bench: Bench, sign: int, q: tuple[int, int], _: tuple[int, int], dq: tuple[int, int]
) -> None:
    q, dq = (sign * q[0], sign * q[1]), (sign * dq[0], sign * dq[1])
    v0, v1, a0, a1, h = ends_of(q, dq, 200_000)
    fastest = max(abs(v0), abs(v1))
    if a0 * a1 < 0.0:
        fastest = max(fastest, abs(v0 + (0.5 * a0 * h * a0 / (a0 - a1))))
    hardest = max(abs(a0), abs(a1))
    below = math.nextafter
    assert segment(bench, q, dq, 200_000, limits_of(7, velocity=fastest, acceleration=hardest)) == ACCEPTED
    slow = limits_of(7, velocity=below(fastest, 0.0), acceleration=hardest)
    assert segment(bench, q, dq, 200_000, slow) == (Refusal.VELOCITY, 3, 1)
    soft = limits_of(7, velocity=fastest, acceleration=below(hardest, 0.0))
    assert segment(bench, q, dq, 200_000, soft) == (Refusal.ACCELERATION, 3, 1)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_slow_swing_is_fastest_between_its_knots(bench: Bench, sign: int) -> None:
    """0.5 rad/s2 up and down again in a second: 0.125 rad/s more in the middle than at the ends."""
    q, dq = (0, sign * 183_333), (sign * 100_000, sign * 100_000)
    assert segment(bench, q, dq, 1_000_000, limits_of(7, velocity=0.2251)) == ACCEPTED
    assert segment(bench, q, dq, 1_000_000, limits_of(7, velocity=0.2249)) == (Refusal.VELOCITY, 3, 1)


def test_a_segment_that_ends_without_acceleration_is_fastest_at_a_knot(bench: Bench) -> None:
    """The vertex falls on the knot; worked out from the parabola it would read a few ulps more."""
    q, dq = (0, -163_000), (650_000, -1_303_000)
    v0, v1, a0, a1, h = ends_of(q, dq, 250_000)
    assert a1 == 0.0 and abs(v0 + (0.5 * a0 * h * a0 / (a0 - a1))) > max(abs(v0), abs(v1))
    assert segment(bench, q, dq, 250_000, limits_of(7, velocity=max(abs(v0), abs(v1)))) == ACCEPTED


@pytest.mark.parametrize("joint", [0, 6])
@pytest.mark.parametrize("side", [1, -1])
def test_a_chunk_joins_where_the_arm_stands(bench: Bench, joint: int, side: int) -> None:
    """A millirad at most; in radians, not wire units, so that the bound itself can be met exactly."""
    bench.rest[joint] = side * 1e-3
    assert bench.put(1, bench.still()) == ACCEPTED
    bench = Bench()
    bench.rest[joint] = side * math.nextafter(1e-3, 1.0)
    assert bench.put(1, bench.still()) == (Refusal.SPLICE_POSITION, joint, 0)


def exactly_apart(velocity: float) -> int:
    """A velocity in urad/s, the double of which lies exactly `velocity` above that of 50,000 urad/s less."""
    step = round(velocity / MICRO)
    return next(n for n in range(step, 3_000_000) if (MICRO * n) - (MICRO * (n - step)) == velocity)


@pytest.mark.parametrize("joint", [0, 6])
@pytest.mark.parametrize("side", [1, -1])
def test_a_chunk_joins_at_the_speed_of_the_one_before(joint: int, side: int) -> None:
    """0.05 rad/s at most, at the knot where the chunk before ends."""
    fast = exactly_apart(0.05)
    for before, after, fits in ((fast - 50_000, fast, True), (fast, fast - 50_000, True), (fast, fast - 50_001, False)):
        bench = Bench()
        dq = one_joint(joint, 0, side * before)
        assert bench.put(1, bench.still(), dq, start_us=NOW_US + 100_000) == ACCEPTED
        verdict = bench.put(2, bench.still(), one_joint(joint, side * after, 0), start_us=NOW_US + 200_000)
        assert verdict == (ACCEPTED if fits else (Refusal.SPLICE_VELOCITY, joint, 0))


@pytest.mark.parametrize(("joints", "joint"), [(7, 0), (7, 6), (8, 7), (8, None), (7, None), (1, 0)])
def test_a_plan_must_not_run_dry_in_motion(joints: int, joint: int | None) -> None:
    bench = Bench(joints)
    poison_slots(bench.plan)  # as if joints that the arm does not have were moving
    dq = [[0] * joints, [1 if index == joint else 0 for index in range(joints)]]
    assert bench.put(1, bench.still(), dq, start_us=NOW_US + 100_000) == ACCEPTED
    still = bench.still()
    assert bench.put(2, still, still, start_us=NOW_US + 200_000) == ACCEPTED
    bench.library.ve_plan_clear(bench.plan_at())
    assert bench.put(3, still, dq, start_us=NOW_US + 100_000) == ACCEPTED
    late = bench.put(4, still, still, start_us=NOW_US + 200_001)
    assert late == (ACCEPTED if joint is None else (Refusal.GAP, NOBODY, NOBODY))


def test_three_chunks_wait_and_a_fourth_is_refused_until_one_has_passed(bench: Bench) -> None:
    """Over and over, so that every slot is staging, running and waiting in turn, and none is overwritten."""
    library, at = bench.library, bench.plan_at()
    lengths, start, now = 100_000, NOW_US + 100_000, NOW_US
    chunks: list[tuple[int, int]] = []
    for number in range(1, 60):
        verdict = bench.put(number, bench.still(2, number), bench.still(), start_us=start, now_us=now)
        if len(chunks) == 3:
            assert verdict == (Refusal.BUFFER_FULL, NOBODY, NOBODY)
            dropped = 1 + number % 3
            now = chunks[dropped][1] if dropped < 3 else chunks[2][1]
            library.ve_plan_retire(at, now)
            chunks = chunks[min(dropped, 2) :]
            if number % 5 == 0:
                library.ve_plan_finish(at)
                chunks = chunks[1:]
        else:
            assert verdict == ACCEPTED
            chunks.append((number, start))
            start += lengths
        assert library.ve_plan_free_slots(at) == 3 - len(chunks)
        assert [library.ve_plan_chunk_at(at, begin) for _, begin in chunks] == [chunk for chunk, _ in chunks]
        for chunk, begin in chunks:
            point = bench.at(begin)
            assert point is not None and point.q[3] == MICRO * chunk
        assert bench.plan.staging not in bench.plan.chain[: bench.plan.chained]


def test_a_chunk_replaces_those_that_begin_no_sooner(bench: Bench) -> None:
    for number in (1, 2, 3):
        assert bench.put(number, bench.still(), start_us=NOW_US + 100_000 * number) == ACCEPTED
    assert bench.put(4, bench.still(), start_us=NOW_US + 200_000) == ACCEPTED
    at = [bench.library.ve_plan_chunk_at(bench.plan_at(), NOW_US + 100_000 * n) for n in range(5)]
    assert at == [0, 1, 4, 4, 4]
    assert bench.put(5, bench.still(), start_us=NOW_US + 199_999) == ACCEPTED
    assert bench.put(6, bench.still(), start_us=NOW_US + 50_000) == ACCEPTED
    assert bench.library.ve_plan_free_slots(bench.plan_at()) == 2
