"""Every size and every choice of the policy, in frozen dataclasses.

Fields marked [P] are stated in the paper (arXiv:2606.26095); [ours] marks what it leaves open.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

from firmware_bridge.reading import Between, ReadError, Sized, typed

Width: TypeAlias = Annotated[int, Between(1, 1 << 17)]
Few: TypeAlias = Annotated[int, Between(1, 256)]
Side: TypeAlias = Annotated[int, Between(1, 4096)]
"""Of a picture, pixels."""
Share: TypeAlias = Annotated[float, Between(0, 1)]
Factor: TypeAlias = Annotated[float, Between(0, 100)]
MOST_FRAME_BYTES = 32 << 20
"""Of all cameras at one step."""


class ConfigError(ValueError):
    """A configuration that does not describe a policy."""


@dataclass(frozen=True)
class TransformerShape:
    """A Qwen3 stack: grouped-query attention with `kv_heads`, SwiGLU of width `ffn`."""

    hidden: Width
    layers: Few
    heads: Few
    kv_heads: Few
    head_dim: Annotated[int, Between(2, 1024)]
    ffn: Width
    rope_theta: Annotated[float, Between(1, 1e9)]


@dataclass(frozen=True)
class VisionShape:
    """A Qwen3-VL vision tower; `merge` x `merge` patches of `patch_px` become one token of the language model."""

    hidden: Width
    layers: Few
    heads: Few
    ffn: Width
    patch_px: Few
    merge: Annotated[int, Between(1, 16)]
    temporal_patch: Annotated[int, Between(1, 16)]
    position_grid: Annotated[int, Between(1, 512)]
    deepstack_layers: Annotated[tuple[Annotated[int, Between(0, 255)], ...], Sized(0, 64)]


@dataclass(frozen=True)
class PrefixPerturbation:
    """How the committed prefix that the decoder is given in training is perturbed; what it is to answer is not.

    A prefix of demonstrations is always right, and a decoder that has seen no other takes "nothing will move" for
    "stay", whatever the picture says: at its goal an arm then drifts, and nothing pulls it back.
    """

    share: Share = 0.0
    """Of the windows whose prefix is perturbed; 0 leaves all of them as demonstrated."""
    gain: tuple[Factor, Factor] = (0.0, 1.2)
    """The prefix times a factor drawn from here: too slow, too fast, or not at all."""
    offset: Factor = 0.6
    """Plus an offset, the same in all its steps: normal, of a size drawn up to this, in normalised units."""
    step_noise: Factor = 0.3
    """Plus noise of its own in every step, this share of the offset's size."""

    def __post_init__(self) -> None:
        low, high = self.gain
        checks = (
            (0.0 <= self.share <= 1.0, "prefix_perturbation.share must lie between 0 and 1"),
            (0.0 <= low <= high < float("inf"), "prefix_perturbation.gain must be two factors from 0, ascending"),
            (0.0 <= self.offset < float("inf"), "prefix_perturbation.offset must not be negative"),
            (0.0 <= self.step_noise < float("inf"), "prefix_perturbation.step_noise must not be negative"),
        )
        for holds, message in checks:
            if not holds:
                raise ConfigError(message)


@dataclass(frozen=True)
class PolicyConfig:
    """The three parts of the policy and how they are joined and trained."""

    vision: VisionShape
    text: TransformerShape
    encoder: TransformerShape
    decoder: TransformerShape
    vocabulary: Annotated[int, Between(1, 1 << 21)]
    mrope_section: tuple[Few, Few, Few]
    tied_image_tokens: tuple[Annotated[int, Between(0, 1 << 21)], Annotated[int, Between(0, 1 << 21)]]
    """Token ids of vision start and vision end, which enclose every image as Qwen3-VL expects."""

    horizon: Few = 15
    """[P] H, actions per chunk."""
    history: Few = 15
    """[P] H_h, state-action pairs in the history token."""
    action_slots: Few = 37
    """[P]"""
    state_slots: Few = 74
    """[P]"""

    embodiments: Annotated[int, Between(1, 4096)] = 16
    """[ours] Rows of the soft-prompt tables."""
    soft_prompt_tokens: Annotated[int, Between(0, 256)] = 4
    """[ours] Tokens of p_k, in the VLM and in the encoder."""
    cameras: Annotated[int, Between(1, 16)] = 1
    """[ours]"""
    frame_px: tuple[Side, Side] = (128, 128)
    """[ours] Height and width of the raw uint8 frames."""
    image_px: tuple[Side, Side] = (96, 96)
    """[ours] Height and width after the resize inside the backbone."""
    token_budget: Annotated[int, Between(1, 4096)] = 16
    """[ours] Instruction tokens; shorter instructions are padded and masked, longer ones refused."""
    projector_width: Annotated[int, Between(0, 1 << 17)] = 0
    """[ours] Hidden width of the projectors between z and the VLM; 0 makes them linear."""
    encoder_causal: bool = False
    """[ours] Causal attention in the encoder (cls then stands last); default bidirectional, cls first."""
    decoder_causal: bool = False
    """[ours] Causal attention over the chunk in the decoder; default bidirectional."""
    latent_injection: Literal["token", "add"] = "token"
    """[ours] z enters the decoder as one token before the chunk, or is added to every action token."""
    flow_steps: Annotated[int, Between(1, 1000)] = 10
    """[ours] Euler steps from noise to chunk."""
    target_time: bool = False
    """Whether the decoder is also told where a step ends, so that one step can lead to the chunk (arXiv:2604.05656)."""
    noise_scale: Share = 1.0
    """[ours] What the robot multiplies the noise by that a chunk starts from; 0 starts every chunk in the middle."""
    flow_time_beta: tuple[Annotated[float, Between(1e-3, 1e3)], Annotated[float, Between(1e-3, 1e3)]] = (1.0, 1.0)
    """[ours] r ~ Beta(a, b) in training; (1, 1) is uniform."""
    time_width: Annotated[int, Between(2, 1 << 14)] = 128
    """[ours] Width of the sine-cosine embedding of r."""
    max_delay: Annotated[int, Between(0, 255)] = 6
    """[ours] Training delays d are drawn from 0..max_delay (training-time real-time chunking, arXiv:2512.05964)."""
    prefix_perturbation: PrefixPerturbation = PrefixPerturbation()
    """[ours] What happens in training to the committed prefix before the decoder sees it."""
    loss_on_unused_slots: bool = False
    """[ours] Whether slots that an embodiment does not use count in the loss."""
    without_history: Share = 0.5
    """[P] Share of a stage-2 batch that goes without the history token: the paper averages both losses."""
    history_passes: Literal["sampled", "both"] = "sampled"
    """[ours] A share of every batch goes without the history token, or every window goes both ways, as in the paper."""
    history_compressor: Literal["encoder", "mlp", "none"] = "encoder"
    """[P] What makes z_hist of the history: the encoder, a plain MLP, or nothing, and then there is no such token."""
    encoder_sees: Literal["states and actions", "actions"] = "states and actions"
    """[P] What the tokens of the encoder's trajectories are."""
    history_gradient: bool = True
    """[ours] Whether the VLA loss reaches the encoder through the history token."""
    pose_weight: Annotated[float, Between(0, 1e6)] = 0.0
    """[ours] Weight of a linear readout of the newest state from z; 0 leaves it away, as the paper does."""
    normalisation_quantile: Annotated[float, Between(0, 0.5)] = 0.01
    """[ours] Statistics span this quantile to its mirror, so outliers do not set the scale."""

    def __post_init__(self) -> None:
        checks = (
            (
                all(side % (self.vision.patch_px * self.vision.merge) == 0 for side in self.image_px),
                f"image_px {self.image_px} must be multiples of patch_px x merge",
            ),
            (
                self.cameras * self.frame_px[0] * self.frame_px[1] * 3 <= MOST_FRAME_BYTES,
                f"{self.cameras} frames of {self.frame_px} are more than {MOST_FRAME_BYTES >> 20} MB a step",
            ),
            (0 <= self.max_delay < self.horizon, "max_delay must be below the horizon"),
            (
                self.pose_weight == 0.0 or self.encoder_sees != "actions",
                "an encoder that sees only actions cannot know the pose: set pose_weight to 0",
            ),
            (0 < self.normalisation_quantile < 0.5, "normalisation_quantile must lie between 0 and 0.5"),
            (sum(self.mrope_section) * 2 == self.text.head_dim, "mrope_section must add up to half of text.head_dim"),
        )
        for holds, message in checks:
            if not holds:
                raise ConfigError(message)

    @property
    def latent(self) -> int:
        """Width of z, z' and z_hist: the encoder's own width."""
        return self.encoder.hidden

    @property
    def image_tokens(self) -> int:
        """Language-model tokens per image."""
        side = self.vision.patch_px * self.vision.merge
        return (self.image_px[0] // side) * (self.image_px[1] // side)

    def to_plain(self) -> dict[str, Any]:
        """Plain numbers, strings, lists and dicts, as a checkpoint stores them."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_plain(plain: dict[str, Any]) -> PolicyConfig:
        """Inverse of `to_plain`. Raises `ConfigError` for a field that is missing, unknown or out of bounds."""
        try:
            config: PolicyConfig = typed(PolicyConfig, plain)
        except ReadError as error:
            raise ConfigError(str(error)) from None
        return config

    def checked(self) -> PolicyConfig:
        """The same, once every field has been held against its bounds. Raises `ConfigError`."""
        return PolicyConfig.from_plain(self.to_plain())


SEEN_BY_A_BACKBONE = (
    *("vision", "text", "vocabulary", "mrope_section", "tied_image_tokens", "embodiments", "soft_prompt_tokens"),
    *("cameras", "frame_px", "image_px", "token_budget", "projector_width", "latent"),
)


def seen_by(config: PolicyConfig) -> dict[str, Any]:
    """What a backbone's weights are made for, its shapes and what it is shown: they fit where this is equal."""
    return {name: getattr(config, name) for name in SEEN_BY_A_BACKBONE}


PERTURBED = PrefixPerturbation(share=0.6)
"""What every preset trains with. A checkpoint that names no perturbation was trained without one."""


def tiny(vocabulary: int = 64) -> PolicyConfig:
    """The same classes at a size that trains on two CPU cores."""
    action = TransformerShape(hidden=128, layers=3, heads=4, kv_heads=2, head_dim=32, ffn=320, rope_theta=1e4)
    return PolicyConfig(
        vision=VisionShape(
            hidden=96,
            layers=3,
            heads=4,
            ffn=192,
            patch_px=8,
            merge=2,
            temporal_patch=2,
            position_grid=12,
            deepstack_layers=(0, 1),
        ),
        text=TransformerShape(hidden=128, layers=4, heads=4, kv_heads=2, head_dim=32, ffn=256, rope_theta=1e4),
        encoder=action,
        decoder=action,
        vocabulary=vocabulary,
        mrope_section=(6, 5, 5),
        tied_image_tokens=(2, 3),
        pose_weight=1.0,
        noise_scale=0.0,
        prefix_perturbation=PERTURBED,
    )


def lift(vocabulary: int = 64) -> PolicyConfig:
    """Two cameras at full resolution, a little larger than `tiny`: what lifting takes. 15 MB in FP32."""
    small = tiny(vocabulary)
    return dataclasses.replace(
        small,
        vision=dataclasses.replace(small.vision, hidden=128, ffn=256, position_grid=16, deepstack_layers=(0,)),
        text=dataclasses.replace(small.text, layers=5, ffn=384),
        decoder=dataclasses.replace(small.decoder, layers=4),
        cameras=2,
        image_px=(128, 128),
        without_history=0.25,
    )


def paper() -> PolicyConfig:
    """Qwen3-VL-2B and twice Qwen3-0.6B, as in the paper; sizes from the models' public config.json files."""
    qwen3_06b = TransformerShape(hidden=1024, layers=28, heads=16, kv_heads=8, head_dim=128, ffn=3072, rope_theta=1e6)
    return PolicyConfig(
        vision=VisionShape(
            hidden=1024,
            layers=24,
            heads=16,
            ffn=4096,
            patch_px=16,
            merge=2,
            temporal_patch=2,
            position_grid=48,
            deepstack_layers=(5, 11, 17),
        ),
        text=TransformerShape(hidden=2048, layers=28, heads=16, kv_heads=8, head_dim=128, ffn=6144, rope_theta=5e6),
        encoder=qwen3_06b,
        decoder=qwen3_06b,
        vocabulary=151936,
        mrope_section=(24, 20, 20),
        tied_image_tokens=(151652, 151653),
        soft_prompt_tokens=16,
        cameras=2,
        frame_px=(256, 256),
        image_px=(224, 224),
        token_budget=48,
        projector_width=2048,
        time_width=256,
        prefix_perturbation=PERTURBED,
    )


PRESETS = {"tiny": tiny, "lift": lift, "paper": paper}
