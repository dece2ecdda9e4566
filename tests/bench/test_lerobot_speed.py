"""Beside LeRobot: what the table says of measured times, and that another policy's answers are not timed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bench.cli import main
from bench.graph_cost import GraphCost, NodeCost
from bench.harness import AGAIN, Plan, Timing, group
from bench.lerobot_speed import EAGER, ROOF, STREAM, body
from bench.lerobot_speed_tables import lines
from tests.export.families.lerobot_engines import FOLDERS, bundle_of

STAND_IN = """#!{python}
import sys
import numpy as np
print("ready", flush=True)
for line in sys.stdin:
    if line.startswith("save"):
        np.save(line.split()[1], np.zeros((20, 6), np.float32))
    print("saved", flush=True)
"""
"""Says what LeRobot's process says, and gives the goals of no policy."""


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    path = tmp_path / "python"
    path.write_text(STAND_IN.format(python=sys.executable))
    path.chmod(0o755)
    return path


def test_goals_that_are_not_lerobot_s_are_refused(
    stand_in: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = bundle_of("act_waving", tmp_path_factory)
    line = ["lerobot-speed", str(FOLDERS / "act_waving"), "--bundle", str(bundle), "--lerobot", str(stand_in)]
    assert main([*line, "--quick"]) == 2
    assert "of an axis's range from LeRobot's" in capsys.readouterr().err
    stand_in.write_text(f"#!{sys.executable}\nprint('broken')\n")
    assert main([*line, "--quick"]) == 2
    assert "LeRobot could not open" in capsys.readouterr().err
    assert main([*line[:-1], "nowhere/python"]) == 2
    assert "no such Python" in capsys.readouterr().err


def test_the_table_says_how_many_times_as_fast_and_how_near_the_roof() -> None:
    def timing(ms: float) -> Timing:
        return Timing(0, 0, [round(1e6 * ms)] * 40)

    ways = {EAGER: 90.0, f"{EAGER} {AGAIN}": 90.0, "fp32": 30.0, "int8": 15.0, STREAM: 26.8435456}
    ways |= dict(zip(ROOF.values(), (2 * 1024**3 / 50e6, 2 * 1024**3 / 100e6)))  # 50 and 100 GFLOP/s
    timed = group("a chunk", "from here to there", {name: timing(ms) for name, ms in ways.items()}, Plan(), 0, EAGER)

    def engine(precision: str) -> list[GraphCost]:
        return [GraphCost("policy", (NodeCost("MatMul", "gemm", precision, 1e9, 0.0, 0.0),))]

    made = body(timed, {"fp32": engine("fp32"), "int8": engine("int8")}, {"fp32": 2e-7, "int8": 0.01}, 1)
    assert made["floor_ms"] == pytest.approx({"fp32": 20.0, "int8": 10.0}, rel=1e-3)
    rows = {row.split("|")[1].strip(): row for row in lines(made) if row.startswith("|")}
    assert "| 3 (3 to 3) | 66.7 % | 2.0e-07 |" in rows["this project, FP32"]
    assert "| 6 (6 to 6) | 66.7 % | 1.0e-02 |" in rows["this project, INT8"]
    assert "| 1 | 22.2 % | - |" in rows[EAGER] and f"{EAGER} {AGAIN}" not in rows
