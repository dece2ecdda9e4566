"""What the policy needs of an engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from edge.bundle import Bundle
from edge.errors import InputError


class EngineError(InputError):
    """An engine that cannot be opened, or is not the one the manifest describes."""


class Engine(Protocol):
    """A graph with static shapes. Fill `inputs` in place, call `run`, read `outputs`; nothing is allocated between.

    An input that is linked to another engine's output is the same array, or is left out where both are one buffer of
    the device; so is that output.
    """

    inputs: dict[str, NDArray[Any]]
    outputs: dict[str, NDArray[Any]]

    def run(self) -> None:
        """Computes the outputs from the inputs."""

    def describe(self) -> str:
        """What runs it: the provider the session really got."""


@dataclass(frozen=True)
class EngineDriver:
    """Base of the drivers: a choice of `--engine`, with the options of all of them."""

    threads: int = 1

    def check(self, bundle: Bundle) -> None:
        """Raises `EngineError` when it cannot run this bundle on this machine; opens nothing."""

    def open(self, bundle: Bundle, names: Sequence[str]) -> dict[str, Engine]:
        """Engines of the bundle by name, opened in this order and linked as its graph says. Raises `EngineError`."""
        raise NotImplementedError
