"""LeRobot's own tools, unmodified, on a simulated SO-101 through the plugin: `make lerobot-plugin`.

They run in an environment of their own (LeRobot needs Python 3.12); VLA_EDGE_LEROBOT names its Python. The plugin and a
leader arm that moves by itself are built and installed as distributions beside it, as LeRobot looks for them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edge
from edge.arms import load_arm

pytestmark = pytest.mark.slow  # imports LeRobot five times, and runs in real time: two minutes
PYTHON = os.environ.get("VLA_EDGE_LEROBOT", "")
needs_lerobot = pytest.mark.skipif(not PYTHON, reason="VLA_EDGE_LEROBOT names no Python; `make lerobot-plugin` does")
ROOT = Path(__file__).resolve().parents[2]
DISTRIBUTIONS = (
    *(ROOT / "plugins/lerobot_robot_vla_edge", ROOT / "plugins/lerobot_policy_vla_edge"),
    ROOT / "tests/plugins/lerobot_teleoperator_scripted",
)
FPS, EPISODES, EPISODE_S, WAVE_DEG = 30, 2, 4, 10.0
CAMERAS = ('--robot.edge_cameras={front: "pattern:", wrist: "pattern:"}', "--robot.frame_px=[64, 64]")
SMALL_ACT = (
    *("--policy.type=act", "--policy.pretrained_backbone_weights=null", "--policy.dim_model=32", "--policy.n_heads=4"),
    *("--policy.dim_feedforward=64", "--policy.n_encoder_layers=1", "--policy.n_vae_encoder_layers=1"),
    *("--policy.latent_dim=8", "--policy.chunk_size=20", "--policy.n_action_steps=10", "--policy.device=cpu"),
)


class LeRobot:
    """Its environment, with the two distributions in a folder that only these runs see."""

    def __init__(self, folder: Path) -> None:
        self.folder, site = folder, folder / "site"
        build = [PYTHON, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target", str(site)]
        copies = [
            shutil.copytree(path, folder / path.name) for path in DISTRIBUTIONS
        ]  # a build writes beside its source
        subprocess.run([*build, *map(str, copies)], check=True, timeout=600)
        self._environment = os.environ | {
            "PYTHONPATH": f"{site}{os.pathsep}{ROOT}",
            "HF_HOME": str(folder / "hf"),
            "HF_LEROBOT_HOME": str(folder / "lerobot"),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
        }
        self.dataset = ("--dataset.repo_id=tests/waves", f"--dataset.root={folder / 'dataset'}")

    def python(self, script: str, *arguments: str) -> str:
        done = subprocess.run(
            [PYTHON, "-c", script, *arguments], env=self._environment, capture_output=True, text=True, timeout=900
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    def tool(self, name: str, *arguments: str) -> None:
        self.python(f"from lerobot.scripts.lerobot_{name} import main; main()", *arguments)

    def robot(self, log: str) -> tuple[str, ...]:
        return ("--robot.type=vla_edge", "--robot.arm=so101", f"--robot.log={self.folder / log}", "--play_sounds=false")


SAME = """
import json, sys
import numpy as np, torch
from lerobot.configs import PreTrainedConfig
from lerobot.policies.factory import get_policy_class, make_pre_post_processors
from lerobot.policies.utils import prepare_observation_for_inference
from lerobot.utils.import_utils import register_third_party_plugins

register_third_party_plugins()
draw, found = np.random.default_rng(0), []
pictures = [f"observation.images.{name}" for name in ("front", "wrist")]
seen = [
    {name: draw.integers(0, 256, (64, 64, 3), dtype=np.uint8) for name in pictures}
    | {"observation.state": draw.uniform(-20, 20, 6).astype(np.float32)}
    for _ in range(25)
]
for path in sys.argv[1:]:
    config = PreTrainedConfig.from_pretrained(path)
    policy = get_policy_class(config.type).from_pretrained(path, config=config)
    before, after = make_pre_post_processors(config, path)
    policy.reset()
    with torch.inference_mode():
        ready = [before(prepare_observation_for_inference(dict(one), torch.device("cpu"), "wave")) for one in seen]
        found.append([after(policy.select_action(one)).squeeze(0).tolist() for one in ready])
print(json.dumps(found))
"""
"""Actions of two folders' policies on the same observations, through LeRobot's own loading and processors."""


@pytest.fixture(scope="module")
def lerobot(tmp_path_factory: pytest.TempPathFactory) -> LeRobot:
    """With a dataset that `lerobot-record` has made on the simulated arm."""
    made = LeRobot(tmp_path_factory.mktemp("lerobot"))
    made.tool(
        "record",
        *(*made.robot("record.mcap"), *CAMERAS, *made.dataset, "--teleop.type=scripted", "--dataset.single_task=wave"),
        *(f"--dataset.num_episodes={EPISODES}", f"--dataset.episode_time_s={EPISODE_S}", f"--dataset.fps={FPS}"),
        *("--dataset.reset_time_s=1", "--dataset.push_to_hub=false"),
    )
    return made


def report(log: Path) -> dict[str, Any]:
    [found] = [message.content for message in edge.read_log(log) if message.topic == "/report"]
    return json.loads(found["report"]) if isinstance(found["report"], str) else found["report"]


def judge(log: Path, at_least_s: float) -> None:
    """Ended in order, and no chunk was refused but those that a busy machine has sent too late."""
    run = report(log)
    assert run["ended"] == "user" and run["error"] is None and run["duration_s"] > at_least_s
    chunks = run["chunks"]
    assert chunks["refused_by_host"] == 0 and all("lead too short" in refusal for refusal in chunks["refusals"])
    assert chunks["committed"] > 3 * at_least_s


@needs_lerobot
def test_a_recording_is_what_the_arm_did(lerobot: LeRobot) -> None:
    judge(lerobot.folder / "record.mcap", EPISODES * EPISODE_S)
    script = (
        "import json, sys; import numpy as np; from lerobot.datasets import LeRobotDataset\n"
        "data = LeRobotDataset('tests/waves', root=sys.argv[1])\n"
        "rows = [data[index] for index in range(len(data))]\n"
        "table = {name: [row[name].tolist() for row in rows] for name in ('action', 'observation.state')}\n"
        "print(json.dumps(table | {'episodes': data.num_episodes, 'robot': data.meta.robot_type,\n"
        "  'pictures': list(rows[0]['observation.images.front'].shape), 'names': data.features['action']['names']}))"
    )
    seen = json.loads(lerobot.python(script, str(lerobot.folder / "dataset")).splitlines()[-1])
    action, state = np.array(seen["action"]), np.array(seen["observation.state"])
    assert seen["episodes"] == EPISODES and seen["robot"] == "so_follower" and seen["pictures"] == [3, 64, 64]
    assert seen["names"] == [f"{joint}.pos" for joint in load_arm("so101").joints]
    assert len(state) > 0.7 * FPS * EPISODES * EPISODE_S
    assert np.ptp(action, axis=0) == pytest.approx(2 * WAVE_DEG, rel=0.2)
    late = [np.abs(state[frames:] - action[: len(action) - frames]).mean() for frames in range(15)]
    assert min(late) < 0.1 * WAVE_DEG, "the arm did what it was told, a few frames later"


@needs_lerobot
def test_it_is_played_and_trained_on_and_the_policy_is_rolled_out(lerobot: LeRobot) -> None:
    lerobot.tool("replay", *lerobot.robot("replay.mcap"), *lerobot.dataset, "--dataset.episode=0")
    judge(lerobot.folder / "replay.mcap", 0.7 * EPISODE_S)
    out = lerobot.folder / "act"
    lerobot.tool(
        "train",
        *(*lerobot.dataset, *SMALL_ACT, "--policy.push_to_hub=false", "--steps=3", "--batch_size=2", "--num_workers=0"),
        *("--save_freq=3", f"--output_dir={out}", "--wandb.enable=false"),
    )
    policy = out / "checkpoints/000003/pretrained_model"
    lerobot.tool(
        "rollout",
        *(*lerobot.robot("rollout.mcap"), *CAMERAS, f"--policy.path={policy}", "--policy.device=cpu"),
        *("--duration=4", f"--fps={FPS}"),
    )
    judge(lerobot.folder / "rollout.mcap", 4)
    through_its_bundle(lerobot, policy)


def through_its_bundle(lerobot: LeRobot, policy: Path) -> None:
    """The same policy as a bundle: the same actions as from LeRobot's own code, and rolled out by its tool."""
    bundle, folder = lerobot.folder / "bundle", lerobot.folder / "as-policy"
    line = [sys.executable, "-c", "from export.commands.entry import export; raise SystemExit(export())", str(policy)]
    line += ["-o", str(bundle), "--dataset", str(lerobot.folder / "dataset"), "--units", "degrees"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    wrap = "import runpy; runpy.run_module('lerobot_policy_vla_edge', run_name='__main__')"
    lerobot.python(wrap, "--bundle", str(bundle), "--arm", "so101", "-o", str(folder))
    own, ours = np.array(json.loads(lerobot.python(SAME, str(policy), str(folder)).splitlines()[-1]))
    assert own.shape == (25, 6) and np.ptp(own, axis=0).max() > 0.1
    np.testing.assert_allclose(ours, own, atol=2e-3)
    lerobot.tool(
        "rollout",
        *(*lerobot.robot("bundle.mcap"), *CAMERAS, f"--policy.path={folder}", "--policy.device=cpu"),
        *("--duration=4", f"--fps={FPS}"),
    )
    judge(lerobot.folder / "bundle.mcap", 4)


@needs_lerobot
def test_wild_teleoperation_stays_within_the_limits(lerobot: LeRobot) -> None:
    lerobot.tool(
        "teleoperate",
        *("--robot.type=vla_edge", f"--robot.log={lerobot.folder / 'wild.mcap'}", "--teleop.type=scripted"),
        *("--teleop.wild=true", "--teleop_time_s=4", "--fps=60"),
    )
    judge(lerobot.folder / "wild.mcap", 4)


@needs_lerobot
def test_edge_train_takes_the_recording(lerobot: LeRobot) -> None:
    line = [sys.executable, "-c", "from export.commands.entry import train; raise SystemExit(train())", "prior"]
    line += ["--preset", "tiny", "--steps", "2", "--batch", "4", "--no-tensorboard", "--units", "degrees"]
    line += ["--data", str(lerobot.folder / "dataset"), "--out", str(lerobot.folder / "prior")]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "read as degrees" in done.stdout and (lerobot.folder / "prior/checkpoint.pt").is_file()
