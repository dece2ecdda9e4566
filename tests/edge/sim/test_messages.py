"""MuJoCo warns on the terminal, and leaves no file in the current folder, in any process that loads it."""

from __future__ import annotations

import ast
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edge.sim.library import mujoco, save_model
from edge.sim.scenes import open_scene
from edge.sim.world import MODEL_FILE, WORLD, WORLD_FILE
from firmware_bridge.simulator import SimulatedArm, SimulatorProcess
from tests.support import FRANKA

ROOT = Path(__file__).resolve().parents[3]
WARNS = """
from edge.sim.library import mujoco
spec = mujoco.MjSpec()
body = spec.worldbody.add_body()
body.add_freejoint()
body.add_geom(size=[1, 1, 1])
model = spec.compile()
data = mujoco.MjData(model)
data.qpos[0] = float("nan")
mujoco.mj_step(model, data)
"""


def test_a_warning_in_python_leaves_no_file(tmp_path: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-c", WARNS], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert told.returncode == 0 and "QPOS" in told.stdout + told.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_warning_in_the_simulated_device_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    model, here = tmp_path / "model.mjb", tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    mujoco.mj_saveModel(unstable(len(FRANKA.joints)), str(model))
    device = SimulatorProcess(SimulatedArm("franka", FRANKA.home_rad, model))
    told, deadline_s = "", time.monotonic() + 20
    while "QACC" not in told and time.monotonic() < deadline_s:
        time.sleep(0.05)
        told += "".join(capfd.readouterr())
    device.close()
    assert "QACC" in told
    assert list(here.iterdir()) == []


SAVES = """
import sys
from pathlib import Path
from edge.arms import load_arm
from edge.errors import InputError
from edge.sim.library import save_model
from edge.sim.scenes import open_scene
scene = open_scene(load_arm("franka"), 0)
try:
    save_model(scene.model, Path(sys.argv[1]))
except InputError as error:
    print(error)
"""


@pytest.mark.parametrize("room", [0, 1000])
def test_a_scene_that_finds_no_room_is_one_line_and_no_warning(room: int, tmp_path: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-B", "-c", SAVES, str(tmp_path / MODEL_FILE)],  # Python would cut off what it compiles, too
        env={"PYTHONPATH": str(ROOT)},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, room)),
        capture_output=True,
        text=True,
    )
    assert told.returncode == 0 and told.stderr == ""
    assert told.stdout.startswith("the simulated scene cannot be written") and "TMPDIR" in told.stdout
    assert told.stdout.count("\n") == 1 and len(told.stdout) < 300


CAMERA = """
import sys
from pathlib import Path
from edge.errors import InputError
try:
    from edge.sim.render import SimulatedSource
    SimulatedSource(Path(sys.argv[1]), (64, 64))
except InputError as error:
    print(error)
"""
CANNOT_DRAW: dict[str, dict[str, str]] = {
    "no driver": {"__EGL_VENDOR_LIBRARY_DIRS": "HERE"},
    "no libEGL": {"LD_LIBRARY_PATH": "HERE"},
    "switched off": {"MUJOCO_GL": "off"},
    "a renderer that is not installed": {"MUJOCO_GL": "osmesa", "LD_LIBRARY_PATH": "HERE"},
    "a renderer that nobody knows": {"MUJOCO_GL": "vulkan"},
}


@pytest.mark.parametrize("why", CANNOT_DRAW)
def test_a_machine_that_cannot_draw_is_one_line(why: str, tmp_path: Path) -> None:
    for name in ("libEGL.so.1", "libOSMesa.so.8", "libOSMesa.so"):  # found first, and no libraries
        (tmp_path / name).touch()
    save_model(open_scene(FRANKA, 0).model, tmp_path / MODEL_FILE)
    (tmp_path / WORLD_FILE).write_bytes(bytes(WORLD.itemsize))
    environment = {name: value.replace("HERE", str(tmp_path)) for name, value in CANNOT_DRAW[why].items()}
    told = subprocess.run(
        [sys.executable, "-c", CAMERA, str(tmp_path)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
    )
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith(("nothing can be drawn on this machine (", "MuJoCo does not load")), told.stdout
    assert told.stdout.count("\n") == 1 and "MUJOCO_GL" in told.stdout and len(told.stdout) < 280


def test_without_a_renderer_there_is_still_physics(tmp_path: Path) -> None:
    (tmp_path / "libEGL.so.1").touch()
    environment = {"PYTHONPATH": str(ROOT), "LD_LIBRARY_PATH": str(tmp_path)}
    code = "from edge.sim.library import mujoco; mujoco.MjModel.from_xml_string('<mujoco/>')"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)


def unstable(joints: int) -> mujoco.MjModel:
    """An arm with springs far too stiff for its steps: MuJoCo warns at the first of them."""
    spec = mujoco.MjSpec()
    for index in range(joints):
        body = spec.worldbody.add_body(pos=[index, 0, 0])
        body.add_geom(size=[0.1, 0.1, 0.1])
        body.add_joint(name=f"joint{index}", stiffness=1e15, springref=90)
        spec.add_actuator(target=f"joint{index}", trntype=mujoco.mjtTrn.mjTRN_JOINT)
    return spec.compile()


def test_all_of_the_robots_side_takes_it_from_one_module() -> None:
    found = [
        str(path.relative_to(ROOT))
        for path in (ROOT / "edge").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import) and any(name.name.split(".")[0] == "mujoco" for name in node.names)
    ]
    assert found == ["edge/sim/library.py"]
