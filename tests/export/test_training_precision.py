"""Training in BF16 rounds the large products, and nothing that must not be rounded."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from export.families.action_prior.batch import draw_batch, totals
from export.families.action_prior.policy import VlaPolicy
from export.families.action_prior.qwen import PreciseLinear
from export.training.instructions import InstructionTokens, word_tokenizer
from export.training.numerics import autocast, device_of
from export.training.prior import train_prior
from export.training.processes import ALONE
from export.training.schedule import Settings, TrainingError
from tests.export.small import INSTRUCTIONS, QUIET, few, read_windows, records, small, write_dataset

BF16 = dataclasses.replace(QUIET, precision="bf16")
PRODUCTS = ("aten.mm.default", "aten.addmm.default", "aten.bmm.default")
NEVER_ROUNDED = (
    "aten._softmax.default",
    "aten.rsqrt.default",
    "aten.native_layer_norm.default",
    "aten.pow.Tensor_Scalar",
)
FUSED = "aten._scaled_dot_product_flash_attention_for_cpu.default"
"""PyTorch's fused attention of the VLM takes BF16, and keeps scores and softmax in FP32 inside."""


class Dtypes(TorchDispatchMode):
    """Notes the types of the first tensor of every operation."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, set[torch.dtype]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        first = next((arg for arg in args if isinstance(arg, torch.Tensor)), None)
        if first is not None and first.is_floating_point():
            self.seen.setdefault(str(func), set()).add(first.dtype)
        return func(*args, **(kwargs or {}))


def stage_2(folder: Path, settings: Settings) -> tuple[VlaPolicy, Callable[[], dict[str, torch.Tensor]]]:
    config, device = small(), torch.device("cpu")
    windows, _ = read_windows(write_dataset(folder, frames=64), config)
    text = InstructionTokens(word_tokenizer(tuple(INSTRUCTIONS)), tuple(INSTRUCTIONS), config.token_budget)
    torch.manual_seed(0)
    policy, rows = VlaPolicy(config), windows.whole()[:6]
    window, draw = windows.window(rows, device), draw_batch(config, 6, (1,), device)

    def losses() -> dict[str, torch.Tensor]:
        with autocast(settings, device):
            observation = windows.observation(rows, text, device)
            return policy.vla_losses(window, observation, draw, totals(config, window, draw), 1.0)

    return policy, losses


def test_what_must_not_be_rounded_is_not(tmp_path: Path) -> None:
    policy, losses = stage_2(tmp_path, BF16)
    types: dict[str, set[torch.dtype]] = {}

    def watch(name: str, module: torch.nn.Module) -> None:
        def hook(_: torch.nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
            for tensor in (*inputs, output):
                if isinstance(tensor, torch.Tensor) and tensor.is_floating_point():
                    types.setdefault(name, set()).add(tensor.dtype)

        module.register_forward_hook(hook)

    parts = {"decoder": policy.decoder, "encoder": policy.encoder, "head": policy.backbone.head}
    for name, part in parts.items():
        watch(name, part)  # x_r, r, z in and the velocity out; trajectories in and z out; z' out
    for name, module in policy.named_modules():
        if isinstance(module, PreciseLinear):
            module.register_forward_hook(
                lambda _, __, output, name=name: types.setdefault(f"precise {name}", set()).add(output.dtype)
            )
    with Dtypes() as dtypes:
        found = losses()
        found["loss"].backward()
    assert {loss.dtype for loss in found.values()} == {torch.float32}
    assert len(types) > 12
    assert {name for name, dtype in types.items() if dtype != {torch.float32}} == set()
    for operation in NEVER_ROUNDED:
        assert dtypes.seen[operation] == {torch.float32}, operation
    assert torch.bfloat16 in dtypes.seen["aten.mm.default"], "but large products are"
    assert FUSED in dtypes.seen
    assert {weight.dtype for weight in policy.parameters()} == {torch.float32}
    assert {weight.grad.dtype for weight in policy.parameters() if weight.grad is not None} == {torch.float32}


def test_fp32_rounds_nothing(tmp_path: Path) -> None:
    _, losses = stage_2(tmp_path, QUIET)
    with Dtypes() as dtypes:
        losses()["loss"].backward()
    assert all(dtypes.seen[product] == {torch.float32} for product in PRODUCTS if product in dtypes.seen)


def test_losses_stay_close_to_those_of_fp32(tmp_path: Path) -> None:
    config = small()
    windows, arm = read_windows(write_dataset(tmp_path / "data"), config)
    losses = {}
    for name, settings in (("fp32", QUIET), ("bf16", BF16)):
        out = tmp_path / name
        out.mkdir()
        trained = train_prior(config, windows, (arm,), few(12, batch=16), settings, out)
        losses[name] = [record["loss"] for record in records(out, "prior")]
        assert {value.dtype for value in trained.state_dict.values() if value.is_floating_point()} == {torch.float32}
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.03)
    assert losses["bf16"] != losses["fp32"], "something was rounded"
    assert abs(losses["fp32"][0] - losses["fp32"][-1]) > 0.06 * losses["fp32"][0], "and the steps do something"


def test_tf32_only_where_it_is_asked_for() -> None:
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    try:
        for wanted in (True, False):
            device_of(dataclasses.replace(QUIET, tf32=wanted), ALONE)
            assert (torch.get_float32_matmul_precision() == "highest") is not wanted
            assert torch.backends.cudnn.allow_tf32 is wanted
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_one_line() -> None:
    with pytest.raises(TrainingError, match="there are 0; start fewer, or leave out --device cuda"):
        device_of(dataclasses.replace(QUIET, device="cuda"), ALONE)


@pytest.mark.gpu
def test_a_gpu_trains_close_to_the_cpu(tmp_path: Path) -> None:
    config = small()
    windows, arm = read_windows(write_dataset(tmp_path / "data"), config)
    losses = {}
    for device in ("cpu", "cuda"):
        out = tmp_path / device
        out.mkdir()
        settings = dataclasses.replace(QUIET, device=device, validate_every=4, held_out=0.5)
        train_prior(config, windows, (arm,), few(8), settings, out)
        losses[device] = [record["loss"] for record in records(out, "prior")]
    assert losses["cuda"] == pytest.approx(losses["cpu"], rel=1e-3)
