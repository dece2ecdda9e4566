"""The check of a GPU: where there is none it says so line by line; what it computes is proved on the CPU."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

from bench import cli, gpu_check
from bench.document import Recording
from edge.bundle import load_bundle
from edge.engines import DEFAULT_ENGINE, open_engines
from edge.engines.gpu import present_gpu


@pytest.mark.skipif(present_gpu() is not None, reason="says what is not run without a GPU")
def test_without_a_gpu_everything_is_not_run_and_says_why(
    bundle_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "gpu.json"
    assert cli.main(["gpu", "--bundle", str(bundle_path), "--json", str(file)]) == 0
    found = json.loads(file.read_text())
    engines = len(load_bundle(bundle_path).manifest.engines)
    assert found["gpu"] is None and len(found["rows"]) == len(found["not_run"]) == 2 * engines + 4
    assert {row["state"] for row in found["rows"]} == {"not run"}
    assert all(gpu_check.NO_GPU in one["why"] for one in found["not_run"])
    assert f"0 passed, 0 failed, 0 measured, {len(found['rows'])} not run" in capsys.readouterr().out


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> gpu_check.Checks:
    """Everything but CUDA graphs, with the CPU in the GPU's place."""
    monkeypatch.setattr(gpu_check, "PROVIDER", "cpu")
    monkeypatch.setattr(gpu_check, "ON_GPU", DEFAULT_ENGINE)
    return gpu_check.Checks(Recording("gpu", {}, True), time.monotonic() + 60, None, 1, 2)


def test_what_agrees_passes_and_what_stays_in_the_hosts_memory_fails(
    checks: gpu_check.Checks, bundle_path: Path
) -> None:
    bundle = load_bundle(bundle_path)
    given = gpu_check.given_of(bundle)
    for name in bundle.manifest.engines:
        assert checks.agreement(bundle, name)[0] == gpu_check.PASSED
    assert checks.whole(bundle, given)[0] == gpu_check.PASSED
    state, figures = checks.links(bundle)
    assert state == gpu_check.FAILED and set(figures["places"].values()) == {"cpu"}
    state, figures = checks.times(bundle, given, DEFAULT_ENGINE)
    assert state == gpu_check.MEASURED and figures["ms"]["cpu"]["calls"] == 2


@pytest.mark.parametrize("wrong", [1.01, np.nan])
def test_what_does_not_agree_fails(bundle_path: Path, wrong: float) -> None:
    bundle = load_bundle(bundle_path)
    graph = bundle.manifest.graph
    right = gpu_check.chained(open_engines(bundle, DEFAULT_ENGINE, 1), graph, gpu_check.given_of(bundle))()
    assert gpu_check.compared(right, right)[0] == gpu_check.PASSED
    assert gpu_check.compared(right, right * wrong)[0] == gpu_check.FAILED


def test_after_the_limit_nothing_begins(checks: gpu_check.Checks, bundle_path: Path) -> None:
    checks.deadline_s = 0.0
    checks.of_bundle("late", load_bundle(bundle_path))
    assert {row["state"] for row in checks.rows} == {gpu_check.NOT_RUN}
    assert "the time limit had passed" in checks.rows[0]["said"]
