"""Jobs run in the order of their needs; what fails holds up only what needs it; time that is up ends the rest."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from lab.prior.jobs import Job, plan
from lab.prior.scale import QUICK
from lab.prior.training import Place
from lab.prior.variants import VARIANTS
from lab.prior.workers import run_all


@dataclass(frozen=True)
class Touch:
    """Leaves a file, in a process that imports this module."""

    path: Path
    fails: bool = False
    takes_s: float = 0.0

    def __call__(self) -> None:
        if self.fails:
            raise ValueError("as told")
        time.sleep(self.takes_s)
        self.path.touch()


def touch(folder: Path, name: str, *needs: str, fails: bool = False, takes_s: float = 0.0) -> Job:
    return Job(name, folder / name, needs, Touch(folder / name, fails, takes_s))


def test_needs_come_first_and_a_failure_stops_only_what_needs_it(tmp_path: Path) -> None:
    jobs = [
        touch(tmp_path, "after", "first"),
        touch(tmp_path, "never", "broken"),
        touch(tmp_path, "broken", fails=True),
        touch(tmp_path, "first"),
    ]
    order: list[str] = []
    assert run_all(jobs, 1, None, lambda job: order.append(job.name)) == ["broken"]
    assert order == ["first", "after"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["after", "first"]


def test_what_is_done_is_not_done_again_and_time_ends_the_rest(tmp_path: Path) -> None:
    jobs = [touch(tmp_path, "there", fails=True), touch(tmp_path, "long", takes_s=600.0)]
    (tmp_path / "there").touch()
    began_s = time.monotonic()
    assert run_all(jobs, 2, 0.5, lambda job: None) == []
    assert time.monotonic() - began_s < 60
    assert not (tmp_path / "long").exists()


def test_the_plan_has_every_run_and_each_prior_once(tmp_path: Path) -> None:
    jobs = plan(Place(tmp_path, QUICK, "cpu"), VARIANTS, 3)
    names = [job.name for job in jobs]
    assert len(set(names)) == len(names) == 4 + 1 + 4 * 3 + len(VARIANTS) * 3
    for job in jobs:
        assert set(job.needs) <= set(names)
    assert names.index("run none 0") < names.index("run prior 0") < names.index("run decay-early 2")
    needs = {job.name: job.needs for job in jobs}
    assert "stage 1 much 1" in needs["run decay-zero 1"] and "stage 1 actions 2" in needs["run actions 2"]
    assert not any("stage 1" in need for need in needs["run none 0"])
