"""LeRobot's own code builds policies with random weights, saves them as training does, and runs them.

`python -m tools.lerobot.fixtures FAMILY... --out DIR` writes, for each, the folder that a user would hand over, and
LeRobot's answers to observations that anyone can make again (`inputs.py`). Runs in an environment of its own
(`make lerobot-fixtures`), without a network. Every weight is random, norms and their statistics too, so that no tensor
can be left out unnoticed.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1")

import lerobot
import numpy as np
import torch
import torchvision
from lerobot.configs import FeatureType, NormalizationMode, PolicyFeature, PreTrainedConfig
from lerobot.policies.factory import get_policy_class, make_pre_post_processors
from torch import nn

from tools.lerobot.inputs import Inputs, Observation, observations, write

JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
LOW = np.array([-95.0, -98.0, -90.0, -80.0, -150.0, 1.0], np.float32)
HIGH = np.array([101.0, 92.0, 94.0, 88.0, 140.0, 97.0], np.float32)
"""An SO-101's degrees and percent, as its recordings have them."""
OBSERVATIONS = 64


@dataclass(frozen=True)
class Made:
    """A policy with random weights: its folder is made from `policy`, `preprocessor` and `postprocessor`.

    `answer` runs LeRobot's whole path on one observation, with the policy and processors read back from the folder;
    answers of other kinds than a chunk go by name. `passing` are files that LeRobot alone needs for that.
    """

    policy: Any
    preprocessor: Any
    postprocessor: Any
    inputs: Inputs
    answer: Callable[[Any, Any, Any, Observation], torch.Tensor | dict[str, torch.Tensor]]
    weights: torch.dtype = torch.float32
    passing: tuple[Path, ...] = ()


# ---- What the families share.


def features(cameras: dict[str, tuple[int, int]]) -> dict[str, Any]:
    """`input_features` and `output_features` of an SO-101 with these cameras."""
    seen = {"observation.state": PolicyFeature(type=FeatureType.STATE, shape=(len(JOINTS),))}
    for name, size in cameras.items():
        seen[f"observation.images.{name}"] = PolicyFeature(type=FeatureType.VISUAL, shape=(3, *size))
    acted = {"action": PolicyFeature(type=FeatureType.ACTION, shape=(len(JOINTS),))}
    return {"input_features": seen, "output_features": acted, "device": "cpu", "push_to_hub": False}


def statistics(cameras: dict[str, tuple[int, int]], seed: int) -> dict[str, dict[str, torch.Tensor]]:
    """A dataset's statistics, as LeRobot keeps them."""
    rng = np.random.default_rng(seed)
    made: dict[str, dict[str, Any]] = {}
    for key in ("observation.state", "action"):
        low = LOW + rng.uniform(0, 8, len(LOW))
        high = HIGH - rng.uniform(0, 8, len(HIGH))
        middle, spread = (low + high) / 2 + rng.uniform(-8, 8, len(LOW)), (high - low) / rng.uniform(4, 6, len(LOW))
        made[key] = {"min": low, "max": high, "mean": middle, "std": spread, "count": [1000]}
        for name, part in (("q01", 0.02), ("q10", 0.15), ("q50", 0.5), ("q90", 0.85), ("q99", 0.98)):
            made[key][name] = low + part * (high - low)
    for name in cameras:
        made[f"observation.images.{name}"] = {
            "mean": rng.uniform(0.4, 0.5, (3, 1, 1)),
            "std": rng.uniform(0.2, 0.3, (3, 1, 1)),
            "min": np.zeros((3, 1, 1)),
            "max": np.ones((3, 1, 1)),
        }
    return {
        key: {name: torch.as_tensor(np.asarray(value, np.float32)) for name, value in values.items()}
        for key, values in made.items()
    }


def inputs_for(seed: int, cameras: dict[str, tuple[int, int]], **more: Any) -> Inputs:
    """Observations of that arm, all over its range."""
    frames = {f"observation.images.{name}": size for name, size in cameras.items()}
    return Inputs(seed, OBSERVATIONS, frames, LOW.tolist(), HIGH.tolist(), **more)


def unsettle(policy: nn.Module, seed: int) -> None:
    """Random values for norms, their running statistics and biases: what starts as one or zero proves nothing."""
    generator = torch.Generator().manual_seed(seed)
    for module in policy.modules():
        for name, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            if name in ("running_mean", "bias"):
                tensor.data.add_(0.1 * torch.randn(tensor.shape, generator=generator))
            elif name == "running_var" or (name == "weight" and tensor.ndim == 1):
                tensor.data.mul_(0.7 + 0.6 * torch.rand(tensor.shape, generator=generator))


def prepared(seen: Observation, step: int = -1) -> dict[str, Any]:
    """One observation as LeRobot's robots hand it to the preprocessor."""
    pictures = {key: torch.from_numpy(frames[step]).permute(2, 0, 1) / 255 for key, frames in seen.frames.items()}
    return {"observation.state": torch.from_numpy(seen.states[step]), **pictures, "task": seen.task}


def answer_at_once(policy: Any, preprocessor: Any, postprocessor: Any, seen: Observation) -> torch.Tensor:
    """Of a policy that sees one observation and draws nothing."""
    return postprocessor(policy.predict_action_chunk(preprocessor(prepared(seen))))[0]


def narrow_resnet(width: int) -> Callable[..., nn.Module]:
    """torchvision's ResNet-18 with `width` channels in its first stage instead of 64: 45 MB become less than one."""

    class Narrow(torchvision.models.ResNet):  # type: ignore[misc]
        def _make_layer(self, block: Any, planes: int, blocks: int, stride: int = 1, dilate: bool = False) -> nn.Module:
            return super()._make_layer(block, planes * width // 64, blocks, stride, dilate)

    def build(weights: None = None, norm_layer: Any = None, **more: Any) -> nn.Module:
        assert weights is None
        basic = torchvision.models.resnet.BasicBlock
        made = Narrow(basic, [0, 0, 0, 0], norm_layer=norm_layer, **more)
        norm = norm_layer or nn.BatchNorm2d
        made.inplanes = width
        made.conv1, made.bn1 = nn.Conv2d(3, width, 7, 2, 3, bias=False), norm(width)
        for index, planes in enumerate((64, 128, 256, 512)):
            setattr(made, f"layer{index + 1}", made._make_layer(basic, planes, 2, stride=1 if index == 0 else 2))
        made.fc = nn.Linear(8 * width, 1)
        return made

    return build


# ---- The families: each builds its policy and says how it is asked.


def act() -> Made:
    """The defaults, smaller."""
    from lerobot.policies.act.configuration_act import ACTConfig
    from lerobot.policies.act.modeling_act import ACTPolicy

    torchvision.models.resnet18 = narrow_resnet(8)
    cameras = {"front": (64, 96), "wrist": (64, 96)}
    config = ACTConfig(
        **features(cameras), pretrained_backbone_weights=None, chunk_size=20, n_action_steps=10,
        dim_model=64, n_heads=4, dim_feedforward=128, n_encoder_layers=2, n_vae_encoder_layers=1, latent_dim=8,
    )  # fmt: skip
    torch.manual_seed(1)
    policy = ACTPolicy(config)
    unsettle(policy, 2)
    pre, post = make_pre_post_processors(config, dataset_stats=statistics(cameras, 3))
    return Made(policy, pre, post, inputs_for(4, cameras), answer_at_once)


def act_variant() -> Made:
    """What the defaults leave out: norms first, gelu, two decoder layers, no VAE, other statistics, a camera renamed,
    weights in BF16, pictures without statistics."""
    from lerobot.policies.act.configuration_act import ACTConfig
    from lerobot.policies.act.modeling_act import ACTPolicy

    torchvision.models.resnet18 = narrow_resnet(8)
    cameras = {"camera1": (48, 64)}
    config = ACTConfig(
        **features(cameras), pretrained_backbone_weights=None, chunk_size=12, n_action_steps=12, dim_model=32,
        n_heads=2, dim_feedforward=64, n_encoder_layers=1, n_decoder_layers=2, use_vae=False, latent_dim=4,
        pre_norm=True, feedforward_activation="gelu",
        normalization_mapping={
            "VISUAL": NormalizationMode.MEAN_STD,
            "STATE": NormalizationMode.QUANTILES,
            "ACTION": NormalizationMode.QUANTILE10,
        },
    )  # fmt: skip
    torch.manual_seed(11)
    policy = ACTPolicy(config)
    unsettle(policy, 12)
    numbers = statistics({}, 13)
    pre, post = make_pre_post_processors(config, dataset_stats=numbers)
    pre.steps[0].rename_map = {"observation.images.top": "observation.images.camera1"}
    return Made(policy, pre, post, inputs_for(14, {"top": (48, 64)}), answer_at_once, torch.bfloat16)


def act_full() -> Made:
    """The defaults as they are: 52 M parameters, two cameras of 480 x 640. Too large to commit."""
    from lerobot.policies.act.configuration_act import ACTConfig
    from lerobot.policies.act.modeling_act import ACTPolicy

    cameras = {"front": (480, 640), "wrist": (480, 640)}
    torch.manual_seed(51)
    policy = ACTPolicy(config := ACTConfig(**features(cameras), pretrained_backbone_weights=None))
    unsettle(policy, 52)
    pre, post = make_pre_post_processors(config, dataset_stats=statistics(cameras, 53))
    return Made(policy, pre, post, replace(inputs_for(54, cameras), count=8), answer_at_once)


def answer_diffusion(policy: Any, preprocessor: Any, postprocessor: Any, seen: Observation) -> torch.Tensor:
    """Both observations go into the policy's own queues; a DDPM scheduler gets its noise, one row a step."""
    from diffusers.schedulers import scheduling_ddpm
    from lerobot.policies.utils import populate_queues

    policy.reset()
    for step in range(len(seen.states)):
        batch = dict(preprocessor(prepared(seen, step)))
        batch["observation.images"] = torch.stack([batch[key] for key in policy.config.image_features], dim=-4)
        batch = {key: value for key, value in batch.items() if key in policy._queues and key != "action"}
        policy._queues = populate_queues(policy._queues, batch)
    rows = iter(seen.noise.get("step_noise", ()))
    scheduling_ddpm.randn_tensor = lambda *_, **__: torch.from_numpy(next(rows))[None]
    chunk = policy.predict_action_chunk(batch, noise=torch.from_numpy(seen.noise["noise"])[None])
    return postprocessor(chunk)[0]


def diffusion() -> Made:
    """DDIM, one encoder for both cameras with group norms, pictures resized and cropped, weights in FP16."""
    from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
    from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy

    torchvision.models.resnet18 = narrow_resnet(16)
    cameras = {"front": (72, 96), "wrist": (72, 96)}
    config = DiffusionConfig(
        **features(cameras), pretrained_backbone_weights=None, use_group_norm=True, horizon=16, n_action_steps=15,
        use_separate_rgb_encoder_per_camera=False, resize_shape=(60, 64), crop_ratio=0.9,
        spatial_softmax_num_keypoints=16, down_dims=(32, 64), kernel_size=3, n_groups=4, diffusion_step_embed_dim=32,
        noise_scheduler_type="DDIM", num_inference_steps=10,
    )  # fmt: skip
    torch.manual_seed(21)
    policy = DiffusionPolicy(config)
    unsettle(policy, 22)
    pre, post = make_pre_post_processors(config, dataset_stats=statistics(cameras, 23))
    inputs = inputs_for(24, cameras, history=2, noise={"noise": (16, len(JOINTS))})
    return Made(policy, pre, post, inputs, answer_diffusion, torch.float16)


def diffusion_variant() -> Made:
    """DDPM, an encoder for each camera, batch norms, no crop, the sample itself predicted, biases alone modulated."""
    from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
    from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy

    torchvision.models.resnet18 = narrow_resnet(8)
    cameras = {"front": (48, 64), "wrist": (48, 64)}
    config = DiffusionConfig(
        **features(cameras), pretrained_backbone_weights=None, use_group_norm=False, horizon=8, n_action_steps=7,
        spatial_softmax_num_keypoints=8, down_dims=(16, 32), n_groups=4, diffusion_step_embed_dim=16,
        use_film_scale_modulation=False, num_train_timesteps=50, num_inference_steps=5, beta_schedule="linear",
        prediction_type="sample", clip_sample_range=1.5,
    )  # fmt: skip
    torch.manual_seed(31)
    policy = DiffusionPolicy(config)
    unsettle(policy, 32)
    pre, post = make_pre_post_processors(config, dataset_stats=statistics(cameras, 33))
    noise = {"noise": (8, len(JOINTS)), "step_noise": (5, 8, len(JOINTS))}
    return Made(policy, pre, post, inputs_for(34, cameras, history=2, noise=noise), answer_diffusion)


def enliven(policy: nn.Module, seed: int) -> None:
    """Weights large enough that every input shows in the answer, and all of them such that BF16 holds them.

    A transformer's first weights are so small that hardly anything but the residual stream comes through.
    """
    generator = torch.Generator().manual_seed(seed)
    for tensor in policy.parameters():
        drawn = torch.randn(tensor.shape, generator=generator)
        if tensor.ndim > 1:
            tensor.data.copy_((drawn * tensor[0].numel() ** -0.5).bfloat16())
        else:
            tensor.data.add_(0.2 * drawn).copy_(tensor.data.bfloat16())


VOCABULARY = 304
TASKS = ("pick up the green can", "reach the blue cube", "put it into the box on the left, slowly")


def tokenizer(folder: Path, specials: dict[str, str], beginning: bool) -> Any:
    """A tokenizer of our own, in place of one that is licensed; with `beginning`, texts start with <bos>."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = ["<pad>", "<eos>", "<bos>", *specials.values()]
    made.train_from_iterator(
        [*TASKS, "Task: reach the cube, State: 12 128 255 31 64 7;\nAction: "] * 5,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY - 4, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
        ),
    )
    if beginning:
        made.post_processor = processors.TemplateProcessing("<bos> $A", special_tokens=[("<bos>", 2)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>", extra_special_tokens=specials
    )
    fast.save_pretrained(folder)
    return fast


SMALL_VLM: dict[str, dict[str, Any]] = {
    "text": {
        "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 5, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 16, "vocab_size": VOCABULARY,
    },
    "vision": {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 64,
        "patch_size": 8,
    },
}  # fmt: skip
FULL_VLM: dict[str, dict[str, Any]] = {
    "text": {
        "hidden_size": 960, "intermediate_size": 2560, "num_hidden_layers": 32, "num_attention_heads": 15,
        "num_key_value_heads": 5, "head_dim": 64, "vocab_size": 49280, "rms_norm_eps": 1e-5, "rope_theta": 100_000.0,
    },
    "vision": {
        "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
        "image_size": 512, "patch_size": 16,
    },
}  # fmt: skip
"""SmolVLM2-500M's sizes, which SmolVLA is made of."""


def smolvlm(folder: Path, sizes: dict[str, dict[str, Any]], scale_factor: int) -> None:
    """The folder of a vision-language model that SmolVLA takes its sizes and its tokenizer from; it has no weights."""
    from transformers import SmolVLMConfig, SmolVLMImageProcessor, SmolVLMProcessor, SmolVLMVideoProcessor

    shutil.rmtree(folder, ignore_errors=True)
    specials = {
        "fake_image_token": "<fake_token_around_image>", "global_image_token": "<global-img>",
        "image_token": "<image>", "end_of_utterance_token": "<end_of_utterance>",
    }  # fmt: skip
    made = tokenizer(folder, specials, beginning=False)
    SmolVLMConfig(
        text_config={"model_type": "llama", "pad_token_id": 0, **sizes["text"]}, vision_config=sizes["vision"],
        scale_factor=scale_factor, image_token_id=made.convert_tokens_to_ids("<image>"),
    ).save_pretrained(folder)  # fmt: skip
    SmolVLMProcessor(SmolVLMImageProcessor(), made, SmolVLMVideoProcessor(), image_seq_len=16).save_pretrained(folder)


def answer_flow(policy: Any, preprocessor: Any, postprocessor: Any, seen: Observation) -> dict[str, torch.Tensor]:
    """The chunk without and with guidance by the rest of a chunk before it, and the tokens."""
    from lerobot.policies.rtc.configuration_rtc import RTCConfig

    def ask(rtc: RTCConfig | None, **more: Any) -> torch.Tensor:
        policy.config.rtc_config = rtc
        policy.init_rtc_processor()
        batch = preprocessor(prepared(seen))
        noise = torch.from_numpy(seen.noise["noise"])[None]
        return postprocessor(policy.predict_action_chunk(batch, noise=noise, **more))[0]

    chunk = ask(None)
    previous = torch.from_numpy(seen.noise["previous"])[None]
    guided = ask(RTCConfig(execution_horizon=len(previous[0])), inference_delay=2, prev_chunk_left_over=previous)
    tokens = preprocessor(prepared(seen))["observation.language.tokens"][0]
    padded = nn.functional.pad(tokens, (0, TOKENS - len(tokens)))
    return {"chunk": chunk, "guided": guided, "tokens": padded, "goals": postprocessor(previous)[0]}


TOKENS = 64
"""More than any budget: shorter ones are filled with zeros."""


def small_smolvla(seed: int, cameras: dict[str, tuple[int, int]], numbers: dict[str, Any]) -> Made:
    """The defaults, smaller, weights in BF16."""
    from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig
    from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy

    smolvlm(Path("smolvla_vlm"), SMALL_VLM, 2)
    config = SmolVLAConfig(
        **features(cameras), vlm_model_name="smolvla_vlm", num_vlm_layers=4, chunk_size=20, n_action_steps=10,
        resize_imgs_with_padding=(64, 64), num_steps=4,
    )  # fmt: skip
    torch.manual_seed(seed)
    policy = SmolVLAPolicy(config)
    enliven(policy, seed + 1)
    pre, post = make_pre_post_processors(config, dataset_stats=numbers)
    noise = {"noise": (20, 32), "previous": (9, len(JOINTS))}
    return Made(policy, pre, post, inputs_for(seed + 3, cameras, noise=noise, tasks=TASKS), answer_flow, torch.bfloat16)


def smolvla() -> Made:
    cameras = {"front": (48, 64), "wrist": (48, 64)}
    return small_smolvla(41, cameras, statistics(cameras, 43))


def smolvla_variant() -> Made:
    """What the defaults leave out: the expert attends to itself in every third layer, a camera renamed and one that
    nobody has, pictures of other sizes than the tower's, other statistics, pictures normalised, weights in FP16."""
    from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig
    from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy

    smolvlm(Path("smolvla_vlm"), SMALL_VLM, 2)
    cameras = {"camera1": (40, 30), "camera2": (48, 48)}
    config = SmolVLAConfig(
        **features(cameras), vlm_model_name="smolvla_vlm", num_vlm_layers=0, num_expert_layers=0, chunk_size=12,
        n_action_steps=12, resize_imgs_with_padding=(48, 48), num_steps=2, empty_cameras=1, prefix_length=80,
        self_attn_every_n_layers=3, expert_width_multiplier=0.5, max_state_dim=8, max_action_dim=6,
        pad_language_to="max_length", tokenizer_max_length=40, min_period=0.01, max_period=2.0,
        normalization_mapping={
            "VISUAL": NormalizationMode.MEAN_STD,
            "STATE": NormalizationMode.MIN_MAX,
            "ACTION": NormalizationMode.QUANTILES,
        },
    )  # fmt: skip
    torch.manual_seed(51)
    policy = SmolVLAPolicy(config)
    enliven(policy, 52)
    pre, post = make_pre_post_processors(config, dataset_stats=statistics(cameras, 53))
    pre.steps[0].rename_map = {"observation.images.top": "observation.images.camera1"}
    noise = {"noise": (12, 6), "previous": (9, len(JOINTS))}
    inputs = inputs_for(54, {"top": (40, 30), "camera2": (48, 48)}, noise=noise, tasks=TASKS)
    return Made(policy, pre, post, inputs, answer_flow, torch.float16)


def smolvla_full() -> Made:
    """SmolVLA at its own size, 450 million parameters, two cameras of 480 x 640; not committed."""
    from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig
    from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy

    smolvlm(Path("smolvla_full_vlm"), FULL_VLM, 4)
    cameras = {"front": (480, 640), "wrist": (480, 640)}
    policy = SmolVLAPolicy(config := SmolVLAConfig(**features(cameras), vlm_model_name="smolvla_full_vlm"))
    enliven(policy, 55)
    pre, post = make_pre_post_processors(config, dataset_stats=statistics(cameras, 56))
    inputs = replace(inputs_for(57, cameras, noise={"noise": (50, 32), "previous": (9, 6)}, tasks=TASKS), count=4)
    return Made(policy, pre, post, inputs, answer_flow, torch.bfloat16)


def narrow_gemma(module: Any) -> None:
    """Small stacks where the code has literals: sizes are replaced where they are read and where models are made."""

    def sizes(variant: str) -> Any:
        width, ffn = {"gemma_2b": (64, 96), "gemma_300m": (48, 64)}[variant]
        return module.GemmaConfig(width=width, depth=3, mlp_dim=ffn, num_heads=8, num_kv_heads=1, head_dim=16)

    def vlm(config: Any) -> Any:
        vision, text = config.vision_config, config.text_config
        vision.hidden_size, vision.intermediate_size, vision.num_hidden_layers = 64, 80, 2
        vision.projection_dim = config.projection_dim = text.hidden_size
        text.vocab_size = config._vocab_size = VOCABULARY
        config.image_token_id = config.image_token_index = VOCABULARY - 1
        return made_vlm(config=config)

    def expert(config: Any) -> Any:
        config.vocab_size = VOCABULARY
        return made_expert(config=config)

    made_vlm, made_expert = module.PaliGemmaForConditionalGenerationWithPiGemma, module.PiGemmaForCausalLM
    module.get_gemma_config = sizes
    module.PaliGemmaForConditionalGenerationWithPiGemma, module.PiGemmaForCausalLM = vlm, expert


def pi(
    kind: str, cls: str, seed: int, cameras: dict[str, tuple[int, int]], numbers: dict[str, Any], **more: Any
) -> Made:
    """pi0 or pi0.5, smaller, weights in BF16."""
    module = importlib.import_module(f"lerobot.policies.{kind}.modeling_{kind}")
    configuration = importlib.import_module(f"lerobot.policies.{kind}.configuration_{kind}")
    processor = importlib.import_module(f"lerobot.policies.{kind}.processor_{kind}")
    narrow_gemma(module)
    shutil.rmtree("pi_tokenizer", ignore_errors=True)
    tokenizer(Path("pi_tokenizer"), {}, beginning=True)
    named = processor.TokenizerProcessorStep  # the name of the tokenizer is a literal
    processor.TokenizerProcessorStep = lambda tokenizer_name, **options: named(tokenizer_name="pi_tokenizer", **options)
    config = getattr(configuration, f"{cls}Config")(
        **features(cameras), chunk_size=20, n_action_steps=10, num_inference_steps=3, image_resolution=(56, 56),
        action_feature_names=[f"{joint}.pos" for joint in JOINTS], **more,
    )  # fmt: skip
    torch.manual_seed(seed)
    policy = getattr(module, f"{cls}Policy")(config)
    enliven(policy, seed + 1)
    pre, post = make_pre_post_processors(config, dataset_stats=numbers)
    noise = {"noise": (20, 32), "previous": (9, len(JOINTS))}
    inputs = inputs_for(seed + 3, cameras, noise=noise, tasks=TASKS)
    return Made(policy, pre, post, inputs, answer_flow, torch.bfloat16)


def pi05() -> Made:
    """Actions relative to the state but for the gripper's; the state in the prompt."""
    cameras = {"base_0_rgb": (48, 64), "left_wrist_0_rgb": (64, 48)}
    return pi("pi05", "PI05", 61, cameras, statistics(cameras, 63), use_relative_actions=True)


def pi0() -> Made:
    """Absolute actions; a camera that nobody has."""
    cameras = {"base_0_rgb": (48, 64), "left_wrist_0_rgb": (56, 56)}
    return pi("pi0", "PI0", 81, cameras, statistics(cameras, 83), empty_cameras=1)


# ---- GR00T N1.7: beside its folder there are the base model's, for the sizes, and the vision-language model's.

CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{% for part in message.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}"
)
"""A template of our own, in the form of ChatML."""
GROOT_TASKS = ("Pick up the green can!", "reach the blue_cube", "Put it into the box on the left, slowly.")


def qwen3_vl(folder: Path) -> None:
    """The folder of a small Qwen3-VL: configuration, tokenizer and picture processor, no weights."""
    from transformers import Qwen2VLImageProcessor, Qwen3VLConfig, Qwen3VLVideoProcessor

    shutil.rmtree(folder, ignore_errors=True)
    names = ("im_start", "im_end", "vision_start", "vision_end", "image_pad", "video_pad")
    specials = {f"{name.replace('pad', 'token')}": f"<|{name}|>" for name in names}
    made = tokenizer(folder, specials, beginning=False)
    made.chat_template = CHAT
    made.save_pretrained(folder)
    ids = {name: made.convert_tokens_to_ids(f"<|{name}|>") for name in names}
    Qwen3VLConfig(
        text_config={
            **SMALL_VLM["text"], "rms_norm_eps": 1e-6,
            "rope_parameters": {
                "rope_type": "default", "rope_theta": 5e6, "mrope_section": [4, 2, 2], "mrope_interleaved": True,
            },
        },
        vision_config={
            "depth": 3, "hidden_size": 32, "intermediate_size": 64, "num_heads": 4, "patch_size": 8,
            "out_hidden_size": 64, "num_position_embeddings": 25, "deepstack_visual_indexes": [0, 2],
        },
        image_token_id=ids["image_pad"], video_token_id=ids["video_pad"], vision_start_token_id=ids["vision_start"],
        vision_end_token_id=ids["vision_end"], tie_word_embeddings=True,
    ).save_pretrained(folder)  # fmt: skip
    pictures = Qwen2VLImageProcessor(
        patch_size=8, merge_size=2, temporal_patch_size=2, size={"shortest_edge": 1024, "longest_edge": 65_536},
        image_mean=[0.5] * 3, image_std=[0.5] * 3,
    )  # fmt: skip
    pictures.save_pretrained(folder)
    Qwen3VLVideoProcessor(patch_size=8).save_pretrained(folder)


def groot_head(embodiments: int, layers: int, **more: Any) -> dict[str, Any]:
    """The base model's config, smaller."""
    stack = {"positional_embeddings": None, "num_attention_heads": 4, "attention_head_dim": 16, "dropout": 0.2}
    return {
        "model_name": "./groot_vlm", "dtype": "float32", "model_dtype": "float32", "select_layer": 4,
        "backbone_embedding_dim": 64, "input_embedding_dim": 64, "hidden_size": 40, "action_horizon": 20,
        "max_state_dim": 16, "max_action_dim": 12, "max_num_embodiments": embodiments, "max_seq_len": 24,
        "diffusion_model_cfg": {
            **stack, "num_layers": layers, "norm_type": "ada_norm", "final_dropout": True, "output_dim": 40,
            "interleave_self_attention": True,
        },
        "vl_self_attention_cfg": {**stack, "num_layers": 1, "final_dropout": True},
        **more,
    }  # fmt: skip


def answer_groot(policy: Any, preprocessor: Any, postprocessor: Any, seen: Observation) -> dict[str, torch.Tensor]:
    """As `answer_flow`. The model draws its noise itself, and its own overlap takes goals that are in range."""
    drawn = torch.randn

    def ask(**more: Any) -> torch.Tensor:
        torch.randn = lambda *_, **__: torch.from_numpy(seen.noise["noise"])[None].clone()
        try:
            return postprocessor(policy.predict_action_chunk(batch, **more))[0]
        finally:
            torch.randn = drawn

    batch = preprocessor(prepared(seen))
    ids, answers = batch["input_ids"][0], {"chunk": ask()}
    if "previous" in seen.noise:
        previous = torch.from_numpy(seen.noise["previous"])[None].clamp(-2, 2) / 2
        answers["guided"] = ask(inference_delay=2, prev_chunk_left_over=previous)
        answers["goals"] = postprocessor(previous)[0]
    return {**answers, "tokens": nn.functional.pad(ids, (0, 2 * TOKENS - len(ids)))}


def small_groot(
    name: str,
    seed: int,
    cameras: dict[str, tuple[int, int]],
    numbers: dict[str, Any],
    head: dict[str, Any],
    sidecars: dict[str, Any],
    **more: Any,
) -> Made:
    """GR00T N1.7, smaller, weights in BF16; computed in FP32, which LeRobot's default is not.

    sidecars  documents beside the base model's config
    """
    from lerobot.policies.groot import groot_n1_7, processor_groot
    from lerobot.policies.groot.configuration_groot import GrootConfig
    from lerobot.policies.groot.modeling_groot import GrootPolicy

    qwen3_vl(Path("groot_vlm"))
    processor_groot.GROOT_N1_7_BACKBONE_MODEL = "./groot_vlm"  # a literal
    base = Path(f"{name}_base")
    shutil.rmtree(base, ignore_errors=True)
    torch.manual_seed(seed)
    model = groot_n1_7.GR00TN17(groot_n1_7.GR00TN17Config(**head), load_backbone_weights=False)
    model.save_pretrained(base)
    for document, held in sidecars.items():
        (base / f"{document}.json").write_text(json.dumps(held, indent=1) + "\n")
    config = GrootConfig(
        **features(cameras), base_model_path=f"./{base}", use_bf16=False, max_state_dim=head["max_state_dim"],
        max_action_dim=head["max_action_dim"], **more,
    )  # fmt: skip
    policy = GrootPolicy(config)
    enliven(policy, seed + 1)
    generator = torch.Generator().manual_seed(seed + 2)
    for called, tensor in policy.named_parameters():
        if called.endswith(".W"):  # of every embodiment (inputs, outputs)
            size = tensor.shape[1] ** -0.5 * (0.3 if "action_decoder.layer2" in called else 1)
            tensor.data.copy_((size * torch.randn(tensor.shape, generator=generator)).bfloat16())
    pre, post = make_pre_post_processors(config, dataset_stats=numbers)
    noise = {"noise": (head["action_horizon"], head["max_action_dim"]), "previous": (9, len(JOINTS))}
    inputs = inputs_for(seed + 3, cameras, noise=noise, tasks=GROOT_TASKS)
    return Made(policy, pre, post, inputs, answer_groot, torch.bfloat16, (base / "model.safetensors",))


GROOT_PICTURES = {"processor_kwargs": {"image_target_size": [64, 64], "image_crop_size": [58, 58]}}


def groot() -> Made:
    """What a training on one's own dataset writes: absolute actions, pictures cropped."""
    cameras = {"front": (48, 64), "wrist": (48, 64)}
    return small_groot(
        "groot", 141, cameras, statistics(cameras, 143), groot_head(11, 4), {"processor_config": GROOT_PICTURES},
        chunk_size=20, n_action_steps=20,
    )  # fmt: skip


def groot_area() -> Made:
    """Pictures by OpenCV's area filter, smaller and then larger, their sides in the camera's ratio."""
    cameras = {"front": (60, 80)}
    pictures = {"image_target_size": [48, 48], "image_crop_size": [43, 43], "use_albumentations": True}
    sidecars = {"processor_config": {"processor_kwargs": pictures}, "embodiment_id": {"new_embodiment": 0}}
    made = small_groot(
        "groot_area", 171, cameras, statistics(cameras, 173), groot_head(1, 2), sidecars,
        chunk_size=20, n_action_steps=20,
    )  # fmt: skip
    return replace(made, inputs=replace(made.inputs, count=8))


def groot_variant() -> Made:
    """What the defaults leave out: groups of axes with statistics of their own, the arm's relative to the state row by
    row; pictures padded, in another order, with a remainder; a camera renamed; instructions as they are; states beyond
    their range; features as they are, which every block attends to, and none to itself; weights in FP16."""
    cameras = {"top": (40, 64), "wrist": (40, 64)}
    numbers, groups = statistics(cameras, 153), {"arm": slice(0, 5), "gripper": slice(5, 6)}
    rng = np.random.default_rng(154)

    def grouped(feature: str) -> dict[str, Any]:
        return {
            key: {name: value[part].tolist() for name, value in numbers[feature].items() if name != "count"}
            for key, part in groups.items()
        }

    least = -rng.uniform(20, 60, (12, 5))
    most = least + rng.uniform(50, 90, (12, 5))
    rows = {"min": least, "max": most, "mean": (least + most) / 2, "std": (most - least) / 4}
    relative = {name: row.tolist() for name, row in rows.items()}
    configs = [
        {"rep": rep, "type": "NON_EEF", "format": "DEFAULT", "state_key": None} for rep in ("RELATIVE", "ABSOLUTE")
    ]
    keys = list(groups)
    processor = {
        "modality_configs": {
            "so_arm": {
                "state": {"modality_keys": keys, "delta_indices": [0]},
                "action": {"modality_keys": keys, "action_configs": configs, "delta_indices": list(range(12))},
                "video": {"modality_keys": ["wrist", "top"], "delta_indices": [0]},
            }
        },
        "use_percentiles": True, "use_relative_action": True, "formalize_language": False, "clip_outliers": False,
        "image_target_size": [40, 40], "shortest_image_edge": 50, "crop_fraction": 0.9, "letter_box_transform": True,
    }  # fmt: skip
    sidecars = {
        "processor_config": {"processor_kwargs": processor},
        "embodiment_id": {"so_arm": 1},
        "statistics": {
            "so_arm": {
                "state": grouped("observation.state"),
                "action": grouped("action"),
                "relative_action": {"arm": relative},
            }
        },
    }
    head = groot_head(
        2, 3, action_horizon=16, use_vlln=False, vl_self_attention_cfg=None, add_pos_embed=False,
        use_alternate_vl_dit=False,
    )  # fmt: skip
    head["diffusion_model_cfg"]["interleave_self_attention"] = False
    made = small_groot(
        "groot_variant", 151, cameras, numbers, head, sidecars, chunk_size=14, n_action_steps=8,
        embodiment_tag="so_arm", num_inference_timesteps=3,
    )  # fmt: skip
    made.preprocessor.steps[0].rename_map = {"observation.images.above": "observation.images.top"}
    noise = {"noise": (16, head["max_action_dim"])}
    inputs = inputs_for(155, {"above": (40, 64), "wrist": (40, 64)}, noise=noise, tasks=GROOT_TASKS)
    return replace(made, inputs=inputs, weights=torch.float16)


# ---- Policies whose goals an arm can follow: LeRobot's own loss trains them to wave.

CENTRE = np.array([6.6, -56.3, 43.2, 56.2, 90.0, 48.2], np.float32)
"""Where a simulated SO-101 starts, as its recordings would have it."""
WAVE, WAVE_STEPS, WAVING_STEPS = 8.0, 10, 400
EYES = {"front": (64, 64), "wrist": (64, 64)}


def waving_numbers(relative: bool) -> dict[str, Any]:
    """Statistics of waving; relative actions say where to from where the arm is."""
    numbers = statistics(EYES, 0)
    middle = CENTRE * np.array([not relative] * 5 + [True])
    rows = {"observation.state": (CENTRE, 20.0), "action": (middle + WAVE / 2, WAVE)}
    for key, (centre, reach) in rows.items():
        low, high = (torch.as_tensor(np.asarray(centre + side * reach, np.float32)) for side in (-1, 1))
        numbers[key] |= {"mean": (low + high) / 2, "std": (high - low) / 4, "q01": low, "q99": high}
        if relative and key == "action":
            numbers[key] |= {"min": low, "max": high}
    return numbers


def waving(made: Made, relative: bool) -> Made:
    """Trains all but the vision tower: from wherever the arm is, there and back in ten steps, whatever is seen."""
    rng = np.random.default_rng(5)
    steps = np.arange(1, made.policy.config.chunk_size + 1)
    wave = (WAVE * (1 - np.cos(2 * np.pi * steps / WAVE_STEPS)) / 2).astype(np.float32)[:, None]
    weights = [tensor for name, tensor in made.policy.named_parameters() if "vis" not in name]
    for tensor in made.policy.parameters():
        tensor.requires_grad_(any(tensor is one for one in weights))
    optimiser = torch.optim.AdamW(weights, lr=2e-3, weight_decay=0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, WAVING_STEPS)
    torch.manual_seed(6)
    for _ in range(WAVING_STEPS):
        states = (CENTRE + 10 * rng.standard_normal((8, len(JOINTS)))).astype(np.float32)
        origin = np.where(np.array([relative] * 5 + [False]), states, CENTRE)
        frames = {
            f"observation.images.{name}": torch.from_numpy(rng.random((8, 3, *size), np.float32))
            for name, size in EYES.items()
        }
        batch = made.preprocessor(
            {
                "observation.state": torch.from_numpy(states), "action": torch.from_numpy(origin[:, None] + wave),
                "task": [TASKS[int(index)] for index in rng.integers(0, len(TASKS), 8)], **frames,
            }
        )  # fmt: skip
        loss, _ = made.policy.forward(batch)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        schedule.step()
    print(f"waving: loss {float(loss.detach()):.3f}", end="; ")
    return made


def smolvla_waving() -> Made:
    return waving(small_smolvla(101, EYES, waving_numbers(False)), False)


def pi05_waving() -> Made:
    return waving(
        pi("pi05", "PI05", 111, EYES, waving_numbers(True), use_relative_actions=True, tokenizer_max_length=80), True
    )


def pi0_waving() -> Made:
    return waving(pi("pi0", "PI0", 121, EYES, waving_numbers(False)), False)


def groot_waving() -> Made:
    numbers = waving_numbers(False)
    for key in ("observation.state", "action"):
        numbers[key] |= {"min": numbers[key]["q01"], "max": numbers[key]["q99"]}
    sidecars = {"processor_config": GROOT_PICTURES, "embodiment_id": {"new_embodiment": 0}}
    made = small_groot("groot_waving", 161, EYES, numbers, groot_head(1, 3), sidecars, chunk_size=20, n_action_steps=20)
    return waving(made, False)


def diffusion_full() -> Made:
    """The defaults but for DDIM with ten steps: 278 M parameters. Too large to commit."""
    from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
    from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy

    cameras = {"front": (240, 320), "wrist": (240, 320)}
    sampled = {"noise_scheduler_type": "DDIM", "num_inference_steps": 10, "n_action_steps": 63}
    torch.manual_seed(55)
    policy = DiffusionPolicy(
        config := DiffusionConfig(**features(cameras), **sampled, pretrained_backbone_weights=None)
    )
    unsettle(policy, 56)
    pre, post = make_pre_post_processors(config, dataset_stats=statistics(cameras, 57))
    inputs = inputs_for(58, cameras, history=2, noise={"noise": (64, len(JOINTS))})
    return Made(policy, pre, post, replace(inputs, count=8), answer_diffusion)


def wave_from(first: int, rows: int) -> np.ndarray:
    """Degrees away from where a wave starts, of rows from a step on: there and back in ten steps."""
    steps = np.arange(first, first + rows)
    return (WAVE * (1 - np.cos(2 * np.pi * steps / WAVE_STEPS)) / 2).astype(np.float32)[:, None]


def waving_goals(made: Made, rows: int, steps: int) -> Made:
    """Trains a policy that takes no text by its own loss, as `waving` does; rows begin at its first observation."""
    rng, config = np.random.default_rng(7), made.policy.config
    several, batch = config.n_obs_steps, 16
    goals = torch.from_numpy(np.tile(CENTRE + wave_from(2 - several, rows), (batch, 1, 1)))
    optimiser = torch.optim.AdamW(made.policy.parameters(), lr=1e-3, weight_decay=0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    torch.manual_seed(8)
    made.policy.train()
    for _ in range(steps):
        leading = (batch, several) if several > 1 else (batch,)
        states = (CENTRE + 10 * rng.standard_normal((*leading, len(JOINTS)))).astype(np.float32)
        seen = {
            f"observation.images.{name}": torch.from_numpy(rng.random((*leading, 3, *size), np.float32))
            for name, size in EYES.items()
        }
        held = made.preprocessor({"observation.state": torch.from_numpy(states), "action": goals, **seen})
        loss, _ = made.policy.forward({**held, "action_is_pad": torch.zeros(batch, rows, dtype=torch.bool)})
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(made.policy.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    print(f"waving: loss {float(loss.detach()):.4f}", end="; ")
    return made


def act_waving() -> Made:
    from lerobot.policies.act.configuration_act import ACTConfig
    from lerobot.policies.act.modeling_act import ACTPolicy

    torchvision.models.resnet18 = narrow_resnet(8)
    config = ACTConfig(
        **features(EYES), pretrained_backbone_weights=None, chunk_size=20, n_action_steps=10, use_vae=False,
        dim_model=32, n_heads=4, dim_feedforward=64, n_encoder_layers=1, latent_dim=4, dropout=0.0,
    )  # fmt: skip
    torch.manual_seed(131)
    policy = ACTPolicy(config)
    pre, post = make_pre_post_processors(config, dataset_stats=waving_numbers(False))
    return waving_goals(Made(policy, pre, post, inputs_for(132, EYES), answer_at_once), 20, 600)


def diffusion_waving() -> Made:
    """DDIM; the first of a chunk's goals, at the step of the earlier observation, is where the arm starts."""
    from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
    from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy

    torchvision.models.resnet18 = narrow_resnet(16)
    rows = 24
    config = DiffusionConfig(
        **features(EYES), pretrained_backbone_weights=None, use_group_norm=True, horizon=rows, n_action_steps=10,
        resize_shape=(32, 32), crop_ratio=1.0, spatial_softmax_num_keypoints=8, down_dims=(32, 64), kernel_size=3,
        n_groups=4, diffusion_step_embed_dim=32, noise_scheduler_type="DDIM", num_inference_steps=10,
    )  # fmt: skip
    torch.manual_seed(141)
    policy, numbers = DiffusionPolicy(config), waving_numbers(False)
    for held in (numbers["observation.state"], numbers["action"]):
        held |= {"min": held["q01"], "max": held["q99"]}
    pre, post = make_pre_post_processors(config, dataset_stats=numbers)
    inputs = inputs_for(142, EYES, history=2, noise={"noise": (rows, len(JOINTS))})
    return waving_goals(Made(policy, pre, post, inputs, answer_diffusion, torch.float16), rows, 1000)


FAMILIES: dict[str, Callable[[], Made]] = {
    made.__name__: made
    for made in (
        *(act, act_variant, diffusion, diffusion_variant, smolvla, smolvla_variant, pi05, pi0),
        *(groot, groot_variant, groot_area),
        *(act_waving, diffusion_waving, smolvla_waving, pi05_waving, pi0_waving, groot_waving),
    )
}
LARGE: dict[str, Callable[[], Made]] = {made.__name__: made for made in (smolvla_full, act_full, diffusion_full)}
"""Made when they are named."""


def make(name: str, out: Path) -> None:
    """Builds, saves, reads back, runs; prints how far LeRobot's answers spread and what the folder weighs."""
    made, folder = {**FAMILIES, **LARGE}[name](), out / name
    shutil.rmtree(folder, ignore_errors=True)
    made.policy.to(made.weights).eval().save_pretrained(folder)
    made.preprocessor.save_pretrained(folder)
    made.postprocessor.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    config = PreTrainedConfig.from_pretrained(folder)
    policy = get_policy_class(config.type).from_pretrained(folder, config=config).float().eval()
    pre, post = make_pre_post_processors(config, pretrained_path=str(folder))
    rows: dict[str, list[Any]] = {}
    for seen in observations(made.inputs):
        with torch.no_grad():
            answer = made.answer(policy, pre, post, seen)
        for key, value in (answer if isinstance(answer, dict) else {"chunk": answer}).items():
            rows.setdefault(key, []).append(value.numpy())
    answers = {key: np.stack(values) for key, values in rows.items()}
    chunks = answers["chunk"]
    write(folder, made.inputs, f"lerobot {lerobot.__version__}, torch {torch.__version__}", answers)
    for file in made.passing:
        file.unlink()
    size = sum(file.stat().st_size for file in folder.iterdir())
    spread = chunks.std(axis=0).mean(axis=0)
    print(f"{name}: {size / 1e6:.2f} MB, chunks {chunks.shape}, {chunks.min():.1f} to {chunks.max():.1f}", end=", ")
    print("spread over observations", " ".join(f"{axis:.2g}" for axis in spread), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "families",
        nargs="*",
        metavar="FAMILY",
        help=f"of {', '.join(FAMILIES)} (default: all of these), {', '.join(LARGE)}",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    os.chdir(args.out)  # a folder names its vision-language model as seen from here
    for name in args.families or FAMILIES:
        make(name, Path())


if __name__ == "__main__":
    main()
