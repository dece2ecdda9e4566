"""What a controller was made from, as the record with which a log's replay makes it again."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, TypeAlias

from edge.inference.layout import pack_plain
from edge.plan.ensemble import MOST_CHUNKS
from edge.run.controller import Controller
from firmware_bridge.codes import MAX_JOINTS
from firmware_bridge.reading import Between, Name, ReadError, Sized, typed

Row: TypeAlias = Annotated[tuple[float, ...], Sized(1, MAX_JOINTS)]
PositiveRow: TypeAlias = Annotated[tuple[Annotated[float, Between(1e-9, 1e3)], ...], Sized(1, MAX_JOINTS)]
Axis: TypeAlias = Annotated[int, Between(0, MAX_JOINTS - 1)]
Steps: TypeAlias = Annotated[int, Between(0, 1024)]
MOST_US = 3600e6


def pack_controller(
    controller: Controller, step_s: float, latency_us: int, shape: dict[str, Any] | None = None
) -> bytes:
    """Arm, shape and settings, and the first latency it was told; `shape` as an older log has it.

    An arm without bounds for goals is written as it was before there were any, so that such logs still compare; so are
    the settings of a run that averages no chunks; one gripper is a number, none is nothing. Where the arm's stops and
    its links are decides nothing, nor what it is made of.
    """
    settings = asdict(controller.settings)
    if controller.settings.ensemble == 1:
        del settings["ensemble"]
    arm = {name: value for name, value in asdict(controller.arm).items() if name != "goals" or value is not None}
    del arm["travel"], arm["frames"], arm["parts"]
    one_or_none = next(iter(controller.arm.grippers), None)
    arm["grippers"] = one_or_none if len(controller.arm.grippers) < 2 else arm["grippers"]
    arm = {"gripper" if name == "grippers" else name: value for name, value in arm.items()}
    return pack_plain(
        {
            "arm": arm,
            "shape": shape or asdict(controller.shape),
            "settings": settings,
            "step_s": step_s,
            "latency_us": latency_us,
        }
    )


@dataclass(frozen=True)
class _Limits:
    position_min_rad: Row
    position_max_rad: Row
    velocity_rad_s: Row
    acceleration_rad_s2: Row
    jerk_rad_s3: Row


@dataclass(frozen=True)
class _Edges:
    offset_rad_s: Row
    slope_rad_s2: Row
    low_rad: Row
    high_rad: Row


@dataclass(frozen=True)
class _Goals:
    deviation_rad: PositiveRow
    beyond_rad: PositiveRow
    start_rad: PositiveRow


@dataclass(frozen=True)
class _Arm:
    name: Name
    model: str
    embodiment: Name
    joints: Annotated[tuple[Name, ...], Sized(1, MAX_JOINTS)]
    home_rad: Row
    limits: _Limits
    operating: _Limits
    following_rad: Row
    edges: _Edges | None
    units: Annotated[tuple[Literal["rad", "m"], ...], Sized(1, MAX_JOINTS)]
    gripper: Axis | Annotated[tuple[Axis, ...], Sized(2, MAX_JOINTS)] | None
    goals: _Goals | None = None


@dataclass(frozen=True)
class _Shape:
    horizon: Annotated[int, Between(1, 1024)]
    history: Steps
    max_delay: Steps
    measured: Steps = 0


@dataclass(frozen=True)
class _Settings:
    execute_steps: Annotated[int, Between(1, 1024)]
    lead_us: Annotated[int, Between(0, MOST_US)]
    ensemble: Annotated[int, Between(1, MOST_CHUNKS)] = 1


@dataclass(frozen=True)
class _MadeFrom:
    """The record's entries that decide how much is allocated and computed."""

    arm: _Arm
    shape: _Shape
    settings: _Settings
    step_s: Annotated[float, Between(1e-3, 10)]
    latency_us: Annotated[int, Between(0, MOST_US)]


def check_controller(plain: dict[str, Any]) -> None:
    """Raises `ReadError` for a record that no run has written: types and bounds before anything is made of it."""
    arm = typed(_MadeFrom, plain, extra=True).arm
    rows = [arm.home_rad, arm.following_rad, arm.units]
    for table in (arm.limits, arm.operating, arm.edges, arm.goals):
        rows += asdict(table).values() if table is not None else []
    if any(len(row) != len(arm.joints) for row in rows):
        raise ReadError(f"arm: a row has not {len(arm.joints)} numbers, one per joint")
