"""The manifest of a bundle, format 2: a policy as a list of engines, how their ports are fed, what its numbers mean.

Each class is a table of the JSON document, and its annotations are the bounds to which the reader holds it.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

from firmware_bridge.codes import MICRO
from firmware_bridge.constants import MAX_SPACING_US, MIN_SPACING_US
from firmware_bridge.reading import Between, Name, Sized

BUNDLE_FORMAT = 2
ACTION_PRIOR = "action_prior"
"""The project's own policy family."""
REMOTE = "remote"
"""The precision of a policy that another machine computes."""
MANIFEST, VERIFICATION, TOKENIZER = "manifest.json", "verification.json", "tokenizer.json"
REFERENCE = "reference.npz"
"""A few observations with FP32 torch's answers, for whoever builds engines from the bundle."""

Port = Annotated[str, Sized(1, 160)]
"""An input or output of an engine, `ENGINE.TENSOR`."""
Label = Annotated[str, Sized(0, 256)]
Sha256 = Annotated[str, Sized(64, 64)]
Count = Annotated[int, Between(0, 4096)]
Column = Annotated[int, Between(0, 4095)]
Pixels = Annotated[int, Between(1, 8192)]
Scale = Annotated[float, Between(-1e9, 1e9)]
Row = Annotated[tuple[Scale, ...], Sized(0, 4096)]
Unit = Literal["arm", "rad", "m", "deg", "percent", "plus_minus_100"]
"""Of a number: as the arm has it, whatever that is; rad, m, degrees; the joint's travel as 0 to 100 or -100 to 100."""
Dtype = Literal["float16", "float32", "float64", "uint8", "int32", "int64", "bool"]
ActionKind = Literal["position", "increment", "position_relative_to_state"]
FeedKind = Literal[
    "frame",
    "frames",
    "state",
    "commanded",
    "state_history",
    "action_history",
    "history_mask",
    "has_history",
    "tokens",
    "token_mask",
    "normal",
    "committed_goals",
    "committed_mask",
    "prefix_weights",
    "constant",
]
OPTIONS: dict[str, tuple[str, ...]] = {
    "frame": ("camera",),
    "normal": ("scale", "axes_only"),
    "prefix_weights": ("decay",),
    "constant": ("name",),
}
"""What a feed of a kind may say beside its kind; of the others nothing."""


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of an engine: numpy name of its type, and its static shape."""

    name: Annotated[str, Sized(1, 96)]
    dtype: Dtype
    shape: Annotated[tuple[Annotated[int, Between(1, 1 << 28)], ...], Sized(0, 8)]

    def __post_init__(self) -> None:
        if math.prod(self.shape) > 1 << 31:
            raise ValueError(f"tensor '{self.name}' has more than 2^31 numbers")


@dataclass(frozen=True)
class EngineSpec:
    """One engine: its file, what goes in and out, and the further files that hold its weights."""

    file: Name
    inputs: Annotated[tuple[TensorSpec, ...], Sized(0, 512)]
    outputs: Annotated[tuple[TensorSpec, ...], Sized(1, 512)]
    weights: Annotated[tuple[Name, ...], Sized(0, 1024)] = ()

    @property
    def files(self) -> tuple[str, ...]:
        """Every file that the engine opens."""
        return (self.file, *self.weights)


@dataclass(frozen=True)
class Feed:
    """What fills an input of an engine that no link does, before each chunk.

    frame            the image of `camera`, uint8 (H, W, 3); of several observations (n, H, W, 3), the newest last
    frames           the images of all cameras, uint8 (cameras, H, W, 3)
    state            measured positions in the policy's units, each in its axis's column: (columns) or (n, columns)
    commanded        where the joints are commanded to be at the observed step, in the same units (columns)
    state_history    those at the last `history` steps (history, columns); `action_history` the actions of these steps
    history_mask     bool (history), the rows that hold a pair; `has_history` bool (), whether any does
    tokens           the prompt's token ids (budget); `token_mask` bool (budget), which of them count
    normal           `scale` times standard normal numbers of the run's seed; with `axes_only` 0 in columns of no axis
    committed_goals  the actions of the steps that are committed (horizon, columns), 0 behind them
    committed_mask   bool (horizon), the rows that are
    prefix_weights   (horizon), 1 for what is committed until this chunk arrives, falling to 0 at the end of the plan
    constant         the arm's constant of that name
    """

    kind: FeedKind
    camera: Label = ""
    scale: Annotated[float, Between(0, 1e3)] = 1.0
    axes_only: bool = False
    decay: Literal["linear", "exponential"] = "linear"
    name: Label = ""

    def __post_init__(self) -> None:
        for option, value in self.options().items():
            if option not in OPTIONS.get(self.kind, ()):
                raise ValueError(f"a feed of kind {self.kind} has no '{option}'")
            if value == "":
                raise ValueError(f"a feed of kind {self.kind} needs '{option}'")

    def options(self) -> dict[str, Any]:
        """What is said beside the kind, and differs from the default or has to be said."""
        usual = {"camera": "", "scale": 1.0, "axes_only": False, "decay": "linear", "name": ""}
        said = {name: getattr(self, name) for name, default in usual.items() if getattr(self, name) != default}
        return said | {name: getattr(self, name) for name in OPTIONS.get(self.kind, ()) if usual[name] == ""}

    def to_plain(self) -> dict[str, Any]:
        return {"kind": self.kind, **self.options()}


@dataclass(frozen=True)
class GraphSpec:
    """The engines in the order in which they run, and where each of their inputs comes from.

    links   (output, input): one engine's output buffer is a later one's input
    feeds   of every other input
    result  the output that holds the chunk (horizon, columns)
    """

    engines: Annotated[dict[Name, EngineSpec], Sized(0, 16)]
    links: Annotated[tuple[tuple[Port, Port], ...], Sized(0, 2048)]
    feeds: Annotated[dict[Port, Feed], Sized(0, 2048)]
    result: Port


@dataclass(frozen=True)
class PolicySpec:
    """Sizes, in steps.

    horizon          rows of the result
    history          of the state and action histories; 0 without
    observations     frames and states of one observation: 2 is the present step and the one before it
    execute          of a chunk, before the next is requested
    first_goal_step  the step at whose beginning row 0 of the result is due, counted from the observed one: 0 or 1
    prefix           how the policy continues what is committed: not at all, keeping it, or guided towards it
    max_delay        longest committed prefix it was trained with; None for any
    """

    family: Name
    horizon: Annotated[int, Between(1, 1024)]
    precision: Label = "fp32"
    source: Label = ""
    history: Annotated[int, Between(0, 1024)] = 0
    observations: Annotated[int, Between(1, 16)] = 1
    execute: Annotated[int, Between(1, 1024)] = 1
    first_goal_step: Annotated[int, Between(0, 1)] = 1
    prefix: Literal["none", "frozen", "guided"] = "none"
    max_delay: Annotated[int, Between(0, 1024)] | None = None

    def __post_init__(self) -> None:
        if self.horizon <= self.execute + (self.first_goal_step == 0):
            raise ValueError(f"{self.execute} steps to execute leave nothing of a horizon of {self.horizon}")


@dataclass(frozen=True)
class CameraSpec:
    """One camera, in the order of `frames`: the size that the policy was trained on, and what may be done to reach it.

    exact  nothing: the camera delivers that size
    crop   cut around the centre to its aspect, then reduced
    """

    name: Name
    height: Pixels
    width: Pixels
    fit: Literal["exact", "crop"] = "exact"
    source: Label = ""

    def __post_init__(self) -> None:
        if not all(part.isalnum() for part in self.name.replace("-", "_").split("_")):
            raise ValueError(f"a camera's name is letters, digits, - and _, not '{self.name}'")

    @property
    def frame_px(self) -> tuple[int, int]:
        return self.height, self.width


@dataclass(frozen=True)
class StateNumber:
    """A joint's position for the engines: `(position in unit - offset) / scale`, in that column."""

    column: Column
    unit: Unit = "rad"
    offset: Scale = 0.0
    scale: Scale = 1.0


@dataclass(frozen=True)
class ActionNumber:
    """A joint's action from the engines: `column * scale + offset`, in that unit and of that kind."""

    column: Column
    kind: ActionKind = "position"
    unit: Unit = "rad"
    offset: Scale = 0.0
    scale: Scale = 1.0


@dataclass(frozen=True)
class AxisSpec:
    """One joint of the arm. `travel` is what 0 and 100 % are, in the arm's unit; None for the profile's stops."""

    joint: Name
    state: StateNumber
    action: ActionNumber
    source: Label = ""
    travel: tuple[Scale, Scale] | None = None

    def __post_init__(self) -> None:
        if not (self.state.scale and self.action.scale):
            raise ValueError(f"joint '{self.joint}' has a scale of 0")
        if self.travel is not None and not self.travel[0] < self.travel[1]:
            raise ValueError(f"the travel of joint '{self.joint}' does not rise")


@dataclass(frozen=True)
class Training:
    """Statistics of the training data, one number per axis in the policy's units; what is not known is empty."""

    state_mean: Row = ()
    state_spread: Row = ()
    state_min: Row = ()
    state_max: Row = ()
    action_min: Row = ()
    action_max: Row = ()
    velocity_q99: Row = ()
    acceleration_q99: Row = ()


@dataclass(frozen=True)
class ArmSpec:
    """How one arm maps to the policy. `name` is the embodiment that a profile names, `constants` fill feeds."""

    name: Name
    step_s: Annotated[float, Between(MIN_SPACING_US * MICRO, MAX_SPACING_US * MICRO)]
    axes: Annotated[tuple[AxisSpec, ...], Sized(1, 128)]
    constants: dict[Name, Row] = field(default_factory=dict)
    training: Training = Training()
    source: Label = ""

    def __post_init__(self) -> None:
        for what, found in (
            ("joint", [axis.joint for axis in self.axes]),
            ("state column", [axis.state.column for axis in self.axes]),
            ("action column", [axis.action.column for axis in self.axes]),
        ):
            if len(set(found)) != len(found):
                raise ValueError(f"two axes of '{self.name}' have the same {what}")
        for name, row in asdict(self.training).items():
            if row and len(row) != len(self.axes):
                raise ValueError(f"'{self.name}' has {len(self.axes)} axes and {len(row)} numbers in {name}")

    @property
    def joints(self) -> tuple[str, ...]:
        return tuple(axis.joint for axis in self.axes)


@dataclass(frozen=True)
class StateBins:
    """How positions become words of the prompt: `(state column - offset) / scale` in so many bins from -1 to 1."""

    count: Annotated[int, Between(2, 65536)]
    offset: Row
    scale: Row

    def __post_init__(self) -> None:
        if not self.offset or len(self.offset) != len(self.scale) or not all(self.scale):
            raise ValueError("state_bins need an offset and a scale other than 0 for each column of the state")


PUNCTUATION = ".,;:!?\"'()[]{}\u2019\u201c\u201d\u2026"
"""What stands around a word of a task and is not part of it."""


def worded(task: str, clean: bool, plain: bool) -> str:
    """A task as the policy read tasks in training; `TextSpec` says how."""
    if plain:
        task = "".join(letter for letter in task.lower() if letter.isalnum() or letter.isspace() or letter == "_")
    return task.strip().replace("_", " ").replace("\n", " ") if clean else task


@dataclass(frozen=True)
class TextSpec:
    """How a task becomes tokens.

    template    of the prompt, from {task}, {state} and {newline}
    clean       whether spaces around the task are cut, and its underscores and ends of line become spaces
    plain       whether the task becomes lower case and loses what is no letter, digit, space or underscore
    special     whether the tokenizer adds its special tokens
    pad         the token behind the prompt's last
    state_bins  what {state} is made of, for every chunk anew
    task        what to do when nobody says it; empty where somebody has to
    """

    tokenizer: Name
    budget: Annotated[int, Between(1, 8192)]
    template: Annotated[str, Sized(1, 1024)] = "{task}"
    clean: bool = False
    plain: bool = False
    special: bool = False
    pad: Annotated[int, Between(0, 1 << 31)] = 0
    state_bins: StateBins | None = None
    task: Label = ""

    def __post_init__(self) -> None:
        if "{task}" not in self.template or ("{state}" in self.template) != (self.state_bins is not None):
            raise ValueError("the template needs {task}, and {state} exactly where there are state_bins")


@dataclass(frozen=True)
class ChunkShape:
    """What control has to know of a source of chunks, in steps: the length of a chunk with its committed prefix, the
    pairs of history in a request, and the longest committed prefix. `measured` positions are in a request, and with
    them the commanded ones; 0 for a source that needs neither.
    """

    horizon: int
    history: int
    max_delay: int
    measured: int = 0


@dataclass(frozen=True)
class Manifest:
    """Everything the runtime knows about a bundle. `files` maps every file to its SHA-256."""

    policy: PolicySpec
    graph: GraphSpec
    cameras: Annotated[tuple[CameraSpec, ...], Sized(0, 16)]
    arms: Annotated[tuple[ArmSpec, ...], Sized(0, 64)]
    checkpoint_sha256: Sha256
    created_by: Label
    files: Annotated[dict[Name, Sha256], Sized(0, 4096)]
    text: TextSpec | None = None
    format: Literal[2] = 2

    @property
    def engines(self) -> dict[str, EngineSpec]:
        return self.graph.engines

    @property
    def family(self) -> str:
        return self.policy.family

    @property
    def precision(self) -> str:
        return self.policy.precision

    @property
    def follows_text(self) -> bool:
        """Whether the policy takes an instruction; one on another machine may."""
        return self.text is not None or self.precision == REMOTE

    @property
    def continues(self) -> bool:
        """Whether chunks are increments that continue what is committed, rather than goals: every axis has increments,
        and the policy keeps its prefix."""
        increments = all(axis.action.kind == "increment" for arm in self.arms for axis in arm.axes)
        return increments and self.policy.prefix == "frozen"

    @property
    def shape(self) -> ChunkShape:
        """What control needs. A chunk whose row 0 is due at once is one step shorter."""
        policy = self.policy
        horizon = policy.horizon - (policy.first_goal_step == 0)
        looks = any(feed.kind in ("state", "commanded") for feed in self.graph.feeds.values())
        max_delay = horizon - 1 if policy.max_delay is None else min(policy.max_delay, horizon - 1)
        return ChunkShape(horizon, policy.history, max_delay, policy.observations if looks or not self.continues else 0)

    def to_json(self) -> str:
        document = asdict(self)
        document["graph"]["feeds"] = {port: feed.to_plain() for port, feed in self.graph.feeds.items()}
        return json.dumps({"format": document.pop("format"), **document}, indent=2) + "\n"
