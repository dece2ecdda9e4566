"""From a measured roof to an engine's time on this machine.

An engine is the sum of its nodes. A product takes its operations at the rate of its size class; anything else its bytes
at the rate of its kind, and every node what a node costs at least. ONNX Runtime merges the norms (`x / sqrt(mean(x^2) +
e)`) into their last product and runs what stands on constants once, so those count nothing.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from bench.graph_cost import GraphCost, NodeCost
from bench.machine import l3_bytes
from bench.roof import DEFAULT_L3, Effort, SizeClass, class_ops_s, element_rates, peak_ops_s, stream_bytes_s

Key = TypeVar("Key")
MERGED = {"Pow", "ReduceMean", "Sqrt", "Div"}
"""What ONNX Runtime's norm takes in; its Mul is counted."""
COLD_SHARE = 0.5
"""Weights above this share of the last-level cache are read from memory: other arrays want to live there too."""


@dataclass(frozen=True)
class CpuRoof:
    """What was measured. `class_ops_s` are operations per second, `elements` seconds per node or per byte."""

    threads: int
    stream_bytes_s: float
    peak_ops_s: dict[str, float]
    class_ops_s: dict[SizeClass, float]
    elements: dict[str, float]

    def floor_s(self, cost: GraphCost) -> float:
        """The classical roofline: no product is faster than the peak, no weight comes faster than the memory gives."""
        compute_s = sum(node.operations / self.peak_ops_s[_integer(node)] for node in cost.products())
        return max(compute_s, cost.weight_bytes / self.stream_bytes_s if is_cold(cost) else 0.0)

    def predicted_s(self, cost: GraphCost) -> float:
        """What the engine should take here."""
        cold = is_cold(cost)
        return sum(self._node_s(node, cold) for node in cost.nodes)

    def share_of_products(self, cost: GraphCost) -> float:
        """How much of the predicted time is products."""
        cold = is_cold(cost)
        return sum(self._node_s(node, cold) for node in cost.products()) / self.predicted_s(cost)

    def _node_s(self, node: NodeCost, cold: bool) -> float:
        if node.kind in ("gemm", "batched", "conv"):
            return node.operations / self.class_ops_s[SizeClass.of(node, cold)]
        if node.op in MERGED or node.kind == "quantise":  # the rates of INT8 products include their Q and DQ
            return 0.0
        kind = "softmax" if node.op == "Softmax" else node.kind
        return self.elements["overhead"] + node.moved_bytes * self.elements[kind]

    def to_plain(self) -> dict[str, Any]:
        return {
            "threads": self.threads,
            "stream_bytes_s": self.stream_bytes_s,
            "peak_ops_s": self.peak_ops_s,
            "class_ops_s": {str(size): rate for size, rate in self.class_ops_s.items()},
            "elements": self.elements,
        }


def median_roof(roofs: Sequence[CpuRoof]) -> CpuRoof:
    """The middle of what was measured at several times, figure by figure."""

    def middle(tables: list[dict[Key, float]]) -> dict[Key, float]:
        return {key: statistics.median(table[key] for table in tables) for key in tables[0]}

    return CpuRoof(
        roofs[0].threads,
        statistics.median(roof.stream_bytes_s for roof in roofs),
        middle([roof.peak_ops_s for roof in roofs]),
        middle([roof.class_ops_s for roof in roofs]),
        middle([roof.elements for roof in roofs]),
    )


def is_cold(cost: GraphCost) -> bool:
    """Whether an engine's weights come from memory in every run."""
    held = {(node.inner, node.columns, node.layer, node.weight_bytes) for node in cost.products()}
    return sum(entry[3] for entry in held) > COLD_SHARE * (l3_bytes() or DEFAULT_L3)


def _integer(node: NodeCost) -> str:
    return "int8" if node.precision == "int8" else "fp32"


def size_classes(costs: list[GraphCost]) -> dict[SizeClass, NodeCost]:
    """Every size class of some engines, with the product of it that does the most work."""
    work: dict[SizeClass, dict[NodeCost, float]] = {}
    for cost in costs:
        cold = is_cold(cost)
        for node in cost.products():
            same = work.setdefault(SizeClass.of(node, cold), {})
            key = _bare(node)
            same[key] = same.get(key, 0.0) + node.operations
    return {size: max(found, key=lambda node: found[node]) for size, found in work.items()}


def _bare(node: NodeCost) -> NodeCost:
    return NodeCost(
        node.op, node.kind, node.precision, node.operations, 0.0, 0.0, node.batch, node.rows, node.inner, node.columns
    )


def measure_roof(costs: list[GraphCost], threads: int, effort: Effort, step: Callable[[], object]) -> CpuRoof:
    """Measures what the predictions for these engines need."""
    rates = {}
    for size, example in size_classes(costs).items():
        rates[size] = class_ops_s(size, example, threads, effort)
        step()
    sizes = [node.moved_bytes / 12 for cost in costs for node in cost.nodes if node.kind == "light"]
    middle = max(1024, round(statistics.median(sorted(sizes)[len(sizes) // 2 :]))) if sizes else 1 << 18
    return CpuRoof(
        threads,
        stream_bytes_s(effort),
        {precision: peak_ops_s(precision, threads, effort) for precision in ("fp32", "int8")},
        rates,
        element_rates(middle, threads, effort),
    )
