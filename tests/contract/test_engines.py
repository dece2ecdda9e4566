"""What every engine, every policy and every policy family must offer, with the shipped checkpoint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge.arms import load_arm
from edge.bundle import ACTION_PRIOR, Bundle, load_bundle
from edge.engines import ENGINES, Engine, EngineError, check_engines, open_engines
from edge.errors import InputError
from edge.policy.base import POLICIES, BundlePolicy, PolicyInput
from export.families.base import FAMILIES, CheckpointError, family_of
from tests.conftest import SHIPPED
from tests.support import FRANKA

TASK = "reach the red cube"
HERE = [name for name in POLICIES.builtin if name != "openpi"]
"""A bundle of that one describes a server: tests/edge/policy/test_remote.py asks the same of it."""


@pytest.fixture(scope="module")
def bundle(bundle_path: Path) -> Bundle:
    return load_bundle(bundle_path)


@pytest.fixture(scope="module", params=ENGINES.builtin)
def engines(request: pytest.FixtureRequest, bundle: Bundle) -> dict[str, Engine]:
    """Opened twice, so that their answers can be compared; where the machine has not what one needs, a line."""
    try:
        check_engines(bundle, request.param, 1)
    except EngineError as error:
        assert "\n" not in str(error) and ("; " in str(error) or "edge-build" in str(error))
        with pytest.raises(EngineError, match=r"^[^\n]+$"):
            open_engines(bundle, request.param, 1)
        pytest.skip(f"{request.param}: {error}")
    return open_engines(bundle, request.param, 1)


def test_an_engine_has_what_the_manifest_lists(bundle: Bundle, engines: dict[str, Engine]) -> None:
    assert set(engines) == set(bundle.manifest.engines)
    for name, engine in engines.items():
        spec = bundle.manifest.engines[name]
        for arrays, listed in ((engine.inputs, spec.inputs), (engine.outputs, spec.outputs)):
            found = {tensor: (array.dtype.name, array.shape) for tensor, array in arrays.items()}
            assert found == {tensor.name: (tensor.dtype, tensor.shape) for tensor in listed}
        assert engine.describe()


def test_an_engine_computes_the_same_twice_in_place(engines: dict[str, Engine]) -> None:
    for engine in engines.values():
        arrays = dict(engine.outputs)
        engine.run()
        first = {tensor: array.copy() for tensor, array in arrays.items()}
        for array in arrays.values():
            array[:] = 0
        engine.run()
        assert all(engine.outputs[tensor] is array for tensor, array in arrays.items()), "nothing moves"
        assert all(np.array_equal(first[tensor], array, equal_nan=True) for tensor, array in arrays.items())


@pytest.fixture(scope="module", params=HERE)
def policy(request: pytest.FixtureRequest, bundle: Bundle) -> BundlePolicy:
    return POLICIES.load(request.param)(TASK).open(bundle, FRANKA)


def observation(policy: BundlePolicy, seed: int, committed: int = 2) -> PolicyInput:
    shape, joints = policy.shape, policy.joints
    return PolicyInput(
        frames=[np.full((*camera.frame_px, 3), 90, np.uint8) for camera in policy.cameras],
        states_rad=np.tile(np.array(FRANKA.home_rad), (shape.history, 1)),
        actions_rad=np.zeros((shape.history, joints)),
        mask=np.ones(shape.history, np.bool_),
        prefix_rad=np.full((committed, joints), 1e-3),
        seed=(seed, 1),
    )


def test_a_policy_makes_finite_chunks_that_repeat(policy: BundlePolicy) -> None:
    first, between, again = (policy.infer(observation(policy, 3, count)).increments_rad for count in (2, 5, 2))
    assert first.shape == (policy.shape.horizon, policy.joints) and np.isfinite(first).all()
    assert np.array_equal(first, again) and not np.array_equal(first, between)
    assert policy.describe() and policy.arm.name == FRANKA.embodiment


def test_a_policy_keeps_what_is_committed(policy: BundlePolicy) -> None:
    observed = observation(policy, 0, committed=3)
    assert np.allclose(policy.infer(observed).increments_rad[:3], observed.prefix_rad, atol=1e-6)


@pytest.mark.parametrize(
    ("arm", "task", "line"),
    [
        ("franka_hand", TASK, "this policy was trained for fr3, not for 'fr3_hand'"),
        ("franka", "make coffee", "never learned the word 'make', 'coffee'"),
    ],
)
@pytest.mark.parametrize("name", HERE)
def test_a_policy_refuses_before_anything_is_opened(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, name: str, arm: str, task: str, line: str
) -> None:
    def opened(*_: object) -> None:
        raise AssertionError("an engine was opened")

    monkeypatch.setattr("edge.policy.graph_policy.open_engines", opened)
    with pytest.raises(InputError, match=line):
        POLICIES.load(name)(task).check(bundle, load_arm(arm))


def test_each_family_knows_its_checkpoint_and_no_others(tmp_path: Path) -> None:
    folders = Path(__file__).resolve().parents[1] / "export" / "families" / "lerobot"
    own = {ACTION_PRIOR: SHIPPED, "lerobot": folders / "act"}
    assert set(own) == set(FAMILIES.builtin)
    (tmp_path / "cut.pt").write_bytes(SHIPPED.read_bytes()[:100_000])
    (tmp_path / "text.pt").write_text("no checkpoint")
    for name, checkpoint in own.items():
        family = FAMILIES.load(name)
        assert family.recognises(checkpoint) and family_of(checkpoint) is family
        for other in (tmp_path / "cut.pt", tmp_path / "text.pt", tmp_path / "nowhere.pt", tmp_path):
            assert not family.recognises(other)
            with pytest.raises(CheckpointError, match=r"^[^\n]+$"):
                family_of(other)().open(other)


def test_a_broken_family_of_somebody_elses_is_named_when_none_recognises(tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("no checkpoint")
    FAMILIES.builtin["broken"] = "nowhere:Family"
    try:
        assert family_of(SHIPPED) is FAMILIES.load(ACTION_PRIOR), "the checkpoints of others open as ever"
        with pytest.raises(
            CheckpointError, match="no policy family recognises it; policy family 'broken' needs nowhere"
        ):
            family_of(tmp_path / "text.pt")
    finally:
        del FAMILIES.builtin["broken"]
