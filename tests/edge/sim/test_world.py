"""The scene around an arm that is simulated elsewhere: published, read, drawn and judged."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from edge.cameras import open_camera
from edge.errors import InputError
from edge.log.recorder import Recorder
from edge.run.workcell import Workcell
from edge.sim.bench import DrawnBench
from edge.sim.scene import Placement
from edge.sim.scenes import picture
from edge.sim.world import SEQUENCE, WorldReader, WorldWriter
from firmware_bridge.codes import MAX_JOINTS
from lab.experts.reach_expert import InverseKinematics
from tests.support import FRANKA, HOME


def test_what_is_published_is_read(tmp_path: Path) -> None:
    writer = WorldWriter(tmp_path / "world", 7)
    writer.publish(1000, [0.5] * 7, HOME)
    reader = WorldReader(tmp_path / "world")
    assert (reader.position() == HOME).all()
    record = reader.snapshot()[0]
    assert (record["tick_us"], record["joints"], record["sequence"]) == (1000, 7, 2)
    assert record["set_point"].tolist() == [0.5] * 7 + [0.0] * (MAX_JOINTS - 7)
    writer.close()


def test_a_writer_that_died_in_mid_write_is_noticed(tmp_path: Path) -> None:
    writer = WorldWriter(tmp_path / "world", 7)
    writer.publish(1000, HOME, HOME)
    reader = WorldReader(tmp_path / "world")
    SEQUENCE.pack_into(writer._map, 0, 3)
    with pytest.raises(InputError, match="not being written any more"):
        reader.position()
    writer.close()


def test_the_camera_sees_the_arm_where_the_adapter_says_it_is(tmp_path: Path) -> None:
    bench = DrawnBench(FRANKA, 0, tmp_path)
    writer = WorldWriter(bench.world_file, 7)
    writer.publish(1000, HOME, HOME)
    camera = open_camera(bench.camera_url, (128, 128))
    at_home = camera.grab().image
    assert (at_home == picture(bench.scene, tuple(HOME), 128)).all()
    writer.publish(2000, HOME, HOME + 0.2)
    assert np.abs(camera.grab().image.astype(int) - at_home).max() > 50
    camera.close()
    writer.close()


def test_the_run_is_judged_at_the_published_pose(tmp_path: Path) -> None:
    bench = DrawnBench(FRANKA, 3, tmp_path)
    writer = WorldWriter(bench.world_file, 7)
    writer.publish(1000, HOME, HOME)
    far = bench.verdict("reach the blue cube", Recorder(1, 7).samples())
    pose = InverseKinematics(bench.scene.model, HOME).solve(Placement.sample(np.random.default_rng(3)).goal_m("blue"))
    writer.publish(2000, HOME, pose)
    near = bench.verdict("reach the blue cube", Recorder(1, 7).samples())
    assert far is not None and not far.success and near is not None and near.success
    writer.close()


@pytest.mark.parametrize(
    ("bridge", "camera", "drawn"),
    [
        ("fci:127.0.0.1", (), True),
        ("fci:127.0.0.1", ("sim:?stall_after=3&for=0.5",), True),
        ("fci:127.0.0.1", ("pattern:",), False),
        ("fci:172.16.0.2", (), False),
        ("fci:172.16.0.2", ("sim:",), False),
        ("serial:/dev/ttyACM0", (), False),
    ],
)
def test_only_an_arm_that_is_simulated_is_drawn(bridge: str, camera: tuple[str, ...], drawn: bool) -> None:
    with closing(Workcell(FRANKA, bridge, cameras=camera)) as cell:
        if drawn or camera:
            assert any(url.startswith("sim:/") for url in cell.cameras(("camera",))) is drawn
        else:
            with pytest.raises(InputError, match="no --camera for 'camera'; give --camera camera=URL"):
                cell.cameras(("camera",))
