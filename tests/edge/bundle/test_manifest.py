"""A bundle that is not what its manifest says never reaches an engine."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge.bundle import BundleError, EngineSpec, TensorSpec, add_to_verification, load_bundle, read_manifest, sha256
from edge.bundle.external import external_files
from edge.cli.run import main as edge_run
from edge.engines import EngineError, OnnxRuntimeEngine
from tests.support import FRANKA

MOST_S = 5.0


@pytest.fixture
def copy(bundle_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle_path, tmp_path / "bundle"))


def edit(bundle: Path, change: Callable[[dict], object]) -> None:
    document = json.loads((bundle / "manifest.json").read_text())
    change(document)
    (bundle / "manifest.json").write_text(json.dumps(document))


def refused(bundle: Path, message: str) -> None:
    began = time.monotonic()
    with pytest.raises(BundleError, match=message) as caught:
        load_bundle(bundle)
    line = str(caught.value)
    assert line.isprintable() and len("edge-run: " + line) <= 300, line
    assert caught.value.exit_code == 2 and time.monotonic() - began < MOST_S


def test_the_exported_bundle_loads(copy: Path) -> None:
    manifest = load_bundle(copy).manifest
    assert set(manifest.engines) == {"backbone", "history_encoder", "action_decoder"}
    assert manifest.policy.horizon == 15


def test_what_is_found_out_later_joins_the_verification(copy: Path) -> None:
    before = json.loads((copy / "verification.json").read_text())
    add_to_verification(load_bundle(copy), "closed_loop", {"succeeded": 47, "episodes": 50})
    load_bundle(copy)
    after = json.loads((copy / "verification.json").read_text())
    assert after.pop("closed_loop") == {"succeeded": 47, "episodes": 50}
    assert after == before
    (copy / "verification.json").write_text(json.dumps({**after, "passed": True, "more": 1}))
    refused(copy, r"verification\.json: its content is not what the manifest says")


def test_a_missing_engine(copy: Path) -> None:
    (copy / "action_decoder.onnx").unlink()
    refused(copy, r"action_decoder\.onnx: missing; copy the whole bundle")


def test_a_changed_engine(copy: Path) -> None:
    data = bytearray((copy / "backbone.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (copy / "backbone.onnx").write_bytes(bytes(data))
    refused(copy, r"backbone\.onnx: its content is not what the manifest says \(SHA-256 differs\)")


def test_a_wrong_format_number(copy: Path) -> None:
    edit(copy, lambda document: document.update(format=7))
    refused(copy, "format 7, this version reads 2; export the checkpoint again")


def test_a_bundle_of_an_older_version_is_to_be_exported_again(copy: Path) -> None:
    (copy / "manifest.json").write_text(json.dumps({"format": 1, "policy": {"horizon": 15}, "embodiments": []}))
    refused(copy, "format 1, this version reads 2; made by an older edge-export: export the checkpoint again")


def test_a_manifest_that_is_cut_short(copy: Path) -> None:
    text = (copy / "manifest.json").read_text()
    (copy / "manifest.json").write_text(text[:200])
    refused(copy, r"manifest\.json: is not JSON .*; export the checkpoint again")
    (copy / "manifest.json").write_text('{"format": 2}')
    refused(copy, "policy is missing")


def test_an_engine_that_the_manifest_does_not_hash(copy: Path) -> None:
    edit(copy, lambda document: document["files"].pop("backbone.onnx"))
    refused(copy, "does not list 'backbone.onnx' among its files")


def test_a_file_outside_the_bundle(copy: Path) -> None:
    edit(copy, lambda document: document["files"].update({"../../etc/passwd": 64 * "0"}))
    refused(copy, "names a file outside the bundle")


def test_a_failed_verification(copy: Path) -> None:
    report = json.loads((copy / "verification.json").read_text())
    report["passed"] = False
    (copy / "verification.json").write_text(json.dumps(report))
    edit(copy, lambda document: document["files"].update({"verification.json": sha256(copy / "verification.json")}))
    refused(copy, "must not drive an arm")
    edit(copy, lambda document: document["files"].pop("verification.json"))
    refused(copy, "never verified")


def test_a_checkpoint_where_a_bundle_belongs(copy: Path) -> None:
    refused(copy / "backbone.onnx", "that is a checkpoint, export it first")
    refused(copy / "nothing", "make one with edge-export")


def test_an_arm_it_was_not_trained_for(copy: Path) -> None:
    with pytest.raises(BundleError, match="was trained for fr3, not for 'so101'"):
        load_bundle(copy).arm("so101", FRANKA.joints)


def test_an_arm_with_more_axes_than_the_policy_controls(copy: Path) -> None:
    bundle = load_bundle(copy)
    assert bundle.arm("fr3", FRANKA.joints).joints == FRANKA.joints
    with pytest.raises(BundleError, match="this policy controls 7 axes, the arm has 8; choose another arm or bundle"):
        bundle.arm("fr3", (*FRANKA.joints, "finger"))


@pytest.mark.parametrize(
    ("named", "refusal"),
    [
        ([f"panda_joint{number}" for number in range(1, 8)], None),
        ([f"fr3_joint{number}" for number in range(7, 0, -1)], "joint 1 of this policy is 'fr3_joint7', of the arm"),
        (["fr3_joint1", "fr3_joint3", "fr3_joint2", *FRANKA.joints[3:]], "joint 2 of this policy is 'fr3_joint3'"),
        (list("abcdefg"), "joint 1 of this policy is 'a', of the arm 'fr3_joint1'"),
    ],
)
def test_joints_are_the_arms_in_its_order(copy: Path, named: list[str], refusal: str | None) -> None:
    """Those of an FR3 and of a Panda differ by their prefix alone."""

    def rename(document: dict[str, Any]) -> None:
        for axis, name in zip(document["arms"][0]["axes"], named, strict=True):
            axis["joint"] = name

    edit(copy, rename)
    bundle = load_bundle(copy)
    if refusal is None:
        assert bundle.arm("fr3", FRANKA.joints).joints == tuple(named)
        return
    with pytest.raises(BundleError, match=refusal):
        bundle.arm("fr3", FRANKA.joints)


def changed(*path: str | int, to: Any) -> Callable[[dict], object]:
    def change(document: dict) -> None:
        at: Any = document
        for part in path[:-1]:
            at = at[part]
        at[path[-1]] = to

    return change


MALFORMED: dict[str, tuple[Callable[[dict], object], str]] = {
    "files a list": (changed("files", to=[]), "files must be a table"),
    "horizon as text": (changed("policy", "horizon", to="15"), "policy.horizon must be a whole number from 1 to 1024"),
    "horizon with a fraction": (changed("policy", "horizon", to=15.5), "policy.horizon must be a whole number"),
    "horizon 1e9": (changed("policy", "horizon", to=10**9), "policy.horizon must be a whole number"),
    "horizon 1e18": (changed("policy", "horizon", to=10**18), "manifest.json.*number"),
    "horizon true": (changed("policy", "horizon", to=True), "policy.horizon must be a whole number"),
    "a horizon of another length": (changed("policy", "horizon", to=14), "committed_goals needs .14, columns"),
    "no time in a step": (changed("arms", 0, "step_s", to=0), r"arms\[0\].step_s must be a number from 0.002 to 1"),
    "an endless step": (changed("arms", 0, "step_s", to=float("inf")), "Infinity, which is no finite number"),
    "a step that is no number": (changed("arms", 0, "step_s", to=float("nan")), "NaN, which is no finite number"),
    "a scale of 0": (changed("arms", 0, "axes", 2, "action", "scale", to=0), "'fr3_joint3' has a scale of 0"),
    "a scale of none": (changed("arms", 0, "axes", 2, "state", "scale", to=None), "scale must be a number"),
    "a long name": (changed("arms", 0, "name", to="n" * 5000), r"arms\[0\].name must be text of 1 to 64"),
    "a name with escape codes": (changed("cameras", 0, "name", to="\x1b[31mred"), r"cameras\[0\].name must be text"),
    "a budget of 1e9": (changed("text", "budget", to=10**9), "text.budget must be a whole number from 1 to 8192"),
    "a budget of another length": (changed("text", "budget", to=17), r"'backbone.tokens' is \[1, 16\], tokens needs"),
    "no text": (changed("text", to=None), "takes tokens, and the manifest has no text"),
    "a column twice": (
        lambda document: document["arms"][0]["axes"][1]["action"].update(document["arms"][0]["axes"][0]["action"]),
        "have the same action column",
    ),
    "a column beyond": (changed("arms", 0, "axes", 1, "action", "column", to=37), "37 columns.* uses number 37"),
    "an unknown unit": (changed("arms", 0, "axes", 1, "state", "unit", to="turns"), "unit must be one of arm, rad"),
    "an unknown feed": (changed("graph", "feeds", "backbone.frames", "kind", to="video"), "kind must be one of frame"),
    "a feed's foreign option": (changed("graph", "feeds", "backbone.frames", "scale", to=2), "has no 'scale'"),
    "an input without a feed": (lambda document: document["graph"]["feeds"].pop("backbone.tokens"), "has no source"),
    "a feed and a link": (changed("graph", "feeds", "backbone.history", to={"kind": "normal"}), "has 2 sources"),
    "a link backwards": (
        changed("graph", "links", 0, to=["action_decoder.chunk", "backbone.history"]),
        "'backbone.history' is linked to 'action_decoder.chunk', whose engine runs later",
    ),
    "a link to nowhere": (
        changed("graph", "links", 0, to=["a.b", "backbone.history"]),
        "which are no output and input",
    ),
    "a link of another shape": (
        changed("graph", "links", 1, to=["history_encoder.z_history", "action_decoder.noise"]),
        "'action_decoder.noise' has 2 sources",
    ),
    "no result": (changed("graph", "result", to="backbone.z"), "the result 'backbone.z' is float32"),
    "a camera of another size": (changed("cameras", 0, "height", to=96), r"frames needs \[1, 96, 128, 3\]"),
    "axes a text": (changed("arms", 0, "axes", to="abcdefg"), "axes must be a list"),
    "an unknown entry": (changed("policy", "tempo", to=3), "policy.tempo is unknown"),
    "a constant that is short": (
        changed("arms", 0, "constants", "used", to=[1.0]),
        "takes 37 numbers, arm 'fr3' has 1",
    ),
    "an engine's path": (changed("graph", "engines", "backbone", "file", to="../x.onnx"), "does not list '../x.onnx'"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_manifest_is_one_line(copy: Path, name: str) -> None:
    change, message = MALFORMED[name]
    edit(copy, change)
    refused(copy, message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000 + "]" * 100_000, "is nested deeper than 32"),
        ('{"format": 2, "a": ' + "{" + '"a":{' * 400 + "}" * 400 + "}}", "is nested deeper than 32"),
        ('{"format": 2, "format": 2}', "has 'format' twice"),
        ('{"format": "2"}', "format '2', this version reads 2"),
        ("[2]", "format null, this version reads 2"),
        ('{"format": ' + "9" * 5000 + "}", "number of 5000 digits"),
        ("\x00\x01\x02", "is not JSON"),
    ],
)
def test_a_document_that_is_no_manifest_is_one_line(copy: Path, text: str, message: str) -> None:
    (copy / "manifest.json").write_text(text)
    refused(copy, message)


def test_a_run_of_a_malformed_bundle_ends_with_exit_code_2(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(copy, changed("policy", "family", to="\x1b[2J" * 12))
    assert edge_run(["--arm", "franka", "--bundle", str(copy), "--report", str(copy.parent / "run.json")]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and err.strip().isprintable() and len(err.strip()) <= 300


def with_external_weights(folder: Path, location: str, nested: bool) -> None:
    """An ONNX file whose weights, in the graph itself or in a branch of it, lie in another file."""
    weights = numpy_helper.from_array(np.ones((4, 4), np.float32), "w")
    weights.data_location = TensorProto.EXTERNAL
    weights.external_data.add(key="location", value=location)
    weights.ClearField("raw_data")
    x, y, c = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 4]) for name in "xyc")
    if nested:
        branch = helper.make_graph([helper.make_node("Add", ["x", "w"], ["c"])], "branch", [], [c], [weights])
        yes = numpy_helper.from_array(np.array(True), "yes")
        nodes = [helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch)]
        graph = helper.make_graph(nodes, "g", [x], [y], [yes])
    else:
        graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", [x], [y], [weights])
    (folder / "backbone.onnx").write_bytes(helper.make_model(graph).SerializeToString())


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("location", ["backbone.onnx.data", "more/w.bin", "../w.bin", "/etc/passwd"])
def test_weights_that_the_manifest_does_not_list_are_refused(copy: Path, location: str, nested: bool) -> None:
    with_external_weights(copy, location, nested)
    assert external_files(copy / "backbone.onnx") == {location}
    (copy / "backbone.onnx.data").write_bytes(np.zeros(16, np.float32).tobytes())
    edit(copy, changed("files", "backbone.onnx", to=sha256(copy / "backbone.onnx")))
    refused(copy, "backbone.onnx: opens '.*', which the manifest does not list as its weights")
    edit(copy, changed("graph", "engines", "backbone", "weights", to=[location]))
    refused(copy, "the manifest does not list '.*' among its files")


def test_weights_that_are_listed_are_held_to_their_hash(copy: Path) -> None:
    with_external_weights(copy, "backbone.onnx.data", False)
    weights = copy / "backbone.onnx.data"
    weights.write_bytes(np.zeros(16, np.float32).tobytes())
    edit(copy, changed("graph", "engines", "backbone", "weights", to=[weights.name]))
    for name in ("backbone.onnx", weights.name):
        edit(copy, changed("files", name, to=sha256(copy / name)))
    load_bundle(copy)
    weights.write_bytes(np.ones(16, np.float32).tobytes())
    refused(copy, "backbone.onnx.data: its content is not what the manifest says")


@pytest.mark.parametrize("damage", ["cut", "text", "empty", "noise"])
def test_an_engine_that_is_no_onnx_file_is_refused(copy: Path, damage: str) -> None:
    whole = (copy / "backbone.onnx").read_bytes()
    content = {
        "cut": whole[: len(whole) // 2],
        "text": b"no onnx at all",
        "empty": b"",
        "noise": bytes(range(255, 0, -1)),
    }
    (copy / "backbone.onnx").write_bytes(content[damage])
    edit(copy, changed("files", "backbone.onnx", to=sha256(copy / "backbone.onnx")))
    refused(copy, "backbone.onnx: is ")


def test_what_onnx_writes_beside_a_file_is_found(tmp_path: Path) -> None:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 4]) for name in "xy")
    weights = [numpy_helper.from_array(np.full((4, 4), number, np.float32), f"w{number}") for number in range(3)]
    nodes = [helper.make_node("Sum", ["x", "w0", "w1", "w2"], ["y"])]
    model = helper.make_model(helper.make_graph(nodes, "g", [x], [y], weights))
    model.opset_import[0].version, model.ir_version = 17, 10
    arguments = {"save_as_external_data": True, "all_tensors_to_one_file": False, "size_threshold": 0}
    onnx.save(model, tmp_path / "g.onnx", **arguments)
    assert external_files(tmp_path / "g.onnx") == {"w0", "w1", "w2"}
    tensors = (TensorSpec("x", "float32", (4, 4)),), (TensorSpec("y", "float32", (4, 4)),)
    engine = OnnxRuntimeEngine(tmp_path / "g.onnx", EngineSpec("g.onnx", *tensors, ("w0", "w1", "w2")), 1)
    engine.run()
    assert np.all(engine.outputs["y"] == 3)


def test_a_manifest_survives_its_own_text(copy: Path) -> None:
    manifest = load_bundle(copy).manifest
    (copy / "manifest.json").write_text(manifest.to_json())
    assert read_manifest(copy / "manifest.json") == manifest


def test_an_engine_that_is_not_the_manifests(copy: Path) -> None:
    bundle = load_bundle(copy)
    specs = bundle.manifest.engines
    with pytest.raises(EngineError, match="the manifest says"):
        OnnxRuntimeEngine(bundle.file("backbone.onnx"), specs["history_encoder"], threads=1)
    (copy / "backbone.onnx").write_bytes(b"not onnx")
    with pytest.raises(EngineError, match="ONNX Runtime cannot open it"):
        OnnxRuntimeEngine(copy / "backbone.onnx", specs["backbone"], threads=1)
