"""What an arm is told to do when nobody said it: what its bundle says, and nothing that was guessed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from edge.bundle import Bundle, BundleError, load_bundle
from edge.cli import run
from tests.foreign_bundle import write_foreign


def saying(bundle: Bundle, task: str) -> Bundle:
    assert bundle.manifest.text is not None
    text = dataclasses.replace(bundle.manifest.text, task=task)
    return dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, text=text))


def test_the_default_task_is_the_bundles(bundle_path: Path) -> None:
    bundle = load_bundle(bundle_path)
    assert bundle.task(None) == "reach the red cube", "what it was exported with"
    lifts, silent = saying(bundle, "pick up the green can"), saying(bundle, "")
    assert (lifts.task(None), lifts.task("wait"), silent.task("wait")) == ("pick up the green can", "wait", "wait")
    with pytest.raises(BundleError, match="give one with --task"):
        silent.task(None)


def test_a_policy_without_text_needs_no_task(tmp_path: Path) -> None:
    assert load_bundle(write_foreign(tmp_path / "bundle")).task(None) == ""


def test_a_run_without_a_task_ends_before_anything_is_opened(
    bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    silent = saying(load_bundle(bundle_path), "")
    monkeypatch.setattr(run, "load_bundle", lambda path, trust: silent)
    report = tmp_path / "run.json"
    assert run.main(["--arm", "franka", "--bundle", str(bundle_path), "--report", str(report)]) == 2
    assert "give one with --task TEXT" in capsys.readouterr().err and not report.exists()
