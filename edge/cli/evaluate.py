"""`edge-evaluate`: in how many episodes a policy does its task, on the arm or in simulation, with its interval."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge.arms import available_arms
from edge.bundle.files import replacing
from edge.cli.parser import MADE_BY, PATIENCE_S, add_version, complain, described
from edge.cli.series import Series, add_series
from edge.errors import InputError, VlaEdgeError
from edge.log.mcap_log import LogError, require_mcap
from edge.registry import missing
from edge.run.proportion import wilson
from firmware_bridge.errors import BridgeError
from firmware_bridge.printing import print_line
from firmware_bridge.reading import ReadError, parse_json, read_bytes, told

PROG = "edge-evaluate"
RESULTS = "evaluation.json"
SAME = ("arm", "bundle", "task", "duration", "seed", "scene_seed", "bridge")
"""What a series that is gone on with must have been begun with."""


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(
        prog=PROG,
        **described(
            "Runs a policy a number of times and counts: home, the task, the verdict, the next one. In simulation the "
            "verdict is the simulator's, on an arm the operator's, by key.",
            """
            edge-evaluate --arm franka --bundle bundle --task "reach the red cube" --episodes 20 --out my-evaluation
            edge-evaluate --arm so101 --bridge feetech:/dev/ttyACM0 --bundle bundle --episodes 20 --out my-evaluation
            edge-evaluate --arm so101 --bundle bundle --episodes 20 --out my-evaluation --videos my-evaluation/videos
            """,
            "Every episode leaves a log, and the table is in evaluation.json; the same command again goes on where "
            "it was stopped, and makes the videos that are missing. Exit codes: 0 done, 1 stopped before the end, "
            "2 bad input.",
        ),
    )
    add_version(root)
    add = root.add_argument
    add("--arm", required=True, metavar="NAME", help=f"arm profile: {', '.join(available_arms())}, or a .toml file")
    add("--bridge", default="sim:", metavar="URL", help="its line (default sim:, simulated)")
    add("--task", default="", metavar="TEXT", help="what to do, for a policy that follows an instruction")
    add("--out", type=Path, required=True, metavar="DIR", help="logs and evaluation.json; gone on with if it is there")
    add(
        "--videos",
        type=Path,
        metavar="DIR",
        help="also a small video of each episode, by its number and verdict (needs the 'data' extra)",
    )
    add_series(add)
    return root


def main(argv: list[str] | None = None) -> int:
    root = parser()
    args = root.parse_args(argv)
    if args.bundle is None:
        root.error("--bundle DIR is required")
    try:
        return _evaluate(args)
    except (VlaEdgeError, BridgeError) as error:
        complain(PROG, error)
        return error.exit_code if isinstance(error, VlaEdgeError) else 2
    except OSError as error:
        complain(PROG, f"--out {args.out}: {error.strerror or error}")
        return 2
    except KeyboardInterrupt:
        complain(PROG, "stopped; give the command again to go on")
        return 1


def _evaluate(args: argparse.Namespace) -> int:
    require_mcap(PROG)
    write_video = _video_writer() if args.videos else None
    with Series(args, args.task or None, _print) as series:
        args.out.mkdir(parents=True, exist_ok=True)
        begun = {name: str(value) if isinstance(value := getattr(args, name), Path) else value for name in SAME}
        rows = _rows_there(args.out, begun)
        if write_video is not None:
            for row in rows:
                _film(args, row, write_video)
        while len(rows) < args.episodes:
            number = len(rows)
            log = args.out / f"episode-{number:03d}.mcap"
            log.unlink(missing_ok=True)  # of an episode that came to no verdict
            episode = series.run(number, log)
            if episode.stopped or episode.verdict == "unknown":
                _print(f"stopped after {number} of {args.episodes} episodes; give the command again to go on")
                return 1
            if episode.verdict == "discard":
                _print(f"episode {number} is made again")
                continue
            rows.append(_row(number, log, episode.verdict, episode.report))
            with replacing(args.out / RESULTS) as partial:
                partial.write_text(json.dumps(document(begun, rows), indent=2) + "\n", encoding="utf-8")
            if write_video is not None:
                _film(args, rows[-1], write_video)
    _print(table(rows))
    return 0


def _video_writer() -> Callable[[Path, Path], None]:
    """What makes a video of a log. Raises `InputError` where it is not installed."""
    try:
        from edge.log.run_video import write_run_video
    except ImportError as error:
        raise InputError(missing("--videos", error)) from None
    return write_run_video


def _film(args: argparse.Namespace, row: dict[str, Any], write_video: Callable[[Path, Path], None]) -> None:
    """The video of an episode that is done, unless it is there; an episode counts without one."""
    video = args.videos / f"{Path(row['log']).stem}-{row['verdict']}.mp4"
    try:
        if not video.exists():
            write_video(args.out / row["log"], video)
    except (LogError, OSError) as error:
        complain(PROG, f"--videos: {video.name} is not made: {error}")


def _row(number: int, log: Path, verdict: str, report: dict[str, Any]) -> dict[str, Any]:
    return {
        "episode": number,
        "verdict": verdict,
        "log": log.name,
        "ended": report["ended"],
        "error": report["error"],
        "duration_s": report["duration_s"],
        "simulated_scene": report.get("simulated_scene"),
    }


def document(begun: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The evaluation as plain data."""
    successes = sum(row["verdict"] == "success" for row in rows)
    low, high = wilson(successes, len(rows))
    share = {"successes": successes, "episodes": len(rows), "share": successes / len(rows), "wilson_95": [low, high]}
    return {"created_by": MADE_BY, "settings": begun, **share, "rows": rows}


def _rows_there(folder: Path, begun: dict[str, Any]) -> list[dict[str, Any]]:
    """The episodes that are done. Raises `InputError` for a series that was begun otherwise."""
    path = folder / RESULTS
    if not path.exists():
        return []
    try:
        found = parse_json(read_bytes(path))
        rows, was = list(found["rows"]), dict(found["settings"])
        differ = [name for name in SAME if was.get(name) != begun[name]]
        if differ or [row["episode"] for row in rows] != list(range(len(rows))):
            what = ", ".join(f"--{name.replace('_', '-')} {was.get(name)!r}" for name in differ) or "other rows"
            raise InputError(f"{path}: was begun with {what}; give the same again, or another --out")
        _ = [(row["verdict"] == "success", row["ended"], float(row["duration_s"])) for row in rows]
    except (OSError, ReadError, LookupError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: is no evaluation that can be gone on with ({told(error)}); name another --out"
        ) from None
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """One line an episode, and the share with its interval."""
    found = document({}, rows)
    lines = [
        f"{row['episode']:>3}  {row['verdict']:<8} {row['duration_s']:5.1f} s  {row['error'] or row['ended']}"
        for row in rows
    ]
    low, high = found["wilson_95"]
    told = f"{found['successes']} of {found['episodes']} succeeded: {found['share']:.0%}"
    told += f", 95 % interval {low:.0%} to {high:.0%}"
    return "\n".join(["", *lines, told])


def _print(text: str) -> None:
    print_line(f"{PROG}: {text}" if not text.startswith("\n") else text[1:], sys.stdout, PATIENCE_S)


if __name__ == "__main__":
    sys.exit(main())
