"""Rights for the control loop: asked for, reported as granted or not, and given back."""

from __future__ import annotations

import gc
import os
import sys

import pytest

from edge.realtime.rights import CpuPlan, parse_cpu_list, plan_cpus, realtime


@pytest.mark.parametrize(
    ("available", "isolated", "plan"),
    [
        ({0}, set(), CpuPlan((), ())),
        ({0, 1}, set(), CpuPlan((1,), (0,))),
        ({0, 1, 2, 3}, {2}, CpuPlan((2,), (0, 1, 3))),
        ({0, 1}, {7}, CpuPlan((1,), (0,))),
    ],
)
def test_control_gets_a_processor_of_its_own(available: set[int], isolated: set[int], plan: CpuPlan) -> None:
    assert plan_cpus(available, isolated) == plan


def test_the_kernels_list_of_processors() -> None:
    assert parse_cpu_list("0-2,5,7-8\n") == {0, 1, 2, 5, 7, 8}
    assert parse_cpu_list("\n") == set()


def test_everything_is_given_back() -> None:
    def state() -> tuple[object, ...]:
        return os.sched_getscheduler(0), os.sched_getaffinity(0), gc.isenabled(), sys.getswitchinterval()

    before = state()
    available = sorted(os.sched_getaffinity(0))
    with realtime(CpuPlan((available[-1],), tuple(available[:-1]))) as grants:
        granted = {grant.what: grant.granted for grant in grants}
        assert granted["own processor"] and os.sched_getaffinity(0) == {available[-1]}
        assert not gc.isenabled()
        if granted["SCHED_FIFO"]:
            assert os.sched_getscheduler(0) & os.SCHED_FIFO
    assert state() == before


def test_a_refusal_says_what_it_costs_and_what_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    with realtime(CpuPlan((), ())) as grants:
        refused = {grant.what: grant.detail for grant in grants if not grant.granted}
    assert "limits.conf" in refused["SCHED_FIFO"] and "milliseconds" in refused["SCHED_FIFO"]
    assert "share the only one" in refused["own processor"]
