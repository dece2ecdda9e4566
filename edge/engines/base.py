"""What the policy needs of an engine."""

from __future__ import annotations

from typing import Any, Protocol

from numpy.typing import NDArray

from edge.errors import InputError


class EngineError(InputError):
    """An engine that cannot be opened, or is not the one the manifest describes."""


class Engine(Protocol):
    """A graph with static shapes. Fill `inputs` in place, call `run`, read `outputs`; nothing is allocated between."""

    inputs: dict[str, NDArray[Any]]
    outputs: dict[str, NDArray[Any]]

    def run(self) -> None:
        """Computes the outputs from the inputs."""

    def describe(self) -> str:
        """What runs it: the provider the session really got."""
