"""A LeRobot folder by LeRobot itself, eager and compiled, beside the bundles that edge-export made of it.

All ways get the same weights, the same frames, state and noise, and take turns, one chunk each per round: LeRobot's
processors and policy in FP32, each in a process of LeRobot's environment, and the engines with all that fills their
inputs in this one. A chunk begins with uint8 frames and the state in memory and ends with goals in the robot's units.
Before anything is timed the FP32 bundle's goals must be LeRobot's, each axis within 1e-4 of its range.

The roof of the machine is measured in the same rounds: a product of 1024 x 1024 matrices in FP32 and INT8, and reading
256 MB. What the graphs have to do at those rates is the least time that a chunk could take; a way's share of the roof
is that time by its own.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from bench import options
from bench.cpu_model import CpuRoof
from bench.document import Recording, notify
from bench.graph_cost import GraphCost, count_file
from bench.harness import Plan, Run, group, take_turns
from bench.lerobot_speed_tables import lines
from bench.roof import STREAM_BYTES, peak_run, stream_run
from edge.arms import load_arm
from edge.bundle import Bundle
from edge.cli.parser import count
from edge.engines import DEFAULT_ENGINE, Engine, open_engines
from edge.errors import InputError
from edge.policy.axes import Axes
from edge.policy.base import PolicyInput
from edge.policy.graph_policy import GraphPolicies, GraphPolicy

EAGER, COMPILED = "LeRobot, eager", "LeRobot, torch.compile"
ROOF = {"fp32": "product in FP32", "int8": "product in INT8"}
STREAM = "reading memory"
OF_RANGE = 1e-4
BOUNDARY = (
    "from uint8 frames and the state in memory to goals in the robot's units; pre- and postprocessing are inside; "
    "no camera, no wire"
)
ROOT = Path(__file__).resolve().parents[1]
SEED = (0, 1)
"""Of the noise that both sides start from."""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the `pretrained_model` folder of LeRobot's")
    parser.add_argument(
        "--bundle",
        type=Path,
        action="append",
        required=True,
        metavar="DIR",
        help="made of it by edge-export; may be repeated, one in FP32 is needed",
    )
    parser.add_argument(
        "--lerobot", type=Path, required=True, metavar="PYTHON", help="of LeRobot's environment (`make lerobot-speed`)"
    )
    parser.add_argument("--task", default="", help="for a policy that takes one")
    parser.add_argument("--threads", type=count, default=1, help="of every way (default %(default)d)")
    parser.add_argument("--without-compile", action="store_true", help="leave torch.compile out")
    options.add_plan(parser)
    options.add_common(parser)


def run(args: argparse.Namespace) -> int:
    if not args.lerobot.is_file():
        raise InputError(f"--lerobot {args.lerobot}: no such Python; `make lerobot-fixtures` makes the environment")
    settings = {"threads": args.threads, "folder": args.folder.name}
    recording, plan = Recording("lerobot-speed", settings, args.quick), options.plan_of(args)
    plan = replace(plan, warm_up=min(plan.warm_up, max(1, plan.calls // 5)))  # a large policy takes seconds
    ours = {bundle.manifest.precision: Ours(bundle, args) for bundle in map(options.bundle_to_time, args.bundle)}
    if "fp32" not in ours:
        raise InputError("--bundle: name the one in FP32 too; LeRobot's answer is compared with its")
    for label, one in ours.items():
        recording.used(label, one.bundle)
    with tempfile.TemporaryDirectory(prefix="vla-edge-bench-") as scratch, ExitStack() as opened:
        seen = Path(scratch) / "observation.npz"
        np.savez(seen, **ours["fp32"].observation())
        theirs = {EAGER: opened.enter_context(lerobot(args, seen, compiled=False))}
        theirs[EAGER].run()
        goals = theirs[EAGER].goals(Path(scratch) / "goals.npy")
        agreement = {label: one.differs(goals) for label, one in ours.items()}
        if not agreement["fp32"] <= OF_RANGE:
            raise InputError(
                f"{args.bundle[0]}: its goals are {agreement['fp32']:.1e} of an axis's range from LeRobot's, and at "
                f"most {OF_RANGE:g} is allowed; export this very folder again"
            )
        if args.without_compile:
            recording.leave_out(COMPILED, "asked to leave it out")
        else:
            compile_into(theirs, args, seen, opened, recording)
        timed = _timed(theirs, ours, args, plan)
    floors = {label: one.cost for label, one in ours.items()}
    recording.body = body(timed, floors, agreement, args.threads)
    print("\n".join(lines(recording.body)))
    options.finish(args, recording)
    return 0


class Ours:
    """A bundle, and one observation for it: random frames and noise, the arm at home."""

    def __init__(self, bundle: Bundle, args: argparse.Namespace) -> None:
        manifest, (spec,) = bundle.manifest, bundle.manifest.arms
        arm = load_arm(spec.name)
        driver = GraphPolicies(args.task, args.threads)
        driver.check(bundle, arm)
        if manifest.policy.observations != 1 or manifest.continues:
            raise InputError(f"{bundle.path}: only policies that see one observation and give goals are timed here")
        self.bundle, self._spec, self._task = bundle, spec, args.task
        self._engines: dict[str, Engine] = open_engines(bundle, DEFAULT_ENGINE, args.threads)
        self._policy = GraphPolicy(bundle, spec, arm, self._engines, driver.prompter(bundle))
        draw, home, nothing = np.random.default_rng(args.seed), np.array([arm.home_rad]), np.zeros((0, arm.dof))
        frames = [draw.integers(0, 256, (*camera.frame_px, 3), dtype=np.uint8) for camera in manifest.cameras]
        self._seen = PolicyInput(
            frames, nothing, nothing, np.zeros(0, np.bool_), nothing, SEED, 0, home, home.repeat(2, axis=0)[:1]
        )
        self._policy.infer(self._seen)

    def chunk(self) -> object:
        return self._policy.infer(self._seen)

    def observation(self) -> dict[str, Any]:
        """The same for LeRobot, by its own keys: what the last chunk has put into the engines."""
        graph = self.bundle.manifest.graph
        held: dict[str, Any] = {
            camera.source: frame for camera, frame in zip(self.bundle.manifest.cameras, self._seen.frames)
        }
        for port, feed in graph.feeds.items():
            engine, _, name = port.partition(".")
            array = self._engines[engine].inputs[name]
            if feed.kind == "state":
                held["observation.state"] = array.reshape(-1).copy()
            elif feed.kind == "normal":
                held["noise"] = array.reshape(array.shape[-2:]).copy()
        return held | {"task": self._task}

    def differs(self, goals: NDArray[np.float32]) -> float:
        """The largest difference of any axis from LeRobot's goals (rows, columns), as a part of its range."""
        engine, _, name = self.bundle.manifest.graph.result.partition(".")
        made = self._engines[engine].outputs[name]
        columns = list(Axes(self._spec, load_arm(self._spec.name)).actions.columns)
        off = np.abs(made.reshape(made.shape[-2:]) - goals)[:, columns].max(axis=0)
        training = self._spec.training
        assert training is not None and training.action_max is not None and training.action_min is not None
        return float((off / (np.array(training.action_max) - np.array(training.action_min))).max())

    @property
    def cost(self) -> list[GraphCost]:
        """What each engine has to do."""
        return [count_file(self.bundle.file(spec.file)) for spec in self.bundle.manifest.engines.values()]


@dataclass(frozen=True)
class Theirs:
    """LeRobot in a process of its own."""

    process: subprocess.Popen[str]

    def ask(self, line: str) -> str:
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(f"{line}\n")
            self.process.stdin.flush()
        except OSError:
            pass  # it has ended, which its silence says
        answer = self.process.stdout.readline().strip()
        if not answer:
            raise InputError("LeRobot's process has ended; what it said stands above")
        return answer

    def run(self) -> object:
        return self.ask("run")

    def goals(self, path: Path) -> NDArray[np.float32]:
        """Of the last chunk, (rows, columns), in the robot's units."""
        self.ask(f"save {path}")
        made: NDArray[np.float32] = np.load(path)
        return made


@contextmanager
def lerobot(args: argparse.Namespace, seen: Path, compiled: bool) -> Iterator[Theirs]:
    """Opened, its first chunk not yet made. Raises `InputError`."""
    notify(f"opening {args.folder.name} in LeRobot{', compiled' if compiled else ''}")
    line = [str(args.lerobot), "-m", "tools.lerobot.timed", str(args.folder.resolve()), str(seen)]
    line += ["--threads", str(args.threads), *["--compile"] * compiled]
    process = subprocess.Popen(line, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        if process.stdout.readline().strip() != "ready":
            raise InputError(f"LeRobot could not open {args.folder}; what it said stands above")
        yield Theirs(process)
    finally:
        process.kill()
        process.wait()


def compile_into(
    theirs: dict[str, Theirs], args: argparse.Namespace, seen: Path, opened: ExitStack, recording: Recording
) -> None:
    """The compiled way too, after its first chunk, for which it compiles; left out where it cannot."""
    try:
        compiled = opened.enter_context(lerobot(args, seen, compiled=True))
        notify("torch.compile is at work")
        compiled.run()
    except InputError as error:
        recording.leave_out(COMPILED, str(error))
    else:
        theirs[COMPILED] = compiled


def _timed(theirs: dict[str, Theirs], ours: dict[str, Ours], args: argparse.Namespace, plan: Plan) -> dict[str, Any]:
    def way(run: Run) -> Callable[[], Run]:
        return lambda: run

    openers = {name: way(one.run) for name, one in theirs.items()}
    openers |= {label: way(one.chunk) for label, one in ours.items()}
    openers |= {name: way(peak_run(precision, args.threads)[0]) for precision, name in ROOF.items()}
    openers[STREAM] = way(stream_run())
    notify(f"taking turns: {', '.join(openers)}")
    with tqdm(unit="round", disable=None, leave=False) as bar:
        timings = take_turns(openers, plan, EAGER, step=bar.update, seed=args.seed)
    return group("a chunk", BOUNDARY, timings, plan, args.seed, EAGER)


def body(
    timed: dict[str, Any], costs: dict[str, list[GraphCost]], agreement: dict[str, float], threads: int
) -> dict[str, Any]:
    """Every way with its ratio to eager LeRobot; the roof, and what each bundle could take at least at it."""
    ways = timed["ways"]
    peak = {
        precision: peak_run(precision, threads)[1] / (ways[name]["p50_ms"] / 1e3) for precision, name in ROOF.items()
    }
    roof = CpuRoof(threads, STREAM_BYTES / (ways[STREAM]["p50_ms"] / 1e3), peak, {}, {})
    floors = {label: 1e3 * sum(map(roof.floor_s, engines)) for label, engines in costs.items()}
    work = {label: sum(engine.operations for engine in engines) for label, engines in costs.items()}
    return {
        "group": timed,
        "agreement_of_range": agreement,
        "roof": {"stream_bytes_s": roof.stream_bytes_s, "peak_ops_s": peak},
        "floor_ms": floors,
        "operations": work,
    }
