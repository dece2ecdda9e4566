"""A bundle of somebody else's policy, by hand: two engines, cameras and observations, goals in degrees and percent.

It moves every joint a share of the way from where it is to `TARGET`, so that it comes to rest there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge.arms import load_arm
from edge.bundle import (
    VERIFICATION,
    ActionNumber,
    ArmSpec,
    AxisSpec,
    CameraSpec,
    EngineSpec,
    Feed,
    GraphSpec,
    Manifest,
    PolicySpec,
    StateNumber,
    TensorSpec,
    Training,
    sha256,
)
from edge.bundle.manifest import ActionKind, Unit

SO101 = load_arm("so101")
HORIZON, STEP_S, JOINTS = 30, 1 / 30, SO101.dof
TARGET = np.array([12.0, -40.0, 40.0, 55.0, -8.0, 60.0])
"""Degrees, and percent of the gripper's travel."""
BRIGHT = 1e-3
"""What a grey level moves: the change of the front camera the first joint, the wrist camera the second one."""
UNITS: tuple[Unit, ...] = ("deg",) * 5 + ("percent",)
FRONT_PX, WRIST_PX = (48, 64), (40, 40)


def shares_of(horizon: int) -> np.ndarray:
    """Of the way to the target at the end of each step, (horizon,)."""
    return 0.5 * (1 - np.exp(-(np.arange(horizon) + 1) / 20))


def write_foreign(
    folder: Path,
    kind: ActionKind = "position",
    noise: float = 0.0,
    target: np.ndarray = TARGET,
    at_once: bool = False,
    horizon: int = HORIZON,
) -> Path:
    """Writes the bundle; `noise` is what the decoder adds of its noise, `at_once` has all goals at the target."""
    folder.mkdir()
    shares = np.ones(horizon) if at_once else shares_of(horizon)
    engines = {"backbone": _backbone(folder), "decoder": _decoder(folder, kind, noise, target, shares)}
    (folder / VERIFICATION).write_text(json.dumps({"passed": True}))
    axes = tuple(
        AxisSpec(joint, StateNumber(index, UNITS[index]), ActionNumber(index, kind, UNITS[index]), f"{joint}.pos")
        for index, joint in enumerate(SO101.joints)
    )
    manifest = Manifest(
        policy=PolicySpec("foreign", horizon, observations=2, execute=10),
        graph=GraphSpec(
            engines,
            (("backbone.features", "decoder.features"),),
            {
                "backbone.front": Feed("frame", camera="front"),
                "backbone.wrist": Feed("frame", camera="wrist"),
                "backbone.state": Feed("state"),
                "decoder.noise": Feed("normal"),
            },
            "decoder.chunk",
        ),
        cameras=(CameraSpec("front", *FRONT_PX), CameraSpec("wrist", *WRIST_PX)),
        arms=(ArmSpec("so101", STEP_S, axes, training=Training()),),
        checkpoint_sha256="0" * 64,
        created_by="tests",
        files={path.name: sha256(path) for path in sorted(folder.iterdir())},
    )
    (folder / "manifest.json").write_text(manifest.to_json())
    return folder


def _backbone(folder: Path) -> EngineSpec:
    """features (1, 8): the newest state, how much brighter the front has become, how bright the wrist is."""
    constants = {"order": np.array([[-1.0], [1.0]], np.float32), "newest": np.array([1], np.int64)}
    nodes = [
        helper.make_node("Cast", ["front"], ["front_f"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["front_f"], ["front_mean"], axes=[2, 3, 4], keepdims=0),
        helper.make_node("MatMul", ["front_mean", "order"], ["brighter"]),
        helper.make_node("Cast", ["wrist"], ["wrist_f"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["wrist_f"], ["bright"], axes=[2, 3, 4], keepdims=0),
        helper.make_node("Gather", ["bright", "newest"], ["wrist_mean"], axis=1),
        helper.make_node("Gather", ["state", "newest"], ["now"], axis=0),
        helper.make_node("Concat", ["now", "brighter", "wrist_mean"], ["features"], axis=1),
    ]
    inputs: dict[str, tuple[int, Any, tuple[int, ...]]] = {
        "front": (TensorProto.UINT8, "uint8", (1, 2, *FRONT_PX, 3)),
        "wrist": (TensorProto.UINT8, "uint8", (1, 2, *WRIST_PX, 3)),
        "state": (TensorProto.FLOAT, "float32", (2, JOINTS)),
    }
    return _engine(folder, "backbone", nodes, constants, inputs, ("features", (1, JOINTS + 2)))


def _decoder(folder: Path, kind: ActionKind, noise: float, target: np.ndarray, shares: np.ndarray) -> EngineSpec:
    horizon = len(shares)
    if kind == "increment":
        shares = np.diff(shares, prepend=0.0)
    lamps = np.zeros((2, JOINTS), np.float32)
    lamps[0, 0] = lamps[1, 1] = BRIGHT
    constants = {
        "shares": shares[:, None].astype(np.float32),
        "ones": np.ones((horizon, 1), np.float32),
        "target": target[None].astype(np.float32),
        "lamps": lamps,
        "scale": np.array(noise, np.float32),
        "split": np.array([JOINTS, 2], np.int64),
    }
    base = ["moved"] if kind != "position" else ["moved", "now"]
    nodes = [
        helper.make_node("Split", ["features", "split"], ["now", "seen"], axis=1),
        helper.make_node("Sub", ["target", "now"], ["away"]),
        helper.make_node("MatMul", ["shares", "away"], ["moved"]),
        helper.make_node("MatMul", ["seen", "lamps"], ["lit"]),
        helper.make_node("MatMul", ["ones", "lit"], ["light"]),
        helper.make_node("Mul", ["noise", "scale"], ["drawn"]),
        helper.make_node("Sum", [*base, "light"], ["clean"]),
        helper.make_node("Add", ["clean", "drawn"], ["chunk"]),
    ]
    inputs: dict[str, tuple[int, Any, tuple[int, ...]]] = {
        "features": (TensorProto.FLOAT, "float32", (1, JOINTS + 2)),
        "noise": (TensorProto.FLOAT, "float32", (1, horizon, JOINTS)),
    }
    return _engine(folder, "decoder", nodes, constants, inputs, ("chunk", (1, horizon, JOINTS)))


def _engine(
    folder: Path,
    name: str,
    nodes: list[Any],
    constants: dict[str, Any],
    inputs: dict[str, tuple[int, Any, tuple[int, ...]]],
    output: tuple[str, tuple[int, ...]],
) -> EngineSpec:
    given = [helper.make_tensor_value_info(one, code, shape) for one, (code, _, shape) in inputs.items()]
    made = [helper.make_tensor_value_info(output[0], TensorProto.FLOAT, output[1])]
    weights = [numpy_helper.from_array(value, one) for one, value in constants.items()]
    model = helper.make_model(helper.make_graph(nodes, name, given, made, weights))
    model.opset_import[0].version, model.ir_version = 13, 9
    onnx.save(model, folder / f"{name}.onnx")
    specs = tuple(TensorSpec(one, dtype, shape) for one, (_, dtype, shape) in inputs.items())
    return EngineSpec(f"{name}.onnx", specs, (TensorSpec(output[0], "float32", output[1]),))
