"""What every stage's steps need: the clock, rates by it, several draws a window, averaged weights, a limit in time."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields

import torch

from export.families.action_prior.batch import Window
from export.families.action_prior.config import PolicyConfig
from export.families.action_prior.policy import Observation
from export.training.average import Average

DRAWS = 2
"""Noised chunks for every window: the decoder sees each latent so often."""
FINAL_SHARE, WARM_UP = 0.01, 0.03


class Clock:
    """Seconds since the job began."""

    def __init__(self, began: float) -> None:
        self._began = began

    def __call__(self) -> float:
        return time.time() - self._began


def zeros(config: PolicyConfig, batch: int, device: torch.device) -> tuple[Window, Observation]:
    """A batch of the right shapes, all zero."""
    row = torch.zeros(batch, dtype=torch.int64, device=device)
    pairs = (batch, config.horizon)
    window = Window(
        states=torch.zeros(*pairs, config.state_slots, device=device),
        actions=torch.zeros(*pairs, config.action_slots, device=device),
        valid=torch.ones(pairs, dtype=torch.bool, device=device),
        slots=torch.ones(batch, config.action_slots, dtype=torch.bool, device=device),
        past_states=torch.zeros(batch, config.history, config.state_slots, device=device),
        past_actions=torch.zeros(batch, config.history, config.action_slots, device=device),
        past_mask=torch.ones(batch, config.history, dtype=torch.bool, device=device),
        embodiment=row,
        given=row,
    )
    frames = torch.zeros(batch, config.cameras, *config.frame_px, 3, device=device)
    tokens = torch.zeros(batch, config.token_budget, dtype=torch.int64, device=device)
    look = Observation(frames, tokens, torch.ones_like(tokens, dtype=torch.bool))
    return window, look


def repeated(window: Window) -> Window:
    """Every window `DRAWS` times."""
    return Window(**{field.name: getattr(window, field.name).repeat_interleave(DRAWS, 0) for field in fields(Window)})


def rate_at(share: float) -> float:
    """Warm-up and cosine by the share of a stage that is over."""
    if share < WARM_UP:
        return max(share / WARM_UP, 0.02)
    return FINAL_SHARE + (1 - FINAL_SHARE) * 0.5 * (1 + math.cos(math.pi * min(1.0, (share - WARM_UP) / (1 - WARM_UP))))


@contextmanager
def applied(average: Average | None) -> Iterator[None]:
    if average is None:
        yield
        return
    with average.applied():
        yield


@contextmanager
def uncompiled() -> Iterator[None]:
    """Batches of another size are not worth compiling for."""
    with torch.compiler.set_stance("force_eager"):
        yield


@contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """Raises `TimeoutError` in here after so long."""

    def ring(*_: object) -> None:
        raise TimeoutError(f"more than {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
