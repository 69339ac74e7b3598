"""Older forms of the operators, and what the node tests of ONNX leave open, against stock ONNX Runtime."""

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import ModelProto, TensorProto

from compressor.errors import GraphTooLarge, UnsupportedModel
from compressor.graph.module import OnnxModule
from compressor.graph.ops import OPERATORS, supported_operators
from compressor.graph.program import Program
from compressor.graph.reader import read_graph
from compressor.graph.validate import parse_model
from tests.compressor.graph.models import model_of, node, values
from tests.compressor.graph.single_node import Case, assert_equals_onnx_runtime, run_ours, run_stock


def cases() -> list[Case]:
    found = []
    for axis in (0, 1, 2, -1):
        found += [Case(name, opset, (2, 3, 4), (), {"axis": axis}) for name in ("Softmax", "LogSoftmax", "Hardmax") for opset in (11, 13)]
    found += [Case(name, opset, (2, 3, 4)) for name in ("Softmax", "LogSoftmax", "Hardmax") for opset in (11, 13)]
    reductions = sorted(name for name in OPERATORS if name.startswith("Reduce"))
    for name in reductions:
        found += [Case(name, opset, (2, 3, 4), (), {"axes": [0, -1], "keepdims": keep}) for opset in (11, 12) for keep in (0, 1)]
        found += [Case(name, 18, (2, 3, 4), (np.array([1, -1]),), {"keepdims": 0}), Case(name, 18, (2, 3, 4)), Case(name, 11, (2, 3))]
    found += [Case("ReduceSum", 13, (2, 3), (np.array([], dtype=np.int64),), {"noop_with_empty_axes": 1})]
    found += [Case("Squeeze", 11, (1, 3, 1), (), {"axes": [-1]}), Case("Squeeze", 11, (1, 3, 1)), Case("Squeeze", 13, (1, 3, 1), ([0],))]
    found += [Case("Unsqueeze", 11, (2, 3), (), {"axes": [0, -1]}), Case("Unsqueeze", 13, (2, 3), ([3, 0],))]
    found += [
        Case("Split", 11, (7, 2), (), {"split": [3, 4], "axis": 0}, 2),
        Case("Split", 11, (2, 6), (), {"axis": -1}, 3),
        Case("Split", 13, (7, 2), ([5, 2],), {}, 2),
        Case("Split", 18, (7, 2), (), {"num_outputs": 3}, 3),
    ]
    found += [
        Case("Dropout", 11, (2, 3), (), {"ratio": 0.7}),
        Case("Dropout", 12, (2, 3), (np.float32(0.7), False)),
        Case("Clip", 11, (4, 5), (np.float32(-0.5), np.float32(0.5))),
        Case("Clip", 11, (4, 5), (None, np.float32(0.5))),
        Case("Clip", 13, (4, 5), (np.float32(0.5), np.float32(-0.5))),
        Case("Flatten", 11, (2, 3, 4), (), {"axis": -1}),
        Case("Flatten", 11, (2, 3, 4), (), {"axis": 0}),
        Case("Reshape", 11, (2, 3, 4), ([0, -1],)),
        Case("Reshape", 14, (0, 3), ([0, 7],), {"allowzero": 1}),
        Case("Slice", 11, (5, 6), ([4, 5], [-10, 0], [0, 1], [-2, -1])),
        Case("Slice", 11, (5, 6), ([1, 3], [9, 3])),
        Case("Slice", 11, (5, 6), ([-3], [2**62], [-1], [2])),
        Case("Gather", 11, (4, 5), (np.array([[0, -1], [2, 1]]),), {"axis": -1}),
        Case("Gather", 11, (4, 5), (np.array(2),), {"axis": 0}),
        Case("Expand", 11, (3, 1), ([2, 1, 4],)),
        Case("Expand", 11, (3, 4), ([1],)),
        Case("Tile", 11, (2, 3), ([2, 1],)),
        Case("GlobalLpPool", 11, (2, 3, 4, 5), (), {"p": 3}),
        Case("GlobalAveragePool", 11, (2, 3, 4)),
        Case("GlobalMaxPool", 11, (2, 3, 4, 2, 2)),
        Case("LRN", 13, (2, 7, 3, 3), (), {"size": 5, "alpha": 0.1, "beta": 0.6, "bias": 2.0}),
        *(
            Case("BatchNormalization", opset, (2, 3, 4), (values(3), values(3), values(3), np.ones(3, np.float32)))
            for opset in (11, 14, 15)
        ),
        Case("GroupNormalization", 21, (2, 6, 3), (values(6), values(6, seed=1)), {"num_groups": 2}),
    ]
    for mode in ("constant", "reflect", "edge"):
        found += [Case("Pad", 11, (3, 4), ([1, 2, 2, 3],), {"mode": mode}), Case("Pad", 11, (3, 4), ([0, -1, 1, 2],), {"mode": mode})]
    found += [Case("Pad", 11, (3, 4), ([1, 0, 0, 2], np.float32(3.5))), Case("Pad", 18, (3, 4), ([1, 2], None, [-1]))]
    found += [Case("Pad", 19, (3, 4), ([2, 5, 3, 4],), {"mode": "wrap"})]
    return found + transposed_cases() + image_cases() + pooling_cases()


def transposed_cases() -> list[Case]:
    found = []
    for auto_pad in ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"):
        options: list[dict[str, object]] = [{}, {"output_padding": [1, 1]}, {"output_shape": [9, 16]}, {"dilations": [2, 1]}]
        for kernel in ((3, 2), (2, 4), (1, 1)):
            weight = values(2, 3, *kernel)
            attributes = [{"auto_pad": auto_pad, "strides": [2, 3], **option} for option in options]
            found += [Case("ConvTranspose", opset, (1, 2, 5, 6), (weight,), given) for opset in (11, 22) for given in attributes]
    return found


def image_cases() -> list[Case]:
    grid = values(2, 4, 5, 2, seed=1)
    found = []
    for opset, modes in ((16, ("bilinear", "nearest", "bicubic")), (20, ("linear", "nearest", "cubic"))):
        for mode in modes:
            for padding in ("zeros", "border", "reflection"):
                attributes = {"mode": mode, "padding_mode": padding, "align_corners": int(padding == "border")}
                found.append(Case("GridSample", opset, (2, 3, 6, 7), (grid,), attributes))
    found += [Case("GridSample", 20, (2, 3, 4, 5, 6), (values(2, 2, 3, 4, 3),), {"mode": "linear"})]
    for align_corners in (0, 1):
        found += [Case("AffineGrid", 20, (2, 2, 3), (np.array([2, 3, 4, 5]),), {"align_corners": align_corners}, ranks=(4,))]
        found += [Case("AffineGrid", 20, (2, 3, 4), (np.array([2, 3, 4, 5, 6]),), {"align_corners": align_corners}, ranks=(5,))]
    uneven = {"pads": [1, 0, 2, 1], "strides": [2, 1], "dilations": [1, 2]}
    found += [
        Case("Col2Im", 18, (2, 12, 24), (np.array([5, 6]), np.array([2, 3])), {"strides": [1, 1], "pads": [1, 0, 1, 0]}, ranks=(4,)),
        Case("Col2Im", 18, (2, 12, 12), (np.array([5, 6]), np.array([2, 3])), uneven, ranks=(4,)),
    ]
    return found


def pooling_cases() -> list[Case]:
    windows: list[dict[str, object]] = [
        {"kernel_shape": [3, 2], "strides": [2, 1]},
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
        {"kernel_shape": [3, 3], "pads": [2, 0, 1, 2], "strides": [2, 3]},
        {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1},
        {"kernel_shape": [2, 2], "strides": [3, 3], "pads": [0, 0, 1, 1], "ceil_mode": 1},
        {"kernel_shape": [3, 2], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
        {"kernel_shape": [4, 3], "strides": [1, 2], "auto_pad": "SAME_LOWER"},
        {"kernel_shape": [3, 3], "auto_pad": "VALID"},
    ]
    shape = (2, 3, 8, 7)
    found = [Case("MaxPool", 12, shape, (), window) for window in windows]
    found += [Case("AveragePool", 19, shape, (), {**window, "count_include_pad": count}) for window in windows for count in (0, 1)]
    found += [Case("LpPool", 18, shape, (), {**window, "p": 3}) for window in windows if "ceil_mode" not in window]
    found += [Case("MaxPool", 12, shape, (), {"kernel_shape": [3, 2], "dilations": [2, 3], "pads": [1, 1, 0, 1]})]
    found += [Case("AveragePool", 19, shape, (), {"kernel_shape": [3, 2], "dilations": [2, 3], "pads": [1, 1, 2, 1]})]
    found += [Case("AveragePool", 11, (2, 3, 9), (), {"kernel_shape": [4], "strides": [3], "pads": [1, 2]})]
    places: dict[str, int] = {"y1": TensorProto.INT64}
    for storage_order in (0, 1):
        found += [Case("MaxPool", 12, shape, (), {**window, "storage_order": storage_order}, 2, types=places) for window in windows]
    found += [Case("MaxPool", 11, (2, 3, 9), (), {"kernel_shape": [4], "pads": [1, 2]}, 2, types=places)]
    found += [Case("MaxPool", 12, (1, 2, 4, 5, 6), (), {"kernel_shape": [2, 3, 2], "pads": [0, 1, 1, 1, 0, 0]}, 2, types=places)]
    return found


@pytest.mark.parametrize("operator", ["ReduceMean", "ReduceL1", "ReduceL2", "ReduceSumSquare"])
def test_a_reduction_of_integers_gives_integers(operator: str) -> None:
    x = np.array([[1, 2, 5, 9], [3, -4, -7, 1]], np.int32)
    nodes = [node(operator, ["x"], "r", axes=[1]), node("Cast", ["r"], "f", to=TensorProto.FLOAT), node("MatMul", ["f", "w"], "y")]
    model = model_of(nodes, {"x": ["n", 4]}, {"y": ["n", 2]}, {"w": values(1, 2)}, 13, {"x": TensorProto.INT32})
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = OnnxModule(model)(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(found, session.run(None, {"x": x})[0], rtol=1e-6)


@pytest.mark.parametrize("case", cases(), ids=str)
def test_operator_equals_onnx_runtime(case: Case) -> None:
    x = values(*case.shape)
    positive = "Log" in case.operator and case.operator.startswith("Reduce")
    assert_equals_onnx_runtime(case, np.abs(x) + 0.1 if positive else x)


def test_sequences_join_again() -> None:
    nodes = [
        node("SplitToSequence", ["x", "c0"], "parts", axis=1),
        node("SequenceAt", ["parts", "c1"], "last"),
        node("SequenceAt", ["parts", "c2"], "first"),
        node("SequenceConstruct", ["first", "first"], "pair"),
        node("ConcatFromSequence", ["pair"], "stacked", axis=0, new_axis=1),
        node("ConcatFromSequence", ["parts"], "joined", axis=1),
    ]
    outputs = {"last": [2, 1], "stacked": [2, 2, 2], "joined": [2, 5]}
    arrays = {"c0": np.array(2), "c1": np.array(-1), "c2": np.array(0)}
    model = parse_model(model_of(nodes, {"x": [2, 5]}, outputs, arrays).SerializeToString())
    x = values(2, 5)
    for ours, theirs in zip(run_ours(model, x), run_stock(model, x), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    "model",
    [
        model_of([node("ConstantOfShape", ["shape"], "y")], {"x": [1]}, {"y": [None, None]}, {"shape": np.array([2**20, 2**10])}),
        model_of([node("Expand", ["x", "shape"], "y")], {"x": [1]}, {"y": [None, None]}, {"shape": np.array([2**20, 2**10])}),
        model_of([node("Tile", ["x", "times"], "y")], {"x": [1]}, {"y": [None]}, {"times": np.array([2**30])}),
        model_of([node("Pad", ["x", "pads"], "y")], {"x": [1]}, {"y": [None]}, {"pads": np.array([0, 2**30])}),
        model_of(
            [node("Range", ["from", "to", "step"], "y")],
            {"x": [1]},
            {"y": [None]},
            {"from": np.float32(0), "to": np.float32(2**30), "step": np.float32(1)},
        ),
    ],
    ids=lambda model: model.graph.node[0].op_type,
)
def test_tensors_made_out_of_nothing_are_capped(model: ModelProto) -> None:
    with pytest.raises(GraphTooLarge, match="elements"):
        run_ours(model, np.zeros(1, np.float32))


def test_a_second_output_that_is_not_supported_is_refused() -> None:
    nodes = [node("LayerNormalization", ["x", "scale"], ["y", "mean"]), node("Neg", ["mean"], "z")]
    graph = read_graph(model_of(nodes, {"x": [1, 4]}, {"z": [1, 1]}, {"scale": values(4)}))
    with pytest.raises(UnsupportedModel, match="only the first output"):
        Program(graph.nodes, ["z"])


def test_the_table_of_supported_operators_is_complete() -> None:
    table = supported_operators()
    assert set(table) == set(OPERATORS) | {"Constant"}
    assert table["Conv"].family == "linear"
    assert table["Conv"].weights == "drawn for each half of the batch, or local reparameterisation where that is cheaper"
    assert table["Gemm"].weights == "local reparameterisation"
    assert list(table) == sorted(table)
