"""The experiment of the action prior: its statistics, its rules, going on where it was, its report."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bench.cli import main
from lab.prior.claims import best, by_variant, judge, level, paired, steps_below, steps_to, verdict
from lab.prior.jobs import begin, plan
from lab.prior.report import lines
from lab.prior.scale import FULL, QUICK, SCALES, SMALL, Scale
from lab.prior.statistics import Interval, ratio, sample, student, two_levels
from lab.prior.training import Place
from lab.prior.variants import BY_NAME, VARIANTS


def result(variant: str, seed: int, succeeded: int = 20, error: float = 0.2, **changes: Any) -> dict[str, Any]:
    """One run as `lab.prior.jobs` leaves it, its curve falling to `error`; so many scenes are done at 5 and at 10 s."""
    return {
        "variant": asdict(BY_NAME[variant]),
        "seed": seed,
        "scale": FULL.to_plain(),
        "device": "CPU, pretended for this test",
        "initial_loss": 3.0,
        "initial_predict": 1.5,
        "initial_gradient_norm": 20.0,
        "curve": [[200, 4 * error], [400, 2 * error], [800, error]],
        "final_error": error,
        "final_error_rad": error / 10,
        "closed_loop": {"engines": "exported", "episodes": 50, "durations_s": [5.0, 10.0], "done": done(succeeded)},
        **changes,
    }


def done(*succeeded: int) -> list[str]:
    """So many of 50 scenes, the first ones, at 5 s and at 10 s."""
    return ["1" * count + "0" * (50 - count) for count in (succeeded[0], succeeded[-1])]


def document(results: list[dict[str, Any]], seeds: int = 3, scale: Scale = FULL) -> dict[str, Any]:
    about = {"episodes": 12, "steps": 900, "followed": {"red": 10, "green": 11, "blue": 9}}
    data = {"stage1": {"reach": [300, 27000]}, "few": about, "many": about, "held_out": {"episodes": 16, "steps": 1400}}
    return {"quick": False, "scale": scale.to_plain(), "seeds": seeds, "data": data, "results": results}


def claim(results: list[dict[str, Any]], text: str, how: str) -> str:
    judged = judge(by_variant(results))
    return next(one.verdict for one in judged if text in one.claim and how in one.how)


def test_student_agrees_with_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    values = [0.3, 0.22, 0.44]
    low, high = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
    found = student(values)
    assert found is not None and (found.low, found.high) == pytest.approx((low, high), abs=1e-4)
    assert student([0.3]) is None


def test_both_levels_widen_the_interval() -> None:
    """By formula: the variance of the mean is that of the scenes' means over their number, where seeds agree, and that
    of the seeds' means, where scenes do."""
    scenes = np.tile(np.random.default_rng(0).normal(0.2, 0.4, 50), (3, 1))
    found, spread = two_levels(scenes), scenes[0].std() / math.sqrt(50)
    assert (found.low, found.high) == pytest.approx(
        (found.value - 1.96 * spread, found.value + 1.96 * spread), abs=0.15 * spread
    )
    seeds = np.repeat([[0.0], [0.3], [0.6]], 50, axis=1)
    assert two_levels(seeds) == Interval(pytest.approx(0.3), pytest.approx(0.0), pytest.approx(0.6))
    assert two_levels(scenes) == found, "the same dice every time"


def test_a_ratio_is_paired_by_seed() -> None:
    found = ratio([1.0, 2.0, 4.0], [2.0, 4.0, 8.0])
    assert found == Interval(pytest.approx(0.5), pytest.approx(0.5), pytest.approx(0.5))
    wide = ratio([1.0, 2.0, 4.0], [8.0, 4.0, 2.0])
    assert wide is not None and wide.low < 0.02 and wide.high > 10
    assert ratio([1.0], [2.0]) is None, "one pair has no spread"
    assert ratio([1.0, 0.0], [2.0, 1.0]) is None
    assert sample([3.0]).deviation is None


@pytest.mark.parametrize(
    ("low", "high", "more", "wanted"),
    [
        (0.1, 0.3, True, "seen"),
        (-0.1, 0.3, True, "unclear"),
        (-0.3, -0.1, True, "not seen"),
        (-0.3, -0.1, False, "seen"),
        (0.1, 0.3, False, "not seen"),
        (0.0, 0.3, True, "unclear"),
    ],
)
def test_a_verdict_follows_from_the_interval_alone(low: float, high: float, more: bool, wanted: str) -> None:
    assert verdict(Interval((low + high) / 2, low, high), 0.0, more) == wanted
    assert verdict(None, 0.0, more) == "not run"


def test_success_must_differ_at_every_seed() -> None:
    apart = [result("none", seed, 10) for seed in range(3)] + [result("prior", seed, 30) for seed in range(3)]
    assert claim(apart, "the prior helps", "success") == "seen"
    assert claim(apart, "the prior helps", "error") == "unclear", "the errors are the same"
    one_way = [result("none", 0, 10), result("none", 1, 10), result("none", 2, 40)]
    one_way += [result("prior", 0, 50), result("prior", 1, 50), result("prior", 2, 39)]
    assert claim(one_way, "the prior helps", "success") == "unclear", "one seed lost what two had gained"
    few_scenes = [result("none", seed, 0) for seed in range(3)] + [result("prior", seed, 1) for seed in range(3)]
    assert claim(few_scenes, "the prior helps", "success") == "unclear", "all seeds agree, on one scene"
    two = [one for one in apart if one["seed"] < 2]
    assert claim(two, "the prior helps", "success") == "unclear", "two seeds are too few"
    swapped = [result("none", seed, 30) for seed in range(3)] + [result("prior", seed, 10) for seed in range(3)]
    assert claim(swapped, "the prior helps", "success") == "not seen"


def test_success_is_judged_after_every_duration() -> None:
    passes_by = {"engines": "exported", "durations_s": [5.0, 10.0], "done": done(30, 10)}
    some = [result("none", seed, 10) for seed in range(3)]
    some += [result("prior", seed, closed_loop=passes_by) for seed in range(3)]
    assert claim(some, "the prior helps", "at 5 s") == "seen"
    assert claim(some, "the prior helps", "at 10 s") == "unclear"
    text = "\n".join(lines(document(some)))
    assert "60 %: 30, 30, 30 of 50 | 20 %: 10, 10, 10 of 50" in text and "judged at 5 s and 10 s" in text


def test_most_where_scarce_is_not_judged_at_the_floor() -> None:
    def four(none: int, few: int) -> list[dict[str, Any]]:
        counts = {"none": none, "prior": 20, "none-few": few, "prior-few": 40}
        return [result(name, seed, count) for name, count in counts.items() for seed in range(3)]

    assert claim(four(10, 10), "most where data is scarce", "at 10 s") == "seen"
    assert claim(four(0, 0), "most where data is scarce", "at 10 s") == "unclear"
    assert claim(four(10, 10)[:9], "most where data is scarce", "at 10 s") == "not run"


def test_only_seeds_that_both_have_are_compared() -> None:
    some = [result("none", seed) for seed in range(3)] + [result("prior", seed) for seed in (2, 1)]
    ours, theirs = paired(by_variant(some), "prior", "none")
    assert [one["seed"] for one in ours] == [one["seed"] for one in theirs] == [1, 2]
    assert claim(some, "history helps", "success") == "not run"
    assert claim(some[2:4], "the prior helps", "error") == "unclear", "one pair has no interval"


def test_steps_are_counted_to_what_every_run_without_a_prior_reaches() -> None:
    none = [result("none", seed, error=error) for seed, error in enumerate((0.20, 0.21, 0.19))]
    found = by_variant([*none, *(result("prior", seed, error=0.05) for seed in range(3))])
    wanted = level(found, "none")
    assert wanted == 0.21
    assert [steps_to(one, wanted) for one in found["none"]] == [800, 800, 800]
    assert [steps_to(one, wanted) for one in found["prior"]] == [200, 200, 200]
    assert steps_to(result("prior", 0, error=0.3), wanted) is None


def test_half_the_steps_is_a_bound_that_can_be_missed() -> None:
    none = [result("none", seed, error=0.2) for seed in range(3)]
    fast = [result("prior", seed, error=0.05) for seed in range(3)]
    slow = [result("prior", seed, curve=[[600, 0.1], [800, 0.1]]) for seed in range(3)]
    never = [result("prior", seed, error=0.3) for seed in range(3)]
    assert claim([*none, *fast], "half the steps", "none") == "seen"
    assert claim([*none, *slow], "half the steps", "none") == "not seen"
    assert claim([*none, *never], "half the steps", "none") == "not seen"


def test_a_baseline_that_never_gets_there_counts_with_all_its_steps() -> None:
    plateau = [result("none", seed, curve=[[200, 0.48], [400, 0.46], [800, 0.5]]) for seed in range(3)]
    prior = [result("prior", seed, curve=[[200, 0.46], [400, 0.3], [800, 0.2]]) for seed in range(3)]
    found = by_variant([*plateau, *prior])
    assert best(found, "none") == 0.46
    assert [steps_below(one, 0.46) for one in found["none"]] == [None] * 3
    assert [steps_below(one, 0.46) for one in found["prior"]] == [400] * 3, "as good is not better"
    quick = [result("prior", seed, curve=[[200, 0.4]]) for seed in range(3)]
    assert claim([*plateau, *quick], "never has", "over none") == "seen"
    assert claim([*plateau, *prior], "never has", "over none") == "unclear", "half is not less than half"
    late = [result("prior", seed, curve=[[400, 0.47], [800, 0.2]]) for seed in range(3)]
    assert claim([*plateau, *late], "never has", "over none") == "not seen"
    assert claim(quick, "never has", "over none") == "not run"


def test_the_report_says_what_is_missing() -> None:
    text = "\n".join(lines(document([result("none", seed) for seed in range(3)] + [result("prior", 0)])))
    assert "prior (2)" in text and "prior + history (3)" in text and "no prior (" not in text.split("**Not run**")[1]
    whole = [result(variant.name, seed) for variant in VARIANTS for seed in range(3)]
    assert "Not run" not in "\n".join(lines(document(whole)))


@pytest.mark.parametrize("scale", SCALES.values(), ids=lambda scale: scale.name)
def test_the_report_says_at_which_scale_it_was_made(scale: Scale) -> None:
    made = [result("none", seed, train_cpu_s=60.0 * (seed + 5), play_cpu_s=90.0) for seed in range(3)]
    text = "\n".join(lines(document(made, scale=scale)))
    assert f"Scale: **{scale.name}**" in text
    assert f"| stage 2 | {scale.steps} steps of {scale.batch} windows |" in text
    assert f"every {scale.validate_every} steps, on 256 windows" in text and "50 scenes, the same for all" in text
    assert "| training, of one run | 6 min of one core |" in text and "| playing, of one run | 1.5 min" in text


def test_every_scale_keeps_what_the_claims_rest_on() -> None:
    for name, scale in SCALES.items():
        assert scale.name == name and scale.episodes == 50 and scale.steps % scale.validate_every == 0
        assert scale.training_episodes == FULL.training_episodes and scale.validation_windows == FULL.validation_windows


def test_a_folder_holds_one_scale_from_the_first_step_on(tmp_path: Path) -> None:
    assert begin(tmp_path, SMALL) and begin(tmp_path, SMALL)
    assert begin(tmp_path, replace(SMALL, episodes=0)), "the closed loop may be left out"
    assert not begin(tmp_path, FULL) and not begin(tmp_path, QUICK), "nothing has been trained, and still"
    assert main(["prior", "--scale", "full", "--out", str(tmp_path)]) == 2


def quick(out: Path, *arguments: str) -> list[str]:
    return ["prior", "--quick", "--out", str(out), "--seeds", "1", "--variants", "none", "prior", *arguments]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A smoke run of two variants, without the closed loop."""
    out = tmp_path_factory.mktemp("prior")
    command = [sys.executable, "-m", "bench.cli", *quick(out, "--episodes", "0")]
    assert subprocess.run(command, timeout=300).returncode == 0
    return out


def test_a_smoke_run_leaves_results_and_a_report(out: Path, tmp_path: Path) -> None:
    found = json.loads((out / "results.json").read_text())
    assert [one["variant"]["name"] for one in found["results"]] == ["none", "prior"]
    for one in found["results"]:
        assert [steps for steps, _ in one["curve"]] == [2, 4]
        assert one["initial_gradient_norm"] > 0 and one["final_error_rad"] > 0
    page = tmp_path / "results.md"
    other = "<!-- edge-bench prior small -->\nof another scale\n<!-- end prior -->\n"
    page.write_text(f"before\n{other}<!-- edge-bench prior quick -->\nold\n<!-- end prior -->\nafter\n")
    assert main(["prior", "report", "--out", str(out), "--markdown", str(page), "--plots", str(tmp_path)]) == 0
    text = page.read_text()
    assert text.startswith(f"before\n{other}") and text.endswith("after\n") and "old" not in text
    assert (
        "A smoke run" in text and "| no prior |" in text and "history helps on top" in text.split("**Not judged**")[1]
    )
    assert (tmp_path / "prior-quick-error.png").stat().st_size > 1000
    page.write_text(other)
    assert main(["prior", "report", "--out", str(out), "--markdown", str(page)]) == 2 and page.read_text() == other


def test_what_is_there_is_not_done_again(out: Path, capfd: pytest.CaptureFixture[str]) -> None:
    files = [path for path in out.rglob("*") if path.is_file() and path.name != "results.json"]
    before = {path: path.stat().st_mtime_ns for path in files}
    assert main(quick(out, "--episodes", "0")) == 0
    assert {path: path.stat().st_mtime_ns for path in files} == before


def test_stage_1_is_needed_only_by_runs_that_are_not_done(tmp_path: Path) -> None:
    place = Place(tmp_path, SMALL, "cpu")
    variants = [BY_NAME["none"], BY_NAME["others"]]

    def stage1() -> list[str]:
        return [job.name for job in plan(place, variants, 2) if job.name.startswith("stage 1")]

    assert stage1() == ["stage 1 others 0", "stage 1 others 1"]
    done = place.run(BY_NAME["others"], 0) / "result.json"
    done.parent.mkdir(parents=True)
    done.write_text("{}")
    assert stage1() == ["stage 1 others 1"]


def test_another_size_is_refused(out: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["prior", "--out", str(out)]) == 2
    assert "another size; give another --out" in capfd.readouterr().err


def test_a_policy_in_torch_keeps_its_words_when_another_is_opened(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They once shared their engines, and all were told what the last one was."""
    from lab.prior import closed_loop

    tokens = []

    def evaluate(settings: Any, bundle: Any, open_policy: Any) -> SimpleNamespace:
        policies = [open_policy(bundle, "franka", f"reach the {colour} cube", 1) for colour in ("red", "blue")]
        tokens.extend(policy._around.prompter.prompt(np.zeros(1)).tokens.tolist() for policy in policies)
        return SimpleNamespace(episodes=0, succeeded=0, rows=())

    monkeypatch.setattr(closed_loop, "evaluate", evaluate)
    closed_loop.play(out / "runs" / "prior-0" / "checkpoint.pt", "torch", QUICK)
    red, blue = tokens
    assert red != blue


@pytest.mark.slow  # exports three engines and plays them: half a minute
@pytest.mark.parametrize("engines", ["exported", "torch"])
def test_policies_are_played(out: Path, engines: str) -> None:
    from lab.prior.closed_loop import play

    played = play(out / "runs" / "prior-0" / "checkpoint.pt", engines, QUICK)  # type: ignore[arg-type]
    assert played["engines"] == engines and played["episodes"] == 1 and played["refused"] == 0
