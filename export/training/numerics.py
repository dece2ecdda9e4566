"""Where a run computes and how it rounds."""

from __future__ import annotations

import torch

from export.training.processes import Processes
from export.training.schedule import Settings, TrainingError


def device_of(settings: Settings, processes: Processes) -> torch.device:
    """The device of this process, set up for the settings. Raises `TrainingError` where it is not there."""
    if settings.device == "cuda":
        if processes.local >= torch.cuda.device_count():
            found = torch.cuda.device_count()
            raise TrainingError(
                f"process {processes.local} of this machine needs a CUDA device of its own and there are {found}; "
                "start fewer, or leave out --device cuda"
            )
        torch.cuda.set_device(processes.local)
    torch.set_float32_matmul_precision("high" if settings.tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = settings.tf32
    return torch.device(settings.device, processes.local) if settings.device == "cuda" else torch.device("cpu")


def autocast(settings: Settings, device: torch.device) -> torch.autocast:
    """Large products in BF16, if so set. Weights, gradients, the optimiser and their average are FP32 in any case.

    What must not round stays in FP32 inside: norms and softmax by PyTorch's own rules, everything that touches the flow
    state, the flow time or a latent through `PreciseLinear`, and losses because all their inputs are.
    """
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=settings.precision == "bf16")
