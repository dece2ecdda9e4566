"""The form of a Diffusion policy that its engines run: raw frames and states to a condition, noise to goals.

The decoder is one step of denoising, which the exporter repeats. What the time and the condition add to every block is
the sum of a constant of the step and of one product that all steps share.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from export.families.diffusion.network import ConvBlock, DiffusionNetwork, Encoder, ResidualBlock, resize
from export.families.diffusion.schedule import schedule
from export.families.layers import Projection
from export.families.lerobot.resnet import merge_norms

MISH_LARGEST = 20.0
"""From here on Mish is the identity in FP32."""
SCALARS = 9
"""Of a step's row: its number, and the factors of `schedule.Step`."""


class Cut(nn.Module):
    """Resizes and crops pictures with two constant matrices: bilinear interpolation works on rows and columns apart."""

    def __init__(self, encoder: Encoder, frame_px: tuple[int, int]) -> None:
        super().__init__()
        matrices = []
        wanted = encoder.resize_shape or frame_px
        for axis, (have, want) in enumerate(zip(frame_px, wanted)):
            matrix = torch.eye(have)
            if encoder.resize_shape is not None:
                matrix = resize(matrix[None, None], (want, have))[0, 0]
            if encoder.crop_shape is not None:
                first = round((want - encoder.crop_shape[axis]) / 2)
                matrix = matrix[first : first + encoder.crop_shape[axis]]
            matrices.append(matrix)
        self.rows, self.columns = nn.Buffer(matrices[0]), nn.Buffer(matrices[1].T.contiguous())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.rows @ x @ self.columns


class StaticCondition(nn.Module):
    """States (n, axes) and raw frames (n, height, width, 3) of each camera to the condition (1, n * features)."""

    def __init__(
        self, network: DiffusionNetwork, pictures: list[nn.Module], frame_px: tuple[int, int], states: nn.Module
    ) -> None:
        super().__init__()
        self.pictures, self.states = nn.ModuleList(pictures), states
        made: dict[Encoder, nn.Module] = {}
        for encoder in network.encoders():
            if encoder not in made:
                cut = Cut(encoder, frame_px) if encoder.resize_shape or encoder.crop_shape else nn.Identity()
                merge_norms(encoder.backbone)
                made[encoder] = nn.Sequential(cut, encoder.backbone, encoder.pool, encoder.out, nn.ReLU())
        self.encoders = nn.ModuleList([made[encoder] for encoder in network.encoders()])

    def forward(self, states: torch.Tensor, *frames: torch.Tensor) -> torch.Tensor:
        found = [encoder(prepare(frame)) for encoder, prepare, frame in zip(self.encoders, self.pictures, frames)]
        return torch.cat([self.states(states), *found], dim=-1).flatten()[None]


class StaticBlock(nn.Module):
    """A residual block whose modulation comes in from outside."""

    def __init__(self, block: ResidualBlock) -> None:
        super().__init__()
        self.first, self.second = _convolved(block.conv1), _convolved(block.conv2)
        self.past, self.made, self.scales = block.residual_conv, block.made, block.scales

    def forward(self, x: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
        """change (1, width, 1)."""
        y = mish(self.first(x))
        y = change[:, : self.made] * y + change[:, self.made :] if self.scales else y + change
        return mish(self.second(y)) + self.past(x)


class DenoisingStep(nn.Module):
    """One step: noise (horizon, axes), condition and what a step adds to the state after it; the network is used up.

    Gives the state after it, the network's answer, the state before it, and the chunk that the state after it is.
    """

    @torch.no_grad()
    def __init__(self, network: DiffusionNetwork, restored: nn.Module) -> None:
        super().__init__()
        config, unet = network.config, network.unet
        self.bound = config.clip_sample_range if config.clip_sample else None
        self.first, self.restored = config.n_obs_steps - 1, restored
        self.noisy_steps = config.noise_scheduler_type == "DDPM"
        width = config.diffusion_step_embed_dim
        blocks = unet.blocks()
        layers: list[Any] = [block.cond_encoder[1] for block in blocks]
        self.widths = [layer.out_features for layer in layers]
        self.film = Projection([_columns(layer, width) for layer in layers], precise=False)
        steps = []
        for number, step in enumerate(schedule(config)):
            seen = nn.functional.mish(unet.diffusion_step_encoder(step.time))
            added = [layer.weight[:, :width] @ seen + layer.bias for layer in layers]
            steps.append(torch.cat([torch.tensor([float(number), *step.numbers()]), *added]))
        self.rows = nn.Buffer(torch.stack(steps))
        static = {block: StaticBlock(block) for block in blocks}
        self.blocks = nn.ModuleList(static.values())
        self.halves = nn.ModuleList([stage[2] for stage in unet.down_modules])
        self.doubles = nn.ModuleList([stage[2] for stage in unet.up_modules])
        self.last, self.out = _convolved(unet.final_conv[0]), unet.final_conv[1]

    def forward(self, noise: torch.Tensor, condition: torch.Tensor, *more: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """more  step_noise (steps, horizon, axes) of DDPM, and the step's row last."""
        row = more[-1]
        x = noise.T[None]
        return self.step(x, self.film(mish(condition)[None])[0], row, more[:-1])

    def step(
        self, x: torch.Tensor, products: torch.Tensor, row: torch.Tensor, step_noise: tuple[torch.Tensor, ...]
    ) -> tuple[torch.Tensor, ...]:
        a, b, c, d, of_sample, of_state, of_other, of_noise = row[1:SCALARS].unbind()
        answer = self.answer(x, products + row[None, SCALARS:])
        sample = a * x + b * answer
        other = c * x + d * answer
        if self.bound is not None:
            sample = sample.clamp(-self.bound, self.bound)
        after = of_sample * sample + of_state * x + of_other * other
        for noise in step_noise:
            after = after + of_noise * noise.index_select(0, row[:1].long())[0].T
        return after, answer, x, self.restored(after[0].T[self.first :])

    def answer(self, x: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
        """The U-Net's, with the changes of all blocks (1, width)."""
        changes = iter(zip(self.blocks, change[..., None].split(self.widths, dim=1)))

        def run(x: torch.Tensor) -> torch.Tensor:
            block, its_own = next(changes)
            return block(x, its_own)

        passed = []
        for half in self.halves:
            x = run(run(x))
            passed.append(x)
            x = half(x)
        x = run(run(x))
        for double in self.doubles:
            x = double(run(run(torch.cat([x, passed.pop()], dim=1))))
        return self.out(mish(self.last(x)))


class Denoising(nn.Module):
    """All steps: what the finished engine computes."""

    def __init__(self, step: DenoisingStep) -> None:
        super().__init__()
        self.step = step

    def forward(self, noise: torch.Tensor, condition: torch.Tensor, *step_noise: torch.Tensor) -> torch.Tensor:
        x, products = noise.T[None], self.step.film(mish(condition)[None])[0]
        for row in self.step.rows:
            x, _, _, chunk = self.step.step(x, products, row, step_noise)
        return chunk


def mish(x: torch.Tensor) -> torch.Tensor:
    """x tanh(log(1 + e^x)) with one exponential; ONNX Runtime has no kernel of the operation on a CPU."""
    grown = torch.exp(x.clamp(max=MISH_LARGEST))
    product = grown * (grown + 2)
    return x * (product / (product + 2))


def _convolved(block: ConvBlock) -> nn.Module:
    """Convolution and norm, without the activation."""
    return nn.Sequential(*list(block.block)[:2])


def _columns(layer: nn.Linear, first: int) -> nn.Linear:
    """What of a linear layer the condition meets: the inputs from `first` on, and no bias."""
    weight = layer.weight[:, first:]
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    made.weight = nn.Parameter(weight)
    return made
