"""All demonstrations in the memory of one device, and windows of them as tensors, with no copy from the host."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from edge.arms import load_arm
from edge.sim.lift_phrases import OBJECTS
from export.families.action_prior.batch import Draw, Window, perturbed_prefixes
from export.families.action_prior.config import PolicyConfig
from export.families.action_prior.embodiment import Embodiment, SlotStatistics
from export.families.action_prior.policy import Observation
from export.training.instructions import InstructionTokens
from export.training.mapping import shipped_mappings

PLACES = 15
"""What pointing is asked for: where the named object is and where all three are, and the named one from the tool."""
HELD_OUT_EVERY = 20
NEAR_GRIP, GRIP_WEIGHT = 6, 2.0
"""Steps this near to a motion of the gripper are drawn so much more often."""
SHIFT_PX, SHIFTED = 2, 0.5
BRIGHTNESS, CONTRAST, TINT = 0.10, 0.10, 0.05


@dataclass
class _Shard:
    arm: int
    lengths: NDArray[np.int64]
    states: NDArray[np.float32]
    actions: NDArray[np.float32]
    instruction: NDArray[np.int64]
    objects_m: NDArray[np.float32]
    targets: NDArray[np.int64]
    tool_m: NDArray[np.float32]


class Memory:
    """Shards as they come, then tensors. `arms` are profiles, in the order of their embodiments."""

    def __init__(
        self, config: PolicyConfig, arms: tuple[str, ...], instructions: tuple[str, ...], tokenizer: Tokenizer,
        device: torch.device, capacity: int, seed: int,
    ) -> None:  # fmt: skip
        self.config, self.arms, self.device = config, arms, device
        self.embodiments: tuple[Embodiment, ...] = ()
        self.episodes, self.attempts, self.steps = [0] * len(arms), 0, 0
        self._instructions = {text: number for number, text in enumerate(instructions)}
        self._text = InstructionTokens(tokenizer, instructions, config.token_budget)
        self._frames = torch.empty((capacity, config.cameras, *config.frame_px, 3), dtype=torch.uint8, device=device)
        self._shards: list[_Shard] = []
        self._generator = torch.Generator(device=device).manual_seed(seed)

    def add(self, path: Path) -> bool:
        """Takes one shard in, and deletes it; False when there is no room left."""
        with np.load(path, allow_pickle=False) as shard:
            count = len(shard["states"])
            if self.steps + count > len(self._frames):
                return False
            arm = self.arms.index(path.name.rsplit("-", 1)[0])
            self._frames[self.steps : self.steps + count].copy_(torch.from_numpy(shard["frames"]))
            instruction = np.array([self._instructions.get(str(task), -1) for task in shard["tasks"]])
            names = ("lengths", "states", "actions", "objects_m", "targets", "tool_m")
            self._shards.append(_Shard(arm=arm, instruction=instruction, **{name: shard[name] for name in names}))
            self.episodes[arm] += len(shard["lengths"])
            self.attempts += int(shard["attempts"])
            self.steps += count
        path.unlink()
        return True

    def fit(self) -> None:
        """Fixes the statistics of every arm from what is there."""
        found, scales = [], []
        for index, name in enumerate(self.arms):
            profile = load_arm(name)
            mapping = next(mapping for mapping in shipped_mappings() if profile.embodiment in mapping.robots)
            mine = [shard for shard in self._shards if shard.arm == index]
            quantile = self.config.normalisation_quantile
            states, actions = (
                np.concatenate([getattr(shard, what) for shard in mine]) for what in ("states", "actions")
            )
            action_slots = tuple(slot for group in mapping.actions for slot in group.slots)
            state_slots = tuple(slot for group in mapping.states for slot in group.slots)
            found.append(
                Embodiment(
                    name=mapping.name, index=index, step_s=mapping.step_s, joints=mapping.joints,
                    actions=SlotStatistics.fit(actions, action_slots, quantile, centred=True),
                    states=SlotStatistics.fit(states, state_slots, quantile, centred=False),
                )
            )  # fmt: skip
            places = np.concatenate([_places(shard) for shard in mine])
            scales.append((places.mean(axis=0), places.std(axis=0) + 1e-3))
        self.embodiments, self._scales = tuple(found), scales
        self.place_scale_m = torch.tensor(np.array([spread for _, spread in scales]), device=self.device).float()

    def settle(self) -> None:
        """Makes tensors of all shards that are there."""
        config, device = self.config, self.device
        states = np.zeros((self.steps, config.state_slots), np.float32)
        actions = np.zeros((self.steps, config.action_slots), np.float32)
        places = np.zeros((self.steps, PLACES), np.float32)
        columns = {name: np.zeros(self.steps, np.int64) for name in ("first", "end", "arm", "instruction", "episode")}
        at, number = 0, 0
        for shard in self._shards:
            rows = slice(at, at + len(shard.states))
            arm = self.embodiments[shard.arm]
            states[rows] = arm.states.spread_into(shard.states, config.state_slots)
            actions[rows] = arm.actions.spread_into(shard.actions, config.action_slots)
            mean, spread = self._scales[shard.arm]
            places[rows] = (_places(shard) - mean) / spread
            columns["arm"][rows], columns["instruction"][rows] = shard.arm, shard.instruction
            starts = at + np.concatenate([[0], np.cumsum(shard.lengths)[:-1]])
            columns["first"][rows] = np.repeat(starts, shard.lengths)
            columns["episode"][rows] = np.repeat(number + np.arange(len(starts)), shard.lengths)
            at, number = rows.stop, number + len(starts)
        columns["end"] = _ends(columns["episode"], columns["instruction"])
        instruction = torch.from_numpy(columns["instruction"]).clamp(min=0).numpy()
        ids, mask = self._text.of(instruction)
        self._states, self._actions = torch.from_numpy(states).to(device), torch.from_numpy(actions).to(device)
        self._places, self._ids, self._mask = torch.from_numpy(places).to(device), ids.to(device), mask.to(device)
        self._first, self._end = (torch.from_numpy(columns[name]).to(device) for name in ("first", "end"))
        self._arm = torch.from_numpy(columns["arm"]).to(device)
        slots = np.zeros((len(self.arms), config.action_slots), bool)
        for arm in self.embodiments:
            slots[arm.index, list(arm.actions.slots)] = True
        self._slots = torch.from_numpy(slots).to(device)
        held = columns["episode"] % HELD_OUT_EVERY == 0
        shown = (columns["instruction"] >= 0) & (columns["end"] - np.arange(self.steps) >= config.horizon // 2)
        weight = np.where(_near_grip(actions, columns), GRIP_WEIGHT, 1.0) * ~held
        for number in range(len(self.arms)):
            mine = columns["arm"] == number
            weight[mine] /= max(float((weight * mine * shown).sum()), 1.0)
        self._every = torch.from_numpy(weight).to(device)
        self._shown = torch.from_numpy(weight * shown).to(device)
        self.held_out = torch.from_numpy(np.flatnonzero(held & shown)).to(device)

    def draw_rows(self, batch: int, shown: bool) -> torch.Tensor:
        """Rows to train on: those that show what to do, or all, for stage 1. Every arm is drawn alike."""
        weights = self._shown if shown else self._every
        return torch.multinomial(weights, batch, replacement=True, generator=self._generator)

    def draw(self, batch: int) -> Draw:
        """What chance decides, as `draw_batch`, but on the device."""
        config, device, dice = self.config, self.device, self._generator
        pairs = (config.horizon, config.action_slots)
        chosen, strength, size = torch.rand(3, batch, device=device, generator=dice).unbind()
        gain, offset = perturbed_prefixes(
            config.prefix_perturbation,
            chosen,
            strength,
            size,
            torch.randn(batch, 1, config.action_slots, device=device, generator=dice),
            torch.randn(batch, *pairs, device=device, generator=dice),
        )
        return Draw(
            noise=torch.randn(batch, *pairs, device=device, generator=dice),
            time=torch.rand(batch, device=device, generator=dice),
            delay=torch.randint(0, config.max_delay + 1, (batch,), device=device, generator=dice),
            with_history=torch.rand(batch, device=device, generator=dice) >= config.without_history,
            one_step=torch.rand(batch, device=device, generator=dice) < 0.5,
            prefix_gain=gain,
            prefix_offset=offset,
        )

    def window(self, rows: torch.Tensor) -> Window:
        """As `export.training.data.Windows.window`."""
        config, device = self.config, self.device
        future = rows[:, None] + torch.arange(config.horizon, device=device)
        valid = future < self._end[rows][:, None]
        future = future.clamp(max=self.steps - 1)
        past = rows[:, None] - torch.arange(config.history, 0, -1, device=device)
        first = self._first[rows][:, None]
        moving = past >= first
        past = torch.maximum(past, first)
        return Window(
            states=self._states[future] * valid[..., None],
            actions=self._actions[future] * valid[..., None],
            valid=valid,
            slots=self._slots[self._arm[rows]],
            past_states=self._states[past],
            past_actions=self._actions[past] * moving[..., None],
            past_mask=torch.ones_like(moving),
            embodiment=self._arm[rows],
            given=torch.zeros_like(rows),
        )

    def observation(self, rows: torch.Tensor, augment: bool) -> Observation:
        """Frames and instructions; augmented ones are shifted by a pixel or two and otherwise lit, and are floats."""
        tokens, mask = self._ids[rows], self._mask[rows]
        if not augment:
            return Observation(self._frames[rows], tokens, mask)
        config, device, dice = self.config, self.device, self._generator
        (height, width), shape = config.frame_px, (len(rows), config.cameras, 1)

        def shifted(size: int) -> torch.Tensor:
            by = torch.randint(-SHIFT_PX, SHIFT_PX + 1, shape, device=device, generator=dice)
            by = by * (torch.rand(shape, device=device, generator=dice) < SHIFTED)
            return (torch.arange(size, device=device) + by).clamp(0, size - 1)

        camera = torch.arange(config.cameras, device=device)[None, :, None, None]
        picked = (rows[:, None, None, None], camera, shifted(height)[:, :, :, None], shifted(width)[:, :, None, :])
        frames = self._frames[picked].float()

        def factor(most: float, *channels: int) -> torch.Tensor:
            drawn = torch.rand(len(rows), config.cameras, 1, 1, *channels, device=device, generator=dice)
            return 1 + most * (2 * drawn - 1)

        light = factor(BRIGHTNESS, 1) * factor(TINT, 3)
        frames = (frames - 127.5) * factor(CONTRAST, 1) + 127.5
        return Observation((frames * light).clamp(0, 255), tokens, mask)

    def places(self, rows: torch.Tensor) -> torch.Tensor:
        """Where things are, in spreads from the mean, (batch, PLACES)."""
        return self._places[rows]


def _places(shard: _Shard) -> NDArray[np.float32]:
    rows = np.arange(len(shard.targets))
    named = shard.objects_m[rows, shard.targets]
    places = np.concatenate([named, shard.objects_m.reshape(len(rows), 3 * len(OBJECTS)), named - shard.tool_m], axis=1)
    return places.astype(np.float32)


def _ends(episode: NDArray[np.int64], instruction: NDArray[np.int64]) -> NDArray[np.int64]:
    """For every step the first one after it of another episode or another instruction."""
    changes = np.flatnonzero((np.diff(episode) != 0) | (np.diff(instruction) != 0)) + 1
    bounds = np.append(changes, len(episode))
    return bounds[np.searchsorted(bounds, np.arange(len(episode)), side="right")]


def _near_grip(actions: NDArray[np.float32], columns: dict[str, NDArray[np.int64]]) -> NDArray[np.bool_]:
    """Steps within `NEAR_GRIP` of one that moves the gripper, which is the last action slot in use."""
    moves = np.flatnonzero(np.abs(actions[:, -1]) > 0.1)
    near = np.zeros(len(actions), bool)
    for by in range(-NEAR_GRIP, NEAR_GRIP + 1):
        at = np.clip(moves + by, 0, len(actions) - 1)
        at = at[columns["episode"][at] == columns["episode"][moves]]
        near[at] = True
    return near
