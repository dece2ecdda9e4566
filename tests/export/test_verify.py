"""An export proves itself, and the proof can fail."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from edge.bundle import BundleError, load_bundle, sha256
from edge.engines import OnnxRuntimeEngine
from export.commands.export import main
from export.engines.observations import draw_samples
from export.engines.verify import ROUNDED, Agreement, Gate, Gates, Verification, answer, compare, in_use
from export.families.action_prior.checkpoint import load_checkpoint
from tests.conftest import SHIPPED


def test_fp32_engines_agree_with_torch_and_the_control_fails(bundle_path: Path) -> None:
    report = json.loads((bundle_path / "verification.json").read_text())
    assert report["passed"] is True
    assert set(report["agreement"]) == {
        "history_encoder.z_history", "backbone.z",
        "action_decoder.chunk", "action_decoder.first_velocity", "whole_chunk",
    }  # fmt: skip
    for name, agreement in report["agreement"].items():
        limit = 1e-4 if name == "whole_chunk" else 1e-5
        assert agreement["samples"] >= 64
        assert agreement["gate"] == {"max_abs": limit}
        assert agreement["max_abs"] <= limit, name
        assert agreement["cosine"] > 0.999999, name
    assert report["negative_control"]["caught"] is True
    assert all(not agreement["passed"] for agreement in report["negative_control"]["agreement"].values())


def test_the_bundle_has_what_the_contract_names(bundle_path: Path) -> None:
    names = {path.name for path in bundle_path.iterdir()}
    assert names == {
        "manifest.json", "verification.json", "tokenizer.json", "reference.npz",
        "backbone.onnx", "history_encoder.onnx", "action_decoder.onnx",
    }  # fmt: skip
    manifest = load_bundle(bundle_path).manifest
    assert manifest.checkpoint_sha256 == sha256(SHIPPED)
    for engine in manifest.engines.values():
        for tensor in (*engine.inputs, *engine.outputs):
            assert all(size > 0 for size in tensor.shape), f"{tensor} is not static"
    frames = next(tensor for tensor in manifest.engines["backbone"].inputs if tensor.name == "frames")
    assert (frames.dtype, frames.shape) == ("uint8", (1, 1, 128, 128, 3))


def test_an_engine_with_one_wrong_weight_is_caught(bundle_path: Path, tmp_path: Path) -> None:
    bundle = load_bundle(bundle_path)
    spec = bundle.manifest.engines["history_encoder"]
    model = onnx.load(bundle.file(spec.file))
    largest = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    weights = numpy_helper.to_array(largest).copy()
    weights.flat[7] += 0.5
    largest.CopyFrom(numpy_helper.from_array(weights, largest.name))
    onnx.save(model, tmp_path / spec.file)
    checkpoint = load_checkpoint(SHIPPED)
    engine = OnnxRuntimeEngine(tmp_path / spec.file, spec, threads=1)
    encoder = checkpoint.part("encoder")

    pairs = []
    for sample in draw_samples(checkpoint.config, 8, seed=0):
        for name, array in engine.inputs.items():
            array[:] = sample[name].numpy()
        engine.run()
        found = engine.outputs["z_history"].copy()
        pairs.append((found, answer(encoder, sample, 1)["z_history"].numpy()))
    assert not compare(pairs, Gate(max_abs=1e-5)).passed


def test_the_worst_sample_decides_and_nan_never_passes() -> None:
    good = np.ones((1, 4), np.float32)
    bad = good + np.float32(1e-3)
    gate = Gate(max_abs=1e-5)
    assert compare([(good, good)] * 9, gate).passed
    assert not compare([(good, good)] * 9 + [(bad, good)], gate).passed
    assert not compare([(good * np.nan, good)], gate).passed
    assert not Agreement(1, float("nan"), 0.0, 1.0, gate).passed


def test_samples_are_of_the_arms_that_the_policy_knows() -> None:
    checkpoint = load_checkpoint(SHIPPED)
    config, arm = checkpoint.config, checkpoint.embodiments[0]
    two, one = ((0.0,) * count for count in (2, 1))
    other = replace(
        arm,
        index=3,
        actions=replace(arm.actions, slots=(30, 31), offset=two, scale=(1.0, 1.0)),
        states=replace(arm.states, slots=(5,), offset=one, scale=(1.0,)),
    )
    samples = draw_samples(replace(config, noise_scale=0.25), 32, 0, (arm, other))
    assert {int(sample["embodiment"]) for sample in samples} == {arm.index, 3}
    for sample in samples:
        known = {arm.index: arm, 3: other}[int(sample["embodiment"])]
        assert sample["used"][0].nonzero().flatten().tolist() == sorted(known.actions.slots)
        for name, slots in (("states", known.states.slots), ("actions", known.actions.slots)):
            assert sample[name][0].abs().sum(dim=0).nonzero().flatten().tolist() == sorted(slots)
        assert float(sample["noise"].std()) == pytest.approx(0.25, rel=0.2)
    assert not draw_samples(config, 1, 0, (arm,))[0]["noise"].any(), "a run of this policy has none"
    assert float(draw_samples(config, 1, 0)[0]["noise"].std()) == pytest.approx(1.0, rel=0.2)


def test_lower_precisions_are_judged_by_direction_and_length() -> None:
    wanted = np.array([[3.0, 4.0]], np.float32)
    turned = np.array([[3.1, 3.9]], np.float32)
    gate = Gate(relative_rms=0.1, cosine=0.999)
    assert compare([(wanted * 1.05, wanted)], gate).passed
    assert not compare([(wanted * 1.2, wanted)], gate).passed, "a cosine does not see the length"
    assert compare([(turned, wanted)], gate).passed
    assert not compare([(wanted[:, ::-1], wanted)], gate).passed
    assert not compare([(wanted * np.nan, wanted)], gate).passed


def test_actions_near_zero_have_no_direction_but_an_error() -> None:
    still, moving = np.full((4, 2), 0.01, np.float32), np.ones((4, 2), np.float32)
    pairs = [(moving, moving), (-still, still)]
    assert not compare(pairs, ROUNDED.chunk).passed
    assert compare([(moving, moving), (still + 0.005, still)], ROUNDED.chunk, still=0.1).passed
    assert not compare([(moving, moving), (still + 0.05, still)], ROUNDED.chunk, still=0.1).passed
    assert not compare([(still, still)], ROUNDED.chunk, still=0.1).passed, "nothing moved, so nothing was compared"


def test_only_actions_that_are_used_and_not_committed_count() -> None:
    sample = draw_samples(load_checkpoint(SHIPPED).config, 1, seed=3)[0]
    chunk = np.zeros((1, 15, 37), np.float32)
    free = 15 - int(sample["committed"].sum())
    assert in_use(sample, chunk).shape == (free, int(sample["used"].sum()))
    assert in_use(sample, np.zeros((1, 128), np.float32)).shape == (1, 128)


def test_samples_cover_padding_histories_and_prefixes() -> None:
    config = load_checkpoint(SHIPPED).config
    samples = draw_samples(config, 64, seed=0)
    lengths = {int(sample["mask"].sum()) for sample in samples}
    words = {int(sample["token_mask"].sum()) for sample in samples}
    prefixes = {int(sample["committed"].sum()) for sample in samples}
    assert {0, 15} <= lengths and len(lengths) > 10
    assert len(words) > 8
    assert prefixes == set(range(config.max_delay + 1))
    assert all(torch.equal(a["frames"], b["frames"]) for a, b in zip(samples, draw_samples(config, 64, seed=0)))


def test_failed_parity_exits_with_1_and_the_bundle_does_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    never = Gate(max_abs=1e-12)
    monkeypatch.setattr("export.engines.package.GATES", {"fp32": Gates(never, never, never, 1e-2)})
    out = tmp_path / "bundle"
    assert main([str(SHIPPED), "-o", str(out), "--flow-steps", "1", "--samples", "4"]) == 1
    assert "parity failed" in capsys.readouterr().err
    with pytest.raises(BundleError, match="must not drive an arm"):
        load_bundle(out)


def test_a_comparison_that_cannot_fail_is_itself_a_failure(bundle_path: Path) -> None:
    bundle, checkpoint = load_bundle(bundle_path), load_checkpoint(SHIPPED)
    blind = Gate(max_abs=1e-3)
    samples = draw_samples(checkpoint.config, 4, seed=0)
    found = Verification(samples, checkpoint.config.flow_steps, Gates(blind, blind, blind, 0.0), seed=0)
    for name, part in (("history_encoder", "encoder"), ("backbone", "backbone"), ("action_decoder", "decoder")):
        spec = bundle.manifest.engines[name]
        found.query_perturbed(name, checkpoint.part(part))
        found.query(name, checkpoint.part(part), lambda: None)
        found.judge(name, OnnxRuntimeEngine(bundle.file(spec.file), spec, threads=1), lambda: None)
    report = found.report()
    assert all(agreement["passed"] for agreement in report["agreement"].values())
    assert report["negative_control"]["caught"] is False
    assert report["passed"] is False


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.pt", "-o", "x"], "nowhere.pt: no such file"),
        ([str(SHIPPED), "-o", "x", "--flow-steps", "0"], "--flow-steps takes 1 to 100"),
        ([str(SHIPPED), "-o", "x", "--flow-steps", "500"], "--flow-steps takes 1 to 100"),
        (
            [str(SHIPPED), "-o", "x", "--precision", "int8"],
            "int8 is calibrated on real observations: add --observations",
        ),
        ([str(SHIPPED), "-o", "x", "--observations", "nowhere"], "nowhere: no meta/info.json there"),
    ],
)
def test_bad_input_exits_with_2_and_writes_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_a_bundle_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    assert main([str(SHIPPED), "-o", str(tmp_path)]) == 2
    assert "exists and is not a bundle" in capsys.readouterr().err
    assert (tmp_path / "thesis.tex").exists()
