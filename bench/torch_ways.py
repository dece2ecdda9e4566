"""Other ways to run the same policy: torch as it stands, compiled, and the ONNX graph that an exporter makes of it.

Each way takes the same inputs and gives the same outputs as an engine; only the decoder's flow loop lies outside the
graph in all of them, which is what the engines' unrolling is compared with.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import torch

from bench.harness import Run
from export.engines.observations import Sample
from export.engines.trace import OPSET
from export.engines.verify import INPUTS
from export.families.action_prior.flow import integrate
from export.families.action_prior.parts import PolicyParts

PARTS = {"history_encoder": "encoder", "backbone": "backbone", "action_decoder": "decoder"}
EAGER, COMPILED, PLAIN = "eager torch", "torch.compile", "plain ONNX step"


def whole_sample(parts: PolicyParts, sample: Sample, seed: int) -> Sample:
    """A drawn observation with latents, so that every engine can run on its own."""
    generator = torch.Generator().manual_seed(seed)
    sample = {**sample, "has_history": sample["mask"].any(dim=1)}
    for name in ("history", "z"):
        drawn = torch.randn(1, parts.config.latent, generator=generator)
        sample[name] = torch.nn.functional.normalize(drawn, dim=-1)
    return sample


def torch_ways(
    name: str, parts: PolicyParts, sample: Sample, folder: Path, threads: int, compiled: bool
) -> dict[str, Callable[[], Run]]:
    """Openers of every way but ours to run one engine's part."""
    torch.set_num_threads(threads)
    ways: dict[str, Callable[[], Run]] = {EAGER: lambda: _call(name, parts, sample, compiled=False)}
    if compiled:
        ways[COMPILED] = lambda: _call(name, parts, sample, compiled=True)
    if name == "action_decoder":
        ways[PLAIN] = lambda: _plain(parts, sample, folder / "step.onnx", threads)
    return ways


def _call(name: str, parts: PolicyParts, sample: Sample, compiled: bool) -> Run:
    part = parts.part(PARTS[name])
    module: Callable[..., torch.Tensor] = torch.compile(part) if compiled else part
    if name == "action_decoder":
        return _flow(lambda x, r: module(x, r, sample["z"]), parts, sample)
    inputs = [sample[key] for key in INPUTS[name]]

    def run() -> torch.Tensor:
        with torch.no_grad():
            return module(*inputs)

    return run


def _flow(velocity: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], parts: PolicyParts, sample: Sample) -> Run:
    noise, prefix, committed, used = (sample[key] for key in ("noise", "prefix", "committed", "used"))

    def run() -> torch.Tensor:
        with torch.no_grad():
            return integrate(velocity, noise, prefix, committed, used, parts.config.flow_steps)

    return run


def _plain(parts: PolicyParts, sample: Sample, path: Path, threads: int) -> Run:
    """What an exporter makes of the decoder as it stands: one step, with the time as an input, called in a loop."""
    r = torch.zeros(1, sample["noise"].shape[1])
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # the exporter narrates its own steps
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            parts.part("decoder"),
            (sample["noise"], r, sample["z"]),
            input_names=["x", "r", "z"],
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    program.save(str(path), external_data=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    z = sample["z"].numpy()

    def step(x: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(session.run(None, {"x": x.numpy(), "r": r.numpy(), "z": z})[0])

    return _flow(step, parts, sample)
