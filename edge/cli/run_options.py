"""The options of `edge-run`, in the groups in which a person looks for them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

from edge.arms import available_arms
from edge.arms.bridge import bridge_forms
from edge.cameras import CAMERAS
from edge.cli.parser import TRUST, add_version, described
from edge.cli.robot_file import add_robot_file
from edge.engines import engine_choices
from edge.log.live import DEFAULT_PORTS
from edge.log.pictures import Kept
from edge.run.supervision import OnLoss

DURATION_S = 20.0
LONGEST_S = 86_399.0
MOST_PORT = 65535
Add = Callable[..., Any]


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(
        prog="edge-run",
        **described(
            "Runs a policy on an arm: inference and control in two processes, chunks executed by firmware.",
            """
            edge-run --arm franka --bundle bundle --task "reach the red cube"     # simulated arm
            edge-run --arm franka --bundle bundle --bridge serial:/dev/ttyACM0 --camera v4l2:/dev/video0
            edge-run --arm so101 --policy openpi://10.0.0.2:8000 --policy-spec server.toml --camera v4l2:/dev/video0
            edge-run --arm so101 --leader feetech:/dev/ttyACM1 --bridge feetech:/dev/ttyACM0
            edge-run --arm franka --bridge serial:/dev/ttyACM0 --to-home
            edge-run --arm franka --bridge fci:172.16.0.2 --clear
            edge-run --replay run.mcap --recompute --bundle bundle
            """,
            "Ctrl-C, SIGTERM and the end of the terminal stop the arm under control, and the report is still written; "
            "SIGUSR2 pauses it, SIGUSR1 starts it again, SIGRTMIN moves it slowly home from a pause. Exit codes: 0 "
            "done, 1 safety stop or an output that could not be written, 2 bad input (the arm has not moved). Of "
            "--replay: 0 identical, 1 different, 2 not readable or records missing.",
        ),
    )
    add_version(root)
    _add_what(root.add_argument_group("what runs where").add_argument)
    _add_policy(root.add_argument_group("policy and loop").add_argument)
    _add_operator(root.add_argument_group("operator").add_argument)
    _add_records(root.add_argument_group("records").add_argument)
    return root


def _add_what(add: Add) -> None:
    add_robot_file(add)
    add("--arm", metavar="NAME", help=f"arm profile: {', '.join(available_arms())}, or a .toml file")
    add("--bundle", type=Path, metavar="DIR", help="folder made by edge-export")
    add("--trust", type=Path, metavar="KEY", help=TRUST)
    add("--policy", metavar="URL", help="in place of a bundle a server: openpi://HOST:PORT, openpis:// with TLS")
    add(
        "--leader",
        metavar="URL",
        help="in place of a policy a second arm that a hand moves, read and never written: "
        "feetech:PATH?calibration=FILE (default NAME-leader-calibration.json); the arm follows it within its limits",
    )
    add("--policy-spec", type=Path, metavar="FILE.toml", help="what a server's numbers mean; edge-serve says it itself")
    add("--policy-key-file", default="", metavar="FILE", help="its API key")
    add("--policy-timeout", type=_positive, default=5.0, metavar="S", help="for one chunk (default %(default)g)")
    add("--bridge", default="sim:", metavar="URL", help=f"the arm (default sim:, simulated): {bridge_forms()}")
    add(
        "--camera",
        action="append",
        default=[],
        metavar="[NAME=]URL",
        help="one per camera of the bundle, by its name there where it has several (default with a simulated arm: "
        f"sim:): {CAMERAS.forms()}",
    )
    add(
        "--task",
        metavar="TEXT",
        help="what to do, as text, for a policy that follows an instruction (default: the bundle's own, where "
        "edge-export was told one)",
    )
    add(
        "--duration",
        type=_positive,
        metavar="S",
        help=f"seconds to run (default {DURATION_S:g}; with --leader until Ctrl-C)",
    )
    add("--scene-seed", type=int, default=0, help="with a simulated arm: where the cubes stand (default %(default)d)")


def _add_policy(add: Add) -> None:
    add("--rate", type=_rate, default=250.0, metavar="HZ", help="control loop, 50 to 1000 (default %(default)g)")
    add(
        "--execute",
        type=int,
        metavar="N",
        help="steps executed of a chunk before the next is requested (default: what the bundle says)",
    )
    add(
        "--ensemble",
        type=int,
        default=1,
        metavar="N",
        help="average each goal over the last N chunks that name it, 1 to 16 (temporal ensembling), for a policy of "
        "positions such as ACT (default %(default)d)",
    )
    add(
        "--engine",
        choices=engine_choices(),
        default="auto",
        help="what runs the graphs (default %(default)s: tensorrt where edge-build has made it, else onnxruntime)",
    )
    add("--threads", type=int, default=1, metavar="N", help="threads per engine (default %(default)d)")
    add("--seed", type=int, default=0, help="seed of the flow noise (default %(default)d)")
    add(
        "--inject-latency-ms",
        type=float,
        default=0.0,
        metavar="N",
        help="adds N ms to every inference, to see what happens",
    )
    add(
        "--realtime",
        choices=("auto", "off"),
        default="auto",
        help="request real-time priority, locked memory and a processor of the loop's own, and report what it "
        "refuses (default %(default)s)",
    )


def _add_operator(add: Add) -> None:
    add(
        "--to-home",
        action="store_true",
        help="no policy: after a yes on the terminal, move the arm slowly from where it stands to its home pose",
    )
    add(
        "--clear",
        action="store_true",
        help="no policy: show why the arm has stopped for good, ask, and let it leave the fault; nothing moves",
    )
    add("--yes", action="store_true", help="with --to-home and --clear: do not prompt; look at the arm first")
    add("--approach", action="store_true", help="go slowly to the policy's first goals when they are far, then run")
    add("--wait", action="store_true", help="arm nothing until the start command: the page's button, or by SIGUSR1")
    add(
        "--on-inference-loss",
        choices=[choice.value for choice in OnLoss],
        default=OnLoss.END.value,
        help="when inference ends or hangs, the arm executes what is committed and comes to rest; then end the run "
        "(default), or start inference again and wait for SIGUSR1 to go on",
    )
    add("--view", action="store_true", help="serve a live page on 127.0.0.1 and print its address, which holds its key")
    add(
        "--live", choices=tuple(DEFAULT_PORTS), help="show the log's messages as they come, in a viewer on this machine"
    )
    add(
        "--live-port",
        type=_live_port,
        metavar="N",
        help="where Foxglove finds them, or rerun's viewer listens "
        f"(default {' or '.join(map(str, DEFAULT_PORTS.values()))})",
    )
    add("--view-port", type=_port, default=0, metavar="N", help="its port (default: any that is free)")


def _add_records(add: Add) -> None:
    add(
        "--report",
        type=Path,
        default=Path("run.json"),
        metavar="FILE.json",
        help="report (default %(default)s); the plot goes beside it as .png",
    )
    add(
        "--no-plot",
        action="store_true",
        help="no plot beside the report; it takes a second of the processor at the end",
    )
    add(
        "--log",
        type=Path,
        metavar="FILE.mcap",
        help="every input, frame and decision, written beside the loop, for Foxglove and --replay "
        "(needs the 'log' extra)",
    )
    add(
        "--log-frames",
        choices=get_args(Kept),
        default="jpeg",
        help="what --log keeps frames as that no chunk was computed from (default %(default)s); h264 is smaller and "
        "takes more of the processor (needs the 'data' extra)",
    )
    add(
        "--overwrite",
        action="store_true",
        help="let --log, --trace and --report take the place of files that are there; never of inputs, of a bundle's "
        "files or of what is not a regular file",
    )
    add(
        "--replay",
        type=Path,
        metavar="FILE.mcap",
        help="no run: takes the decisions of a logged run again, on its inputs, and compares them bit by bit",
    )
    add(
        "--html",
        type=Path,
        metavar="FILE.html",
        help="with --replay: writes the run as one page to look at: frames, joints, chunks and decisions by a slider",
    )
    add(
        "--rrd",
        type=Path,
        metavar="FILE.rrd",
        help="with --replay: writes the run as a recording that rerun's viewer opens (needs the 'rerun' extra)",
    )
    add(
        "--recompute",
        action="store_true",
        help="with --replay and --bundle: also computes every chunk again from the logged frames, and compares it",
    )
    add("--trace", type=Path, metavar="FILE.csv", help="with sim:, fci: and feetech: the device's own 1 kHz trace")


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < 86400:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 86400")
    return value


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > MOST_PORT:
        raise argparse.ArgumentTypeError(f"a port is a number from 0 (any that is free) to {MOST_PORT}")
    return int(text)


def _live_port(text: str) -> int:
    port = _port(text)
    if port == 0:
        raise argparse.ArgumentTypeError("the viewer has to know the port; name one")
    return port


def _rate(text: str) -> float:
    value = float(text)
    if not 50 <= value <= 1000:
        raise argparse.ArgumentTypeError(f"{text} Hz; the control loop runs at 50 to 1000 Hz")
    return value
