"""Operations and bytes against sums done by hand, and the method against a published figure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from bench.boards import GROOT, ORIN, REACHED, predicted_published, seconds
from bench.cpu_model import CpuRoof, is_cold, median_roof, size_classes
from bench.graph_cost import GraphCost, NodeCost, at_depth, count_file, count_graph, in_precision, stacks
from bench.roof import Effort, SizeClass, class_ops_s, element_rates, peak_ops_s
from edge.engines.memory_plan import TARGETS


def model(nodes: list, inputs: dict, outputs: dict, weights: dict[str, np.ndarray], inside: dict | None = None):  # type: ignore[no-untyped-def, type-arg]
    def infos(shapes: dict) -> list:  # type: ignore[type-arg]
        return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]

    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(
        nodes, "g", infos(inputs), infos(outputs), tensors, value_info=infos(inside) if inside else None
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])


def weight(*shape: int, kind: type = np.float32) -> np.ndarray:
    return np.zeros(shape, kind)


def test_a_product_counts_two_operations_per_pair_and_its_weight_once() -> None:
    found = count_graph(
        model(
            [helper.make_node("MatMul", ["x", "w"], ["y"])],
            {"x": [1, 5, 8]},
            {"y": [1, 5, 3]},
            {"w": weight(8, 3)},
        ),
        "g",
    )
    (node,) = found.nodes
    assert (found.operations, found.weight_bytes, found.moved_bytes) == (2 * 5 * 8 * 3, 4 * 8 * 3, 4 * (40 + 15))
    assert (node.kind, node.rows, node.inner, node.columns, node.precision) == ("gemm", 5, 8, 3, "fp32")


def test_an_attentions_own_product_has_no_weight() -> None:
    nodes = [helper.make_node("MatMul", ["q", "k"], ["s"])]
    found = count_graph(model(nodes, {"q": [4, 6, 2], "k": [4, 2, 6]}, {"s": [4, 6, 6]}, {}), "g")
    assert (found.operations, found.weight_bytes) == (2 * 4 * 6 * 2 * 6, 0)
    assert found.nodes[0].kind == "batched"


def test_an_int8_weight_is_read_as_bytes_and_restoring_it_is_free() -> None:
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["r"], axis=1),
        helper.make_node("MatMul", ["x", "r"], ["y"]),
    ]
    weights = {"w": weight(8, 3, kind=np.int8), "s": weight(3), "z": weight(3, kind=np.int8)}
    found = count_graph(model(nodes, {"x": [5, 8]}, {"y": [5, 3]}, weights, {"r": [8, 3]}), "g")
    assert len(found.nodes) == 1
    assert (found.nodes[0].precision, found.weight_bytes) == ("int8", 24)


def test_a_convolution_counts_every_tap() -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"])]
    found = count_graph(model(nodes, {"x": [1, 3, 4, 4]}, {"y": [1, 2, 3, 3]}, {"w": weight(2, 3, 2, 2)}), "g")
    assert found.operations == 2 * (2 * 3 * 3) * (3 * 2 * 2)
    assert found.weight_bytes == 4 * 24


def test_a_value_without_a_shape_is_an_error() -> None:
    nodes = [helper.make_node("Add", ["x", "x"], ["a"]), helper.make_node("Add", ["a", "x"], ["y"])]
    with pytest.raises(ValueError, match="no shape for 'a'"):
        count_graph(model(nodes, {"x": [2]}, {"y": [2]}, {}), "g")


def stack(layers: int) -> GraphCost:
    nodes, inside, weights, last = [], {}, {"head": weight(8, 8)}, "x"
    for index in range(layers):
        name = f"layers.{index}.w"
        weights[name] = weight(8, 8)
        nodes.append(helper.make_node("MatMul", [last, name], [f"v{index}"]))
        nodes.append(helper.make_node("Add", [f"v{index}", f"v{index}"], [f"a{index}"]))
        inside |= {f"v{index}": [5, 8], f"a{index}": [5, 8]}
        last = f"a{index}"
    nodes.append(helper.make_node("MatMul", [last, "head"], ["y"]))
    return count_graph(model(nodes, {"x": [5, 8]}, {"y": [5, 8]}, weights, inside), "g")


def test_four_layers_say_what_nine_cost() -> None:
    short, long = stack(4), stack(9)
    assert stacks(short) == {"layers": 4}
    deep = at_depth(short, {"layers": 9})
    for figure in ("operations", "weight_bytes", "moved_bytes"):
        assert getattr(deep, figure) == getattr(long, figure)
    with pytest.raises(ValueError, match="at least 3"):
        at_depth(stack(2), {"layers": 9})


def test_a_lower_precision_reads_fewer_bytes_in_the_layers_alone() -> None:
    found = in_precision(stack(4), "int8")
    assert found.weight_bytes == 4 * 64 + 64 * 4, "the head between network and slots stays FP32"


def test_a_shipped_engine_reads_the_weights_that_the_export_counted(bundle_path: Path) -> None:
    import json

    said = json.loads((bundle_path / "verification.json").read_text())["read_bytes"]
    for name in ("history_encoder", "action_decoder"):
        found = count_file(bundle_path / f"{name}.onnx")
        assert 0.9 * said[name] <= found.weight_bytes <= said[name]


def test_the_method_gives_the_published_figure_of_gr00t_on_orin() -> None:
    """Floor 13.7 ms and 14.33 ms measured, by its authors; without the share of the bandwidth it would be 10.7."""
    predicted_ms = predicted_published(GROOT)
    assert predicted_ms == pytest.approx(GROOT.floor_ms, rel=0.02)
    assert predicted_ms == pytest.approx(GROOT.measured_ms, rel=0.05)
    assert predicted_ms <= GROOT.measured_ms
    assert 1e3 * seconds("agx-orin", 0, GROOT.bytes_read / 4, "bf16") == pytest.approx(10.66, abs=0.01)


def test_a_board_takes_the_slower_of_computing_and_reading() -> None:
    assert REACHED.keys() == TARGETS.keys()
    assert seconds("agx-orin", 42.6e12, 0, "bf16") == pytest.approx(1.0)
    assert seconds("agx-orin", 85.2e12, 0, "int8", ORIN) == pytest.approx(1 / 0.68)
    assert seconds("agx-orin", 42.6e12, 2 * 204.8e9, "bf16") == pytest.approx(2.0)


def node(operations: float, rows: int, weight_bytes: float) -> NodeCost:
    return NodeCost("MatMul", "gemm", "fp32", operations, weight_bytes, 0, rows=rows, inner=1024, columns=1024)


def test_a_prediction_is_the_sum_of_its_nodes() -> None:
    cost = GraphCost("g", (node(4e9, 16, 4e6), NodeCost("Add", "light", "fp32", 1e3, 0, 12e3)))
    assert not is_cold(cost)
    classes = size_classes([cost])
    (size,) = classes
    assert size == SizeClass("fp32", 1, 16, 20, False)
    roof = CpuRoof(1, 10e9, {"fp32": 100e9, "int8": 200e9}, {size: 50e9}, {"overhead": 1e-6, "light": 1e-9})
    assert roof.predicted_s(cost) == pytest.approx(4e9 / 50e9 + 1e-6 + 12e-6)
    assert roof.floor_s(cost) == pytest.approx(4e9 / 100e9)


def test_a_roof_of_several_times_is_the_middle_of_each_figure() -> None:
    size = SizeClass("fp32", 1, 16, 20, True)
    roofs = [CpuRoof(1, rate, {"fp32": 10 * rate}, {size: 11 - rate}, {"overhead": rate}) for rate in (1.0, 9.0, 2.0)]
    found = median_roof(roofs)
    assert (found.stream_bytes_s, found.peak_ops_s, found.class_ops_s) == (2.0, {"fp32": 20.0}, {size: 9.0})
    assert found.elements == {"overhead": 2.0}


def test_the_roof_of_this_machine_can_be_measured() -> None:
    """Orders of magnitude: a wrong unit or a product that was not run falls outside."""
    effort = Effort(2, 0.0)
    assert 1e9 < peak_ops_s("fp32", 1, effort) < 1e13
    example = NodeCost("MatMul", "gemm", "int8", 2.0 * 16 * 256 * 256, 0, 0, rows=16, inner=256, columns=256)
    assert 1e8 < class_ops_s(SizeClass.of(example, False), example, 1, effort) < 1e14
    rates = element_rates(1 << 14, 1, effort)
    assert 0 < rates["overhead"] < 1e-3 and rates.keys() == {"overhead", "light", "heavy", "move", "softmax"}
