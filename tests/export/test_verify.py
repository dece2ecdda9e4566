"""An export proves itself, and the proof can fail."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from edge.bundle import BundleError, load_bundle, sha256
from edge.engines import OnnxRuntimeEngine
from export.commands.export import main
from export.engines.observations import draw_samples
from export.engines.verify import GATES, ROUNDED, Agreement, Gate, Gates, Verification, answer, compare, in_use
from export.policy.checkpoint import load_checkpoint
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


def test_a_sample_that_fp32_does_not_determine_counts_apart_and_still_has_a_bound() -> None:
    good = np.ones((1, 4), np.float32)
    off = good + np.float32(1e-3)
    gate = Gate(max_abs=1e-5)
    pairs = [(good, good)] * 9 + [(off, good)]
    found = compare(pairs, gate, moves={9: 5e-4})
    assert found.passed and (found.samples, found.max_abs) == (9, 0.0)
    assert [(one.sample, one.torch_moves) for one in found.unstable] == [(9, 5e-4)]
    assert found.unstable[0].max_abs == pytest.approx(1e-3, rel=1e-3)
    assert not compare(pairs, gate, moves={9: 1e-4}).passed, "ten times as far as torch is from itself"
    assert not compare(pairs, gate, moves={9: 9e-6}).passed, "torch stays within the gate there"
    assert not compare([(off, good)] * 2 + [(good, good)] * 8, gate, moves={0: 1e-3, 1: 1e-3}).passed, "too many"
    assert not compare([(good, good)], gate, moves={0: 1.0}).passed, "nothing was compared"


def test_torch_is_asked_again_where_an_engine_misses(bundle_path: Path) -> None:
    """The engine is wrong by 3e-4 on one sample: on one whose actions are so large that their rounding is as much, on
    one like any other."""
    bundle, checkpoint = load_bundle(bundle_path), load_checkpoint(SHIPPED)
    samples = draw_samples(checkpoint.config, 4, 0, checkpoint.embodiments)
    samples[2]["noise"] = 1e3 * samples[2]["noise"]

    def agreement(wrong: int) -> dict[str, Any]:
        found = Verification(samples, checkpoint.config.flow_steps, GATES["fp32"], seed=0)
        for name, part in (("history_encoder", "encoder"), ("backbone", "backbone"), ("action_decoder", "decoder")):
            spec = bundle.manifest.engines[name]
            found.ask_perturbed(name, checkpoint.part(part))
            found.ask(name, checkpoint.part(part), lambda: None)
            engine = OnnxRuntimeEngine(bundle.file(spec.file), spec, threads=1)
            found.judge(name, Off(engine, wrong) if name == "action_decoder" else engine, lambda: None)
            missed = found.missed(name)
            assert missed == ([wrong] if name == "action_decoder" else [])
            found.ask_again(name, checkpoint.part(part), missed, lambda: None)
        report = found.report()
        assert report["passed"] is all(one["passed"] for one in report["agreement"].values())
        return report["agreement"]["action_decoder.chunk"]

    large, usual = agreement(2), agreement(3)
    assert large["passed"] and large["samples"] == 3 and large["max_abs"] < 1e-5
    assert [one["sample"] for one in large["unstable"]] == [2]
    assert not usual["passed"] and usual["unstable"] == []


class Off:
    """An engine that is wrong on one sample, in its own run and in the one with the engines' latents."""

    def __init__(self, engine: OnnxRuntimeEngine, wrong: int) -> None:
        self._engine, self._wrong, self._runs = engine, wrong, 0
        self.inputs, self.outputs = engine.inputs, engine.outputs

    def run(self) -> None:
        self._engine.run()
        if self._runs // 2 == self._wrong:
            self.outputs["chunk"] += np.float32(3e-4)
        self._runs += 1

    def describe(self) -> str:
        return self._engine.describe()


def test_samples_are_of_the_arms_that_the_policy_knows() -> None:
    checkpoint = load_checkpoint(SHIPPED)
    arm = checkpoint.embodiments[0]
    for sample in draw_samples(checkpoint.config, 8, 0, checkpoint.embodiments):
        assert sample["embodiment"].tolist() == [arm.index]
        assert sample["used"][0].nonzero().flatten().tolist() == sorted(arm.actions.slots)
        for name, slots in (("states", arm.states.slots), ("actions", arm.actions.slots)):
            assert sample[name][0].abs().sum(dim=0).nonzero().flatten().tolist() == sorted(slots)


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
        found.ask_perturbed(name, checkpoint.part(part))
        found.ask(name, checkpoint.part(part), lambda: None)
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
