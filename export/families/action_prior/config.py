"""Every size and every choice of the policy, in frozen dataclasses.

Fields marked [P] are stated in the paper (arXiv:2606.26095); [ours] marks what it leaves open.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal


class ConfigError(ValueError):
    """A configuration that does not describe a policy."""


@dataclass(frozen=True)
class TransformerShape:
    """A Qwen3 stack: grouped-query attention with `kv_heads`, SwiGLU of width `ffn`."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    rope_theta: float


@dataclass(frozen=True)
class VisionShape:
    """A Qwen3-VL vision tower; `merge` x `merge` patches of `patch_px` become one token of the language model."""

    hidden: int
    layers: int
    heads: int
    ffn: int
    patch_px: int
    merge: int
    temporal_patch: int
    position_grid: int
    deepstack_layers: tuple[int, ...]


@dataclass(frozen=True)
class PrefixPerturbation:
    """How the committed prefix that the decoder is given in training is perturbed; what it is to answer is not.

    A prefix of demonstrations is always right, and a decoder that has seen no other takes "nothing will move" for
    "stay", whatever the picture says: at its goal an arm then drifts, and nothing pulls it back.
    """

    share: float = 0.0
    """Of the windows whose prefix is perturbed; 0 leaves all of them as demonstrated."""
    gain: tuple[float, float] = (0.0, 1.2)
    """The prefix times a factor drawn from here: too slow, too fast, or not at all."""
    offset: float = 0.6
    """Plus an offset, the same in all its steps: normal, of a size drawn up to this, in normalised units."""
    step_noise: float = 0.3
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
    vocabulary: int
    mrope_section: tuple[int, int, int]
    tied_image_tokens: tuple[int, int]
    """Token ids of vision start and vision end, which enclose every image as Qwen3-VL expects."""

    horizon: int = 15
    """[P] H, actions per chunk."""
    history: int = 15
    """[P] H_h, state-action pairs in the history token."""
    action_slots: int = 37
    """[P]"""
    state_slots: int = 74
    """[P]"""

    embodiments: int = 16
    """[ours] Rows of the soft-prompt tables."""
    soft_prompt_tokens: int = 4
    """[ours] Tokens of p_k, in the VLM and in the encoder."""
    cameras: int = 1
    """[ours]"""
    frame_px: tuple[int, int] = (128, 128)
    """[ours] Height and width of the raw uint8 frames."""
    image_px: tuple[int, int] = (96, 96)
    """[ours] Height and width after the resize inside the backbone."""
    token_budget: int = 16
    """[ours] Instruction tokens; shorter instructions are padded and masked, longer ones refused."""
    projector_width: int = 0
    """[ours] Hidden width of the projectors between z and the VLM; 0 makes them linear."""
    encoder_causal: bool = False
    """[ours] Causal attention in the encoder (cls then stands last); default bidirectional, cls first."""
    decoder_causal: bool = False
    """[ours] Causal attention over the chunk in the decoder; default bidirectional."""
    latent_injection: Literal["token", "add"] = "token"
    """[ours] z enters the decoder as one token before the chunk, or is added to every action token."""
    flow_steps: int = 10
    """[ours] Euler steps from noise to chunk."""
    target_time: bool = False
    """Whether the decoder is also told where a step ends, so that one step can lead to the chunk (arXiv:2604.05656)."""
    noise_scale: float = 1.0
    """[ours] What the robot multiplies the noise by that a chunk starts from; 0 starts every chunk in the middle."""
    flow_time_beta: tuple[float, float] = (1.0, 1.0)
    """[ours] r ~ Beta(a, b) in training; (1, 1) is uniform."""
    time_width: int = 128
    """[ours] Width of the sine-cosine embedding of r."""
    max_delay: int = 6
    """[ours] Training delays d are drawn from 0..max_delay (training-time real-time chunking, arXiv:2512.05964)."""
    prefix_perturbation: PrefixPerturbation = PrefixPerturbation()
    """[ours] What happens in training to the committed prefix before the decoder sees it."""
    loss_on_unused_slots: bool = False
    """[ours] Whether slots that an embodiment does not use count in the loss."""
    without_history: float = 0.5
    """[P] Share of a stage-2 batch that goes without the history token: the paper averages both losses."""
    history_passes: Literal["sampled", "both"] = "sampled"
    """[ours] A share of every batch goes without the history token, or every window goes both ways, as in the paper."""
    history_compressor: Literal["encoder", "mlp", "none"] = "encoder"
    """[P] What makes z_hist of the history: the encoder, a plain MLP, or nothing, and then there is no such token."""
    encoder_sees: Literal["states and actions", "actions"] = "states and actions"
    """[P] What the tokens of the encoder's trajectories are."""
    history_gradient: bool = True
    """[ours] Whether the VLA loss reaches the encoder through the history token."""
    pose_weight: float = 0.0
    """[ours] Weight of a linear readout of the newest state from z; 0 leaves it away, as the paper does."""
    normalisation_quantile: float = 0.01
    """[ours] Statistics span this quantile to its mirror, so outliers do not set the scale."""

    def __post_init__(self) -> None:
        checks = (
            (self.latent_injection in ("token", "add"), "latent_injection must be 'token' or 'add'"),
            (
                all(side % (self.vision.patch_px * self.vision.merge) == 0 for side in self.image_px),
                f"image_px {self.image_px} must be multiples of patch_px x merge",
            ),
            (0 <= self.max_delay < self.horizon, "max_delay must be below the horizon"),
            (0.0 <= self.without_history <= 1.0, "without_history must lie between 0 and 1"),
            (self.history_passes in ("sampled", "both"), "history_passes must be 'sampled' or 'both'"),
            (
                self.history_compressor in ("encoder", "mlp", "none"),
                "history_compressor must be 'encoder', 'mlp' or 'none'",
            ),
            (
                self.encoder_sees in ("states and actions", "actions"),
                "encoder_sees must be 'states and actions' or 'actions'",
            ),
            (self.pose_weight >= 0.0, "pose_weight must not be negative"),
            (
                self.pose_weight == 0.0 or self.encoder_sees != "actions",
                "an encoder that sees only actions cannot know the pose: set pose_weight to 0",
            ),
            (0.0 <= self.noise_scale <= 1.0, "noise_scale must lie between 0 and 1"),
            (self.flow_steps >= 1, "flow_steps must be at least 1"),
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
        """Inverse of `to_plain`. Raises `ConfigError` for a missing, unknown or ill-typed field."""
        if not isinstance(plain, dict):
            raise ConfigError("the configuration is not a mapping")
        nested = {
            "vision": VisionShape,
            "text": TransformerShape,
            "encoder": TransformerShape,
            "decoder": TransformerShape,
            "prefix_perturbation": PrefixPerturbation,
        }
        try:
            values = {key: nested[key](**_tuples(value)) if key in nested else value for key, value in plain.items()}
            return PolicyConfig(**_tuples(values))
        except TypeError as error:
            raise ConfigError(str(error).replace("__init__() ", "")) from None


SEEN_BY_A_BACKBONE = (
    *("vision", "text", "vocabulary", "mrope_section", "tied_image_tokens", "embodiments", "soft_prompt_tokens"),
    *("cameras", "frame_px", "image_px", "token_budget", "projector_width", "latent"),
)


def seen_by(config: PolicyConfig) -> dict[str, Any]:
    """What a backbone's weights are made for, its shapes and what it is shown: they fit where this is equal."""
    return {name: getattr(config, name) for name in SEEN_BY_A_BACKBONE}


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}


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
