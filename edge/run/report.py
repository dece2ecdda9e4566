"""The run in numbers: `run.json`, and the short table that a run ends with."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge import __version__
from edge.arms import ArmProfile
from edge.bundle import Bundle
from edge.bundle.files import replacing
from edge.errors import InputError
from edge.inference.film import CameraView
from edge.run import goal_counts
from edge.run.counters import Slow
from edge.run.outcome import RunOutcome
from edge.run.settings import RunSettings
from firmware_bridge.messages import SCHEMA_HASH

REPORT_FORMAT = 1
LEAST_REPORTS = 100
SLOW_CLOCK_RATE = 0.95
"""Below this the table has a row: no crystal is off by so much."""
CAMERA = "camera"
"""Before the policy's parts, in the times of a chunk."""


def percentiles(values: Sequence[float]) -> dict[str, float | int]:
    """Count, median, p95, p99 and maximum; empty when there are no values."""
    if not values:
        return {"count": 0}
    array = np.asarray(values, dtype=float)
    p50, p95, p99 = (round(float(value), 4) for value in np.percentile(array, [50, 95, 99]))
    return {"count": len(values), "p50": p50, "p95": p95, "p99": p99, "max": round(float(array.max()), 4)}


def summarise(outcome: RunOutcome, settings: RunSettings, extra: dict[str, Any]) -> dict[str, Any]:
    """The whole report as plain data. Times are milliseconds unless the key names another unit."""
    counters = outcome.counters
    return {
        "format": REPORT_FORMAT,
        "created_by": f"vla-edge {__version__}",
        "ended": outcome.ended,
        "error": outcome.error,
        "task": settings.task,
        "seed": settings.seed,
        "duration_s": round(outcome.moved_s, 3),
        "chunks": _chunks(outcome, settings),
        "pace": {
            "trained_step_ms": outcome.step_us / 1000,
            "slowest_step_ms": max([outcome.step_us, *(change.spacing_us for change in counters.pace_changes)]) / 1000,
            "changes": [asdict(change) for change in counters.pace_changes],
        },
        "runs_on": outcome.planner.message,
        "latency_ms": _latency_ms(outcome),
        "pauses": {
            "count": sum(counters.pauses.reasons.values()),
            "answers": counters.pauses.answers,
            "ended_s": round(counters.pauses.ended_us / 1e6, 3),
            "reasons": counters.pauses.reasons,
            "in_force": counters.pauses.reason,
        },
        "loop": _loop(outcome, settings),
        "inference_losses": [loss.reason for loss in outcome.losses],
        "splices": {
            "count": counters.splice_acceleration.total,
            "acceleration_jump_rad_s2": percentiles(counters.splice_acceleration),
        },
        "goals": counters.goals.to_plain(),
        "device": {
            "limiter_interventions": counters.interventions,
            "least_buffer_ms": None if np.isinf(counters.least_buffer_ms) else counters.least_buffer_ms,
            "bad_frames": outcome.bad_frames,
        },
        "link": {
            "sent_bytes": outcome.sent_bytes,
            "clock_uncertainty_us": round(outcome.clock_uncertainty_us, 1),
            "clock_drift_ppm": round(outcome.clock_drift_ppm, 2),
            "device_clock_rate": device_clock_rate(outcome.samples.whole_run_us, outcome.moved_s),
        },
        **({"traceback": outcome.traceback} if outcome.traceback else {}),
        "machine": {"python": platform.python_version(), "machine": platform.machine(), "system": platform.platform()},
        **extra,
    }


def device_clock_rate(device_us: NDArray[np.int64], lasted_s: float) -> float | None:
    """Device time from the first report (n,) to the last, as a share of the host's; None of too few."""
    if len(device_us) < LEAST_REPORTS:
        return None
    return round(float(device_us[-1] - device_us[0]) / 1e6 / lasted_s, 3)


def _chunks(outcome: RunOutcome, settings: RunSettings) -> dict[str, Any]:
    counters = outcome.counters
    return {
        "requested": counters.requests,
        "computed": counters.chunks,
        "committed": counters.committed_ids.total,
        "committed_ids": counters.committed_ids,
        "late": counters.late,
        "refused_by_host": counters.refused.total - counters.device_refusals,
        "refused_by_device": counters.device_refusals,
        "refusals": counters.refused,
        "resent": outcome.resent_chunks,
        "replan_rate_hz": round(counters.committed_ids.total / outcome.moved_s, 3) if outcome.moved_s else 0.0,
        "delay_steps": percentiles(counters.delays),
        "execute_steps": settings.execute_steps,
        "ensemble": settings.ensemble,
    }


def _latency_ms(outcome: RunOutcome) -> dict[str, Any]:
    """`observation_to_chunk` begins with the oldest part of the observation, the capture of the oldest frame or the
    request, and ends when control holds the chunk; `request_to_chunk` leaves out the age of the frame."""
    counters = outcome.counters
    observed_us = [age + wait for age, wait in zip(counters.frame_age_us, counters.latency_us)]
    return {
        "observation_to_chunk": percentiles([value / 1000 for value in observed_us]),
        "request_to_chunk": percentiles([value / 1000 for value in counters.latency_us]),
        "frame_age_at_request": percentiles([value / 1000 for value in counters.frame_age_us]),
        "engines": {
            name: percentiles([row[index] / 1000 for row in counters.engine_us if index < len(row)])
            for index, name in enumerate((CAMERA, *outcome.parts))
        },
        "cold_call": round(outcome.planner.cold_ns / 1e6, 3),
        "slowest_warm_call": round(outcome.planner.warm_ns / 1e6, 3),
    }


def _loop(outcome: RunOutcome, settings: RunSettings) -> dict[str, Any]:
    lateness, jitter = outcome.lateness.lateness, outcome.lateness.jitter
    return {
        "rate_hz": settings.rate_hz,
        "ticks": outcome.lateness.ticks,
        "overruns": outcome.lateness.overruns,
        "lateness_us": {
            "p50": lateness.percentile_us(50),
            "p95": lateness.percentile_us(95),
            "p99": lateness.percentile_us(99),
            "max": lateness.largest_us,
        },
        "period_jitter_us": {"p50": jitter.percentile_us(50), "p99": jitter.percentile_us(99)},
        "spin_us": round(outcome.lateness.spin_ns / 1000, 1),
        "realtime": [asdict(setting) for setting in outcome.realtime],
    }


def table(report: dict[str, Any]) -> str:
    """The report in a dozen lines for a person."""
    chunks, latency, loop, device = report["chunks"], report["latency_ms"], report["loop"], report["device"]
    whole, engines = latency["observation_to_chunk"], latency["engines"]
    late = loop["lateness_us"]
    jump = report["splices"]["acceleration_jump_rad_s2"]
    rows = [
        ("ended", report["ended"] + (f": {report['error']}" if report["error"] else "")),
        ("chunks", f"{chunks['committed']} committed of {chunks['computed']} computed, {chunks['late']} late"),
        ("replan rate", f"{chunks['replan_rate_hz']:.2f} Hz, control {loop['rate_hz']:.0f} Hz"),
        ("latency", f"p50 {whole.get('p50', 0):.1f}  p99 {whole.get('p99', 0):.1f} ms, observation to chunk"),
        (
            "  by engine",
            "  ".join(f"{name} {found.get('p50', 0):.1f}" for name, found in engines.items()) + " ms (p50)",
        ),
        ("loop lateness", f"p50 {late['p50']}  p95 {late['p95']}  p99 {late['p99']} us, {loop['overruns']} overruns"),
        ("splices", f"{report['splices']['count']}, largest jump in acceleration {jump.get('max', 0):.3f} rad/s^2"),
        ("least buffer", f"{device['least_buffer_ms']} ms"),
        ("limiter", f"{device['limiter_interventions']} interventions"),
        ("refusals", f"{chunks['refused_by_host']} by the host, {chunks['refused_by_device']} by the device"),
    ]
    rows += [("", f"  {text}") for text in chunks["refusals"][:3]]
    rows += [("lost", reason) for reason in report["inference_losses"]]
    rows += slow_clock(report["link"]["device_clock_rate"])
    line = report.get("adapter")
    if line:
        rows += _arm_line(line)
    if report["pace"]["changes"]:
        rows.append(("pace", slowed_down(report["pace"])))
    if report["goals"]:
        rows.append(("goals", goal_counts.row(report["goals"])))
    pauses = report["pauses"]
    if pauses["count"]:
        rows.append(("pauses", f"{pauses['count']}, those that ended took {pauses['ended_s']:.1f} s"))
        rows += [("", f"  {count} x {reason}") for reason, count in list(pauses["reasons"].items())[:3]]
    scene = report.get("simulated_scene")
    if scene:
        rows.append(("target", f"{scene['text']} after {report['duration_s']:.1f} s (simulated)"))
        rows += [("  reached", scene["hold"]["text"])] if scene.get("hold") else []
    return "\n".join(f"{name:<14} {text}" for name, text in rows)


def slowed_down(pace: dict[str, Any]) -> str:
    """How slowly the arm moved at most, and why then."""
    slowest = max(pace["changes"], key=lambda change: change["spacing_us"])
    share = pace["trained_step_ms"] / pace["slowest_step_ms"]
    took = f"inference took {slowest['latency_us'] // 1000} ms"
    why = took if slowest["why"] is Slow.LATENCY else slowest["why"].value
    return f"slowed down to {share:.0%} of the trained one: {why}"


def slow_clock(rate: float | None) -> list[tuple[str, str]]:
    """A row about a device whose clock is slow: what a chunk then waits for is not inference."""
    if rate is None or rate >= SLOW_CLOCK_RATE:
        return []
    return [("device clock", f"slow: it made {rate:.0%} of real time")]


def _arm_line(statistics: dict[str, Any]) -> list[tuple[str, str]]:
    """What an adapter reports of the arm's own line: all of them the least rate, a Franka the last one too."""
    p50, p99, most = (statistics[f"period_{name}_us"] for name in ("p50", "p99", "max"))
    period = f"p50 {p50}  p99 {p99}  max {most} us a period"
    rows = [("arm's line", f"{period}, {statistics['lost_periods']} of {statistics['periods']} lost")]
    answered = f"answered in p50 {statistics['answer_p50_us']}  p99 {statistics['answer_p99_us']} us"
    if "success_rate_least" in statistics:
        last = f"{statistics['success_rate_last']:.2f}, " if "success_rate_last" in statistics else ""
        answered += f", success rate {last}{statistics['success_rate_least']:.2f} at least"
    return [*rows, ("", answered)]


def check_output(option: str, path: Path) -> None:
    """Before anything moves: whether a file at `path`, given by `option`, can be written. Raises `InputError`."""
    if not path.parent.is_dir():
        raise InputError(f"{option} {path}: there is no folder {path.parent}; make it, or name another")
    if path.is_dir():
        raise InputError(f"{option} {path}: that is a folder; name a file in it")
    if path.exists() and not path.is_file():
        raise InputError(f"{option} {path}: that is not a regular file, so it is not written; name another")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise InputError(f"{option} {path}: this user cannot write in {path.parent.resolve()}; name another file")


def picture_of(report: Path) -> Path:
    """Where the plot of a run goes, beside its report."""
    return report.with_suffix(".png")


def write_report(path: Path, report: dict[str, Any]) -> None:
    """Writes the JSON whole or not at all."""
    with replacing(path) as partial:
        partial.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def run_header(bundle: Bundle | None, arm: ArmProfile, settings: RunSettings, more: dict[str, Any]) -> dict[str, Any]:
    """What is known of a run before it begins: versions, arm, task, seeds, settings, hashes of the bundle."""
    manifest = bundle.manifest if bundle is not None else None
    return {
        "created_by": f"vla-edge {__version__}",
        "machine": this_machine(),
        "arm": {"name": arm.name, "model": arm.model, "profile": f"{arm.hash32:08x}", "joints": arm.joints},
        "frames": [asdict(frame) for frame in arm.frames],
        "bundle": manifest
        and {
            "checkpoint_sha256": manifest.checkpoint_sha256,
            "precision": manifest.precision,
            "created_by": manifest.created_by,
            "files": manifest.files,
        },
        "wire_schema": f"{SCHEMA_HASH:08x}",
        "settings": asdict(settings),
        **more,
    }


def cameras_header(views: Sequence[CameraView]) -> dict[str, Any]:
    """The cameras of a run, in the policy's order, as its header has them."""
    return {"cameras": [{"name": name, "height_px": height, "width_px": width} for name, (height, width) in views]}


def this_machine() -> dict[str, str]:
    """What the numbers of a run may depend on beside its inputs."""
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "system": platform.platform(),
        "processor": processor(),
    }


def processor() -> str:
    """Its model, as the kernel names it; else its architecture."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(("model name", "Model")):
                return line.partition(":")[2].strip()
    return platform.machine()
