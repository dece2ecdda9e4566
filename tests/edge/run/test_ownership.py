"""Nobody assigns into the fields of the controller or of the parts it decides with, but these themselves."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.plan.replanner import LatencyEstimate, Replanner
from edge.plan.splicer import Splicer
from edge.plan.timeline import Timeline
from edge.policy.history import StepHistory
from edge.run.controller import Controller
from edge.run.motion import MotionMachine

ROOT = Path(__file__).resolve().parents[3]
OWNERS = {Controller, Replanner, LatencyEstimate, Splicer, Timeline, StepHistory, MotionMachine}
FOLDERS = (
    "edge",
    "bench",
    "tests/edge/run",
    "tests/edge/log",
    "tests/edge/plan",
    "tests/edge/doors/view",
    "tests/bench",
)


def assigned(tree: ast.AST) -> Iterator[ast.Attribute]:
    """Every attribute that is assigned to, also by `+=`, `del`, `setattr` aside."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
            yield node


def own(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id == "self"


def foreign(text: str, fields: set[str]) -> list[str]:
    return [ast.unparse(node) for node in assigned(ast.parse(text)) if node.attr in fields and not own(node)]


def fields() -> set[str]:
    """Names of all fields and properties of the owners."""
    names = set()
    for owner in OWNERS:
        tree = ast.parse(Path(__import__(owner.__module__, fromlist=["_"]).__file__).read_text())
        [body] = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == owner.__name__]
        names |= {node.attr for node in assigned(body) if own(node)}
        names |= {name for name, value in vars(owner).items() if isinstance(value, property)}
    return names


def test_nobody_assigns_into_the_fields_of_control() -> None:
    names = fields()
    assert {"last", "_planner", "_motion", "_next_step", "motion", "last_state"} <= names
    found = {
        f"{path.relative_to(ROOT)}: {text}"
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*.py")
        for text in foreign(path.read_text(), names)
    }
    assert found == set()


@pytest.mark.parametrize("name", ["motion", "timeline", "last_state", "planner"])
def test_what_others_may_read_they_cannot_set(name: str) -> None:
    with pytest.raises(AttributeError):
        setattr(Controller.__new__(Controller), name, None)


@pytest.mark.parametrize("line", ["a.b.last = 1", "a.last += 1", "a.x, a.last = 1, 2", "del a.last", "a.last: int = 1"])
def test_an_assignment_into_another_one_is_found(line: str) -> None:
    assert foreign(line, {"last"}) and not foreign("self.last = a.last", {"last"})
