"""The roof of the machine at hand, measured: bandwidth, and how fast products of a size class run. Imports onnx.

Products run in ONNX Runtime, as the engines' do, with weights of their own for every product of a pass. Where an
engine's weights do not fit the last-level cache, neither do those of its size classes: the rate then includes
reading them.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnxruntime
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from bench.graph_cost import NodeCost
from bench.harness import Run
from bench.machine import l3_bytes

OPSET = 20
STREAM_BYTES = 256 << 20
DEFAULT_L3 = 32 << 20
MOST_WEIGHT_BYTES = 400 << 20
COLD_CACHES = 6
"""How many last-level caches full of weights are read in turn: with fewer, part of them would still be there."""
PEAK = (1024, 1024, 1024)
TINY, CHAIN = 64, 200


@dataclass(frozen=True)
class SizeClass:
    """Products that are expected to run at one rate: so many rows, and weights of about so many elements.

    `cold` classes read their weights from memory, the others from a cache.
    """

    precision: str
    batch: int
    rows: int
    weight_log2: int
    cold: bool

    @staticmethod
    def of(node: NodeCost, cold: bool) -> SizeClass:
        batch = node.batch if node.kind == "batched" else 1
        elements = max(1, node.inner * node.columns)
        return SizeClass(node.precision, batch, node.rows, round(math.log2(elements)), cold and node.kind != "batched")

    def __str__(self) -> str:
        heads = f"{self.batch} x " if self.batch > 1 else ""
        where = "memory" if self.cold else "cache"
        return f"{self.precision}, {heads}{self.rows} rows, weights of 2^{self.weight_log2} from {where}"


@dataclass(frozen=True)
class Effort:
    """How long to measure each thing: at least `runs` runs and `least_s` seconds of processor time.

    `threads` that are busy throughout share that time.
    """

    runs: int
    least_s: float
    threads: int = 1

    def median_s(self, run: Callable[[], object]) -> float:
        run()
        times: list[float] = []
        until = time.process_time() + self.least_s
        while len(times) < self.runs or time.process_time() < until:
            began_ns = time.process_time_ns()
            run()
            times.append((time.process_time_ns() - began_ns) / 1e9 / self.threads)
        return statistics.median(times)


def stream_bytes_s(effort: Effort) -> float:
    """Bytes per second of reading an array that no cache holds."""
    return STREAM_BYTES / replace(effort, threads=1).median_s(stream_run())


def stream_run() -> Run:
    """Reads `STREAM_BYTES` once, in one thread."""
    array = np.ones(STREAM_BYTES // 4, dtype=np.float32)
    return lambda: np.add.reduce(array)


def peak_ops_s(precision: str, threads: int, effort: Effort) -> float:
    """Operations per second of a product of 1024 x 1024 matrices that stay in the cache."""
    run, operations = peak_run(precision, threads)
    return operations / effort.median_s(run)


def peak_run(precision: str, threads: int) -> tuple[Run, float]:
    """One product of 1024 x 1024 matrices, and its operations."""
    rows, inner, columns = PEAK
    session, feed = _products(precision, 1, rows, inner, columns, copies=1, threads=threads)
    return lambda: session.run(None, feed), 2.0 * rows * inner * columns


def class_ops_s(size: SizeClass, example: NodeCost, threads: int, effort: Effort) -> float:
    """Operations per second of a size class, measured with the shape of one of its products."""
    each = example.inner * example.columns * (1 if size.precision == "int8" else 4)
    copies = 1
    if size.cold:
        cache = l3_bytes() or DEFAULT_L3
        copies = max(2, min(-(-COLD_CACHES * cache // each), MOST_WEIGHT_BYTES // each))
    session, feed = _products(size.precision, size.batch, example.rows, example.inner, example.columns, copies, threads)
    return copies * example.operations / effort.median_s(lambda: session.run(None, feed))


def element_rates(size: int, threads: int, effort: Effort) -> dict[str, float]:
    """Seconds per node (`overhead`), and per moved byte for each kind of node that is no product.

    size  elements of the tensors that are measured
    """
    overhead_s = effort.median_s(_chain("Add", TINY, threads)) / CHAIN
    rates = {"overhead": overhead_s}
    for kind, op in (("light", "Add"), ("heavy", "Sigmoid"), ("move", "Transpose"), ("softmax", "Softmax")):
        moved = 4.0 * size * (3 if op == "Add" else 2)
        length = 10
        rates[kind] = max(0.0, effort.median_s(_chain(op, size, threads, length)) / length - overhead_s) / moved
    return rates


def _chain(op: str, size: int, threads: int, length: int = CHAIN) -> Callable[[], object]:
    """`length` nodes of one kind in a row."""
    side = 1 << (max(2, size.bit_length() - 1) // 2)
    shape = [size // side, side]
    nodes, last = [], "x"
    for index in range(length):
        attributes: dict[str, Any] = {"perm": [1, 0]} if op == "Transpose" else {}
        nodes.append(helper.make_node(op, [last, "y"] if op == "Add" else [last], [f"v{index}"], **attributes))
        last = f"v{index}"
    turned = op == "Transpose" and length % 2
    out = shape[::-1] if turned else shape
    value = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    model = _model(nodes, {"x": shape, "y": shape} if op == "Add" else {"x": shape}, {last: out}, [])
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # or pairs would cancel
    session = _session(model, threads, options)
    feed = {"x": value, "y": value} if op == "Add" else {"x": value}
    return lambda: session.run(None, feed)


def _products(
    precision: str, batch: int, rows: int, inner: int, columns: int, copies: int, threads: int
) -> tuple[onnxruntime.InferenceSession, dict[str, np.ndarray]]:
    """`copies` products of one input with weights of their own, in the form that the export writes."""
    draw = np.random.default_rng(0)
    x = draw.standard_normal((batch, rows, inner), dtype=np.float32)
    if batch > 1:  # an attention's own product: both operands come from other nodes
        y = draw.standard_normal((batch, inner, columns), dtype=np.float32)
        node = helper.make_node("MatMul", ["x", "y"], ["out0"])
        model = _model([node], {"x": x.shape, "y": y.shape}, {"out0": (batch, rows, columns)}, [])
        return _session(model, threads), {"x": x, "y": y}
    nodes, tensors = [], []
    for index in range(copies):
        if precision == "int8":
            made, held = _int8_product(index, inner, columns, draw)
            nodes += made
            tensors += held
        else:
            tensors.append(numpy_helper.from_array(_weights(inner, columns, draw, index), f"w{index}"))
            nodes.append(helper.make_node("MatMul", ["x", f"w{index}"], [f"out{index}"]))
    outputs = {f"out{index}": (1, rows, columns) for index in range(copies)}
    return _session(_model(nodes, {"x": x.shape}, outputs, tensors), threads), {"x": x}


def _weights(inner: int, columns: int, draw: np.random.Generator, index: int) -> np.ndarray:
    return np.full((inner, columns), 0.01 * (1 + index % 7), dtype=np.float32)  # times do not depend on the values


def _int8_product(
    index: int, inner: int, columns: int, draw: np.random.Generator
) -> tuple[list[NodeProto], list[TensorProto]]:
    weights = draw.integers(-127, 128, (inner, columns), dtype=np.int8)
    tensors = [
        numpy_helper.from_array(weights, f"w{index}"),
        numpy_helper.from_array(np.full(columns, 0.01, np.float32), f"ws{index}"),
        numpy_helper.from_array(np.zeros(columns, np.int8), f"wz{index}"),
        numpy_helper.from_array(np.array(0.03 + 1e-4 * index, np.float32), f"xs{index}"),
        numpy_helper.from_array(np.array(0, np.int8), f"xz{index}"),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", f"xs{index}", f"xz{index}"], [f"q{index}"]),
        helper.make_node("DequantizeLinear", [f"q{index}", f"xs{index}", f"xz{index}"], [f"d{index}"]),
        helper.make_node("DequantizeLinear", [f"w{index}", f"ws{index}", f"wz{index}"], [f"r{index}"], axis=1),
        helper.make_node("MatMul", [f"d{index}", f"r{index}"], [f"out{index}"]),
    ]
    return nodes, tensors


def _model(nodes: list, inputs: dict, outputs: dict, tensors: list[TensorProto]) -> ModelProto:  # type: ignore[type-arg]
    def infos(shapes: dict) -> list:  # type: ignore[type-arg]
        return [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)) for name, shape in shapes.items()]

    graph = helper.make_graph(nodes, "roof", infos(inputs), infos(outputs), tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)


def _session(
    model: ModelProto, threads: int, options: onnxruntime.SessionOptions | None = None
) -> onnxruntime.InferenceSession:
    options = options or onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
