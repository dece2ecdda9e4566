"""How large the inputs of every product get, on observations: what static INT8 scales are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from export.engines.graphs import Graph
from export.engines.observations import Sample
from export.families.layers import Projection

SMOOTHING = 0.6
"""How much of the difference between channels moves from the inputs into the weight; 0 is none, 1 all of it."""
SMALLEST = 1e-5
Watcher = Callable[[str, int, torch.Tensor], None]
"""(projection, number of its product within one run, inputs (..., channels))"""


def large_projections(module: nn.Module) -> dict[str, Projection]:
    """The projections that may run in a lower precision, by the name of their module."""
    found = ((name, child) for name, child in module.named_modules() if isinstance(child, Projection))
    return {name: child for name, child in found if not child.precise}


def int8_projections(module: nn.Module) -> dict[str, Projection]:
    """Those of them that an INT8 engine runs as integers."""
    return {name: child for name, child in large_projections(module).items() if child.int8}


def calibrate(graph: Graph, samples: list[Sample], advance: Callable[[], object]) -> dict[str, list[float]]:
    """Smooths the graph's large projections in place, and returns the range of the inputs of each that runs in INT8.

    The ranges are keyed by the name of the weight: for each of its products, in the order in which they run, the
    largest absolute input. A decoder multiplies with every weight once per flow step, and each step has a range of
    its own: the state grows from noise to data. `samples` hold every input of the graph; each is run twice.
    """
    largest: dict[str, torch.Tensor] = {}

    def channels(name: str, _: int, x: torch.Tensor) -> None:
        seen = x.abs().flatten(0, -2).amax(0)
        largest[name] = torch.maximum(largest[name], seen) if name in largest else seen

    _run(graph, samples, channels, advance)
    projections = int8_projections(graph.module)
    for name, projection in projections.items():
        of_weight = projection.weight.abs().amax(1).clamp(min=SMALLEST)
        factors = largest[name].clamp(min=SMALLEST) ** SMOOTHING / of_weight ** (1 - SMOOTHING)
        projection.smooth(factors / factors.mean())
    ranges: dict[str, list[float]] = {f"{name}.weight": [] for name in projections}

    def products(name: str, call: int, x: torch.Tensor) -> None:
        if name not in projections:
            return
        calming, known = projections[name].calming, ranges[f"{name}.weight"]
        calmed = x if calming is None else x * calming
        known.extend([0.0] * (call + 1 - len(known)))
        known[call] = max(known[call], float(calmed.abs().max()))

    _run(graph, samples, products, advance)
    return ranges


@torch.no_grad()
def _run(graph: Graph, samples: list[Sample], watch: Watcher, advance: Callable[[], object]) -> None:
    for sample in samples:
        with _watched(graph.module, watch):
            graph.whole(*(sample[name] for name in graph.inputs))
        advance()


@contextmanager
def _watched(module: nn.Module, watch: Watcher) -> Iterator[None]:
    calls: dict[str, int] = {}

    def hook(name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        def before(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            calls[name] = calls.get(name, -1) + 1
            watch(name, calls[name], inputs[0])

        return before

    handles = [child.register_forward_pre_hook(hook(name)) for name, child in large_projections(module).items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
