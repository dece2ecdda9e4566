"""The real-time lane: what it could not judge is made again, then listed, and too much of it is a failure.

A test marked `real_time` proves nothing while the machine itself stands still, as virtual machines do. It is made
again when it fails meanwhile, and counts as not judged when it always does. No safety property rests on such a test
alone: docs/notebook/tests.md names its twin on the simulated clock.
"""

from __future__ import annotations

import pytest
from _pytest.runner import runtestprotocol

from tests.machine_watch import MachineWatch

TRIES = 3
MAY_BE_UNJUDGED = 0.25
"""The largest share of the lane that may end without a verdict; more is a failure of the whole session."""


class RealTimeLane:
    """Counts the tests of the lane in this session; under pytest-xdist, in the process that gathers the reports."""

    def __init__(self) -> None:
        self.ran = 0
        self.unjudged: dict[str, str] = {}
        """Why, by the test's name."""

    @property
    def fails(self) -> bool:
        return len(self.unjudged) > MAY_BE_UNJUDGED * self.ran

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
        if item.get_closest_marker("real_time") is None:
            return None
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for _ in range(TRIES):
            with MachineWatch() as watch:
                reports = runtestprotocol(item, log=False, nextitem=nextitem)
            failed = [report for report in reports if report.failed]
            if not failed or not watch.stood_still:
                break
        else:
            why = f"this machine stood still for {watch.longest_ms:.0f} ms, {watch.share:.0%} of the time, and before"
            for report in failed:
                report.outcome, report.longrepr = "skipped", (*item.location[:2], f"Skipped: {why}")
                report.user_properties.append(("not judged", why))
        for report in reports:
            report.user_properties.append(("real_time", report.when))
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        properties = dict(report.user_properties)
        self.ran += properties.get("real_time") == "setup"
        if "not judged" in properties:
            self.unjudged[report.nodeid] = str(properties["not judged"])

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if self.fails and exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.ran == 0:
            return
        verdict = f", which is too many (more than {MAY_BE_UNJUDGED:.0%}); run it on a quieter machine"
        terminalreporter.section("real time")
        for name, why in self.unjudged.items():
            terminalreporter.line(f"not judged: {name}: {why}")
        terminalreporter.line(
            f"{len(self.unjudged)} of {self.ran} tests could not be judged{verdict if self.fails else ''}"
        )
