"""Records are described once: every body of the recorded logs is read and packed again to the same bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge.inference.layout import Layout
from edge.inference.records import Outcome, PlannerStatus, PlanRequest, PlanResult
from edge.log.mcap_log import LogReader
from edge.log.records import RECORDS, Kind, Record, Sample, unpack
from firmware_bridge.layout import items_of

RECORDED = Path(__file__).parents[1] / "run" / "recorded"
SIZES = {"history": 4, "horizon": 5, "joints": 3, "measured": 2, "planned": 6, "engines": 16}


@pytest.fixture(scope="module")
def recorded() -> list[Record]:
    return [record for name in ("operator", "stop") for record in LogReader(RECORDED / f"{name}.mcap").records()]


def test_every_described_body_of_a_log_is_packed_to_the_same_bytes(recorded: list[Record]) -> None:
    seen = set()
    for record in recorded:
        if record.kind in RECORDS:
            assert unpack(record.kind, record.body).pack() == record.body, record.kind.name
            seen.add(record.kind)
    assert seen == set(RECORDS) - {Kind.LINE_LOST}


def request(rows: int) -> PlanRequest:
    values = np.arange(12.0).reshape(4, 3)
    return PlanRequest(
        7, 11, 13, values, values + 1, np.array([0, 1, 1, 1], np.bool_), values[:rows] / 3, values[:2], values[:rows]
    )


@pytest.mark.parametrize("rows", [0, 1, 4])
def test_a_request_comes_out_of_shared_memory_and_out_of_a_log_as_it_went_in(rows: int) -> None:
    layout, before = Layout(PlanRequest, **SIZES), request(rows)
    for after in (layout.unpack(layout.pack(before)), PlanRequest.unpack(before.pack())):
        assert (after.id, after.step, after.sent_ns) == (7, 11, 13)
        for name in ("states_rad", "actions_rad", "mask", "prefix_rad", "measured_rad", "commanded_rad"):
            assert getattr(after, name).shape == getattr(before, name).shape
            assert np.array_equal(getattr(after, name), getattr(before, name))


def test_a_result_keeps_its_outcome_and_as_much_of_its_message_as_fits() -> None:
    layout = Layout(PlanResult, **SIZES)
    nothing = np.full((5, 3), np.nan)
    after = layout.unpack(layout.pack(PlanResult.untimed(3, Outcome.PAUSED, nothing, "é" * 300)))
    assert after.outcome is Outcome.PAUSED and after.message == "é" * 200
    assert np.isnan(after.increments_rad).all() and type(after.id) is int


def test_a_prefix_that_is_longer_than_the_horizon_is_refused() -> None:
    with pytest.raises(ValueError, match="broadcast"):
        Layout(PlanRequest, **{**SIZES, "horizon": 2}).pack(request(4))


def test_a_sample_with_a_row_missing_is_refused() -> None:
    body = Sample.body(1, 2, 3, 3, range(3), range(3))
    assert Sample.unpack(body).measured_urad == (0, 1, 2)
    with pytest.raises(ValueError, match="Sample"):
        Sample.unpack(body[:-4])


@pytest.mark.parametrize("record", [*RECORDS.values(), PlannerStatus])
def test_every_field_is_described(record: type) -> None:
    assert all(item.text for name, item in items_of(record).items() if not name.endswith("_urad"))
