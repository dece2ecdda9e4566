"""`edge-record`: episodes of a LeRobot v3 dataset, from runs and from logs, and back to an arm."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import count as count_from
from pathlib import Path
from typing import TYPE_CHECKING

from edge.arms import available_arms, load_arm
from edge.cli.parser import PATIENCE_S, add_version, complain, count, described
from edge.cli.series import Series, add_series
from edge.doors.leading import FRAME_PX
from edge.errors import InputError, VlaEdgeError
from edge.log.mcap_log import require_mcap
from edge.registry import missing
from edge.run.outputs import check_outputs
from firmware_bridge.errors import BridgeError
from firmware_bridge.printing import print_line

if TYPE_CHECKING:
    from edge.log.episodes import Appended, Verdict

PROG = "edge-record"
VERDICTS = ("success", "fail", "unknown")


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(
        prog=PROG,
        **described(
            "Episodes of a LeRobot v3 dataset from a leader arm, a policy or logs, and episodes on an arm again.",
            """
            edge-record --leader feetech:/dev/ttyACM1 --arm so101 --bridge feetech:/dev/ttyACM0 \\
                --camera front=v4l2:/dev/video0 --task "put the cube away" --episodes 20 --out my-data
            edge-record --policy --leader feetech:/dev/ttyACM1 --arm so101 --bundle bundle --episodes 20 --out my-data
            edge-record --policy --arm so101 --bundle bundle --task "put the cube away" --episodes 20 --out my-data
            edge-run --arm so101 --bundle bundle --log run.mcap
            edge-record --from run.mcap --out my-data --verdict success
            edge-record --from logs/*.mcap --out my-data --fps 30 --task "put the cube away"
            edge-record --play my-data --episode 3 --arm so101      # on the simulated arm
            """,
            "An episode is what lies between two ways home; pauses are left out, and the steps in which a person had "
            "the arm are marked in the column 'intervention'. A log whose episodes the dataset has is passed over. "
            "Exit codes: 0 done, 1 an output could not be written or the arm was stopped, 2 bad input.",
        ),
    )
    add_version(root)
    what = root.add_mutually_exclusive_group()
    what.add_argument("--from", dest="logs", type=Path, nargs="+", metavar="FILE.mcap", help="logs of edge-run --log")
    what.add_argument("--policy", action="store_true", help="runs a bundle --episodes times, and records each run")
    what.add_argument(
        "--play", type=Path, metavar="DIR", help="a dataset, of which an arm follows one episode's actions"
    )
    made = root.add_argument_group("the dataset").add_argument
    made("--out", type=Path, metavar="DIR", help="the dataset: a new folder, or one to be gone on with")
    made(
        "--fps", type=count, metavar="N", help="steps per second (default: 30, 20 or 10, as the slowest camera allows)"
    )
    made("--task", metavar="TEXT", help="what was to be done (default: as in the log)")
    made(
        "--camera-names",
        nargs="+",
        metavar="NAME",
        help="of the cameras in the dataset, in the policy's order (default: as in the bundle)",
    )
    made("--verdict", choices=VERDICTS, default="unknown", help="how it ended (default %(default)s)")
    series = root.add_argument_group("episodes of a leader arm, or of a policy").add_argument
    series(
        "--leader",
        metavar="URL",
        help="a second arm that a hand moves: feetech:PATH?calibration=FILE (default NAME-leader-calibration.json); "
        "the arm follows it, or with --policy is taken over with it (keys p, t, then p and c to hand it back)",
    )
    series(
        "--frame-size",
        type=_size,
        default=FRAME_PX,
        metavar="WxH",
        help="of the frames of a leader's episodes (default 640x480); a policy's are the bundle's",
    )
    add_series(series)
    played = root.add_argument_group("an episode on an arm").add_argument
    played("--episode", type=int, default=0, metavar="N", help="its number (default %(default)d)")
    arm = root.add_argument_group("the arm").add_argument
    arm("--arm", metavar="NAME", help=f"arm profile: {', '.join(available_arms())}, or a .toml file")
    arm("--bridge", default="sim:", metavar="URL", help="its line (default sim:, simulated)")
    played("--log", type=Path, metavar="FILE.mcap", help="keeps a log of it")
    return root


def main(argv: list[str] | None = None) -> int:
    root = parser()
    args = root.parse_args(argv)
    if args.logs and not args.out:
        root.error("--from needs --out DIR, the dataset")
    if args.play and not args.arm:
        root.error("--play needs --arm NAME")
    if args.policy and not (args.arm and args.bundle and args.out):
        root.error("--policy needs --arm NAME, --bundle DIR and --out DIR")
    led = args.leader and not args.policy
    if led and (args.logs or args.play or args.bundle or not (args.arm and args.out)):
        root.error("--leader needs --arm NAME and --out DIR, and with --bundle DIR --policy as well")
    if not (led or args.logs or args.policy or args.play):
        root.error("one of --leader, --policy, --from and --play is required")
    try:
        if args.policy or led:
            return _of_runs(args)
        return _from_logs(args.logs, args) if args.logs else _play(args)
    except (VlaEdgeError, BridgeError) as error:
        complain(PROG, error)
        return error.exit_code if isinstance(error, VlaEdgeError) else 2
    except OSError as error:
        complain(
            PROG, f"{args.out or args.play}: {error.strerror or error}; what is in it stays, give the command again"
        )
        return 1
    except KeyboardInterrupt:
        complain(PROG, "stopped; whole episodes stay, give the command again to go on")
        return 1


def _from_logs(logs: Sequence[Path], args: argparse.Namespace, verdict: Verdict | None = None) -> int:
    require_mcap("--from")
    try:
        from edge.log import episodes
        from edge.log.dataset import DatasetWriter
    except ImportError as error:
        raise InputError(missing("a dataset", error)) from None
    from edge.log.logged_run import read_run

    for path in logs:
        if not path.is_file():
            raise InputError(f"--from {path}: there is no such file; name logs of edge-run --log")
    code = 0
    for path in logs:
        run = read_run(path)
        run = run.renamed(args.camera_names) if args.camera_names else run
        spec = episodes.spec_of(run, args.fps or _rate_there(args.out) or episodes.rate_of(run))
        with DatasetWriter(args.out, spec) as writer:
            if has := episodes.is_in(writer, run):
                _print(f"{path}: is in {args.out} already, as episode {has[0]}")
                continue
            try:
                found = episodes.append_run(writer, run, verdict or args.verdict, args.task)
            except episodes.NoEpisode as problem:
                complain(PROG, problem)
                code = 2
                continue
            episodes.write_mapping(args.out, run)
        _print(_told(path, found, spec.fps))
    return code


def _of_runs(args: argparse.Namespace) -> int:
    """Runs with a log each; a log that is not discarded becomes episodes at once, and is kept in any case of doubt."""
    require_mcap(PROG)
    logs, code = args.out / "logs", 0
    with Series(args, args.task, _print, args.leader, args.frame_size) as series:
        logs.mkdir(parents=True, exist_ok=True)
        for number in range(args.episodes):
            log = next(path for index in count_from(0) if not (path := logs / f"run-{index:04d}.mcap").exists())
            episode = series.run(number, log)
            _print(f"episode {number}: {episode.verdict}; ended: {episode.report['error'] or episode.report['ended']}")
            if episode.stopped:
                told = f"edge-record --from {log} --out {args.out} --verdict success|fail adds it"
                _print(f"stopped; {log} is kept: {told}")
                return code
            if episode.verdict == "discard":
                log.unlink()
                continue
            verdict: Verdict = (
                "success" if episode.verdict == "success" else "fail" if episode.verdict == "fail" else "unknown"
            )
            code = max(code, _from_logs([log], args, verdict), 1 if episode.report["error"] else 0)
    return code


def _size(text: str) -> tuple[int, int]:
    """Height and width of `WxH`."""
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"'{text}' is not a width and a height, as 640x480")
    return int(height), int(width)


def _rate_there(folder: Path) -> int | None:
    """Of a dataset that is gone on with."""
    from edge.log.dataset.spec import INFO_PATH
    from firmware_bridge.reading import parse_json, read_bytes

    try:
        return int(parse_json(read_bytes(folder / INFO_PATH))["fps"])
    except (OSError, ValueError, LookupError, TypeError):
        return None  # there is none, or the writer says what is wrong with it


def _told(path: Path, found: Appended, fps: int) -> str:
    numbers = (
        f"episode {found.episodes[0]}"
        if len(found.episodes) == 1
        else f"episodes {found.episodes[0]} to {found.episodes[-1]}"
    )
    text = f"{path}: {numbers}, {found.steps} steps at {fps} a second"
    text += f", {found.by_leader} of them by a person" if found.by_leader else ""
    return text + (f"; {found.without_frame} left out for want of a frame" if found.without_frame else "")


def _play(args: argparse.Namespace) -> int:
    from edge.run.front import connect

    try:
        from edge.log.dataset.reading import read_actions
    except ImportError as error:
        raise InputError(missing("a dataset", error)) from None
    actions = read_actions(args.play, args.episode)
    points = actions.of_arm(load_arm(args.arm))
    if args.log is not None:
        check_outputs({"--log": (args.log, "recording")}, overwrite=None)
    with connect(args.arm, args.bridge, task=actions.task) as arm:
        _print(f"episode {args.episode} of {args.play}: {len(points)} steps at {actions.fps} a second")
        arm.move_to(points[0], "to the first step")
        outcome = arm.stream(points, step_s=1 / actions.fps, log=args.log, task=actions.task)
    _print(f"ended: {outcome.ended}" + (f", {outcome.error}" if outcome.error else ""))
    return 1 if outcome.error else 0


def _print(text: str) -> None:
    print_line(f"{PROG}: {text}", sys.stdout, PATIENCE_S)


if __name__ == "__main__":
    sys.exit(main())
