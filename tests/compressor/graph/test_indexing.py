"""Operators that take, place and rearrange elements, in the forms of every opset, against stock ONNX Runtime."""

from collections.abc import Iterator, Mapping

import numpy as np
import pytest
import torch
from onnx import TensorProto

from compressor.errors import GraphTooLarge
from compressor.graph.module import OnnxModule
from compressor.graph.node import Node
from compressor.graph.ops import OPERATORS
from tests.compressor.graph.models import model_of, node, values
from tests.compressor.graph.single_node import Case, assert_equals_onnx_runtime

PLACES = {"y1": TensorProto.INT64}
COUNTS = {"y0": TensorProto.INT64}


def cases() -> Iterator[Case]:
    for opset in (11, 21):
        for attributes in ({}, {"axis": 0}, {"axis": -2, "largest": 0}):
            yield Case("TopK", opset, (3, 4, 5), (np.array([2]),), attributes, 2, types=PLACES)
    for opset in (11, 14):
        for attributes in ({}, {"exclusive": 1}, {"reverse": 1}, {"exclusive": 1, "reverse": 1}):
            yield Case("CumSum", opset, (3, 4), (np.array(-1),), attributes)
            yield Case("CumSum", opset, (3, 4), (np.array([0]),), attributes)
    yield from scatter_cases()
    for upper in (0, 1):
        yield Case("Trilu", 14, (2, 4, 5), (), {"upper": upper})
        yield from (Case("Trilu", 14, (2, 4, 5), (np.array(diagonal),), {"upper": upper}) for diagonal in (-9, -1, 2, 9))
    yield Case("EyeLike", 11, (3, 4))
    yield Case("EyeLike", 22, (3, 4), (), {"k": -1, "dtype": TensorProto.INT64}, types=COUNTS)
    yield Case("ReverseSequence", 11, (4, 3, 2), (np.array([1, 4, 2]),))
    yield Case("ReverseSequence", 11, (3, 4, 2), (np.array([1, 4, 0]),), {"batch_axis": 0, "time_axis": 1})
    yield Case("NonZero", 11, (2, 3, 4), types=COUNTS, ranks=(2,))
    yield Case("Compress", 11, (3, 4), (np.array([True, False, True]),), ranks=(1,))
    yield Case("Compress", 11, (3, 4), (np.array([False, True]),), {"axis": -1})
    yield Case("CenterCropPad", 18, (3, 6, 5), (np.array([6, 3, 5]),))
    yield Case("CenterCropPad", 18, (3, 6, 5), (np.array([7, 2]),), {"axes": [-1, 1]})
    yield Case("GatherElements", 11, (3, 4), (np.array([[0, -1], [2, 1]]),), {"axis": 1})
    yield Case("GatherND", 11, (2, 3, 4), (np.array([[0, 1], [1, -1]]),), ranks=(2,))
    yield Case("GatherND", 12, (2, 3, 4), (np.array([[1], [-1]]),), {"batch_dims": 1}, ranks=(2,))


def scatter_cases() -> Iterator[Case]:
    elements = (np.array([[0, -1, 1], [2, 0, -2]]), values(2, 3, seed=1))
    rows = (np.array([[0, -1], [1, 0]]), values(2, 4, seed=1))
    single = (np.array([[[0, 0, 1]], [[1, -1, -1]]]), values(2, 1, seed=1))
    for opset, reductions in ((11, [None]), (13, [None]), (16, ["none", "add", "mul"]), (18, ["none", "add", "mul", "max", "min"])):
        for reduction in reductions:
            attributes: Mapping[str, object] = {} if reduction is None else {"reduction": reduction}
            yield Case("ScatterElements", opset, (3, 4), elements, attributes)
            yield Case("ScatterElements", opset, (3, 4), elements, {**attributes, "axis": -1})
            yield Case("ScatterND", opset, (2, 3, 4), rows, attributes)
            yield Case("ScatterND", opset, (2, 3, 4), single, attributes)


@pytest.mark.parametrize("case", list(cases()), ids=str)
def test_it_equals_onnx_runtime(case: Case) -> None:
    assert_equals_onnx_runtime(case, values(*case.shape))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_one_hot_equals_onnx_runtime(axis: int) -> None:
    constants = (np.array(4), np.array([-1, 5], np.float32))
    case = Case("OneHot", 11, (2, 3), constants, {"axis": axis}, types={"x": TensorProto.INT64}, ranks=(3,))
    assert_equals_onnx_runtime(case, np.array([[0, 3, -1], [4, -4, -5]]))


@pytest.mark.parametrize("direction", ["LEFT", "RIGHT"])
def test_bit_shift_equals_onnx_runtime(direction: str) -> None:
    types = {"x": TensorProto.UINT8, "y0": TensorProto.UINT8}
    case = Case("BitShift", 11, (3,), (np.array([1, 2, 3], np.uint8),), {"direction": direction}, types=types)
    assert_equals_onnx_runtime(case, np.array([200, 7, 1], np.uint8))


def test_equal_values_are_taken_in_their_order() -> None:
    run = OPERATORS["TopK"].build(Node.from_proto(node("TopK", ["x", "k"], ["v", "i"]), 11))
    assert run(torch.tensor([[1.0, 3.0, 3.0, 1.0, 3.0]]), torch.tensor([4]))[1].tolist() == [[1, 2, 4, 0]]


def test_what_was_pooled_comes_back_to_its_place() -> None:
    nodes = [
        node("Conv", ["x", "w"], "c"),
        node("MaxPool", ["c"], ["small", "places"], kernel_shape=[2, 2], strides=[2, 2], pads=[1, 0, 0, 1]),
        node("MaxPool", ["c"], ["half", "even"], kernel_shape=[2, 2], strides=[2, 2]),
        node("MaxUnpool", ["half", "even"], "y", kernel_shape=[2, 2], strides=[2, 2]),
    ]
    model = model_of(nodes, {"x": ["n", 3, 6, 8]}, {"y": ["n", 2, 6, 8]}, {"w": values(2, 3, 1, 1)})
    module = OnnxModule(model)
    x = torch.from_numpy(values(4, 3, 6, 8))
    convolved = torch.nn.functional.conv2d(x, module.tensors()["w"])
    pooled, places = torch.nn.functional.max_pool2d(convolved, 2, return_indices=True)
    y = module(x)
    torch.testing.assert_close(y, torch.nn.functional.max_unpool2d(pooled, places, 2))
    y.square().sum().backward()
    assert module.tensors()["w"].grad is not None
    rows = torch.func.vmap(lambda row: module(row.unsqueeze(0)).squeeze(0))(x)
    torch.testing.assert_close(rows, y)


@pytest.mark.parametrize(
    ("operator", "attributes", "inputs"),
    [
        ("OneHot", {}, (torch.zeros(4, dtype=torch.int64), torch.tensor(2**30), torch.zeros(2))),
        ("EyeLike", {}, (torch.empty(2**15, 2**15, device="meta"),)),
        ("CenterCropPad", {}, (torch.zeros(2, 2), torch.tensor([2**15, 2**15]))),
        ("Col2Im", {}, (torch.empty(1, 1, 2**30, device="meta"), torch.tensor([2**15, 2**15]), torch.tensor([1, 1]))),
        ("Gather", {}, (torch.empty(2, 2**15, device="meta"), torch.empty(2**15, dtype=torch.int64, device="meta"))),
        ("GatherND", {}, (torch.empty(2, 2**15, device="meta"), torch.empty(2**15, 1, dtype=torch.int64, device="meta"))),
        ("GridSample", {}, (torch.zeros(1, 1, 2, 2), torch.empty(1, 2**15, 2**15, 2, device="meta"))),
        ("AffineGrid", {}, (torch.zeros(1, 2, 3), torch.tensor([1, 1, 2**15, 2**15]))),
        ("MaxUnpool", {"kernel_shape": [2], "strides": [2**30]}, (torch.zeros(1, 1, 2), torch.zeros(1, 1, 2, dtype=torch.int64))),
        ("Attention", {}, (torch.empty(1, 1, 2**15, 1, device="meta"),) * 3),
        ("Einsum", {"equation": "a,b->ab"}, (torch.empty(2**15, device="meta"),) * 2),
        ("Einsum", {"equation": "a,b,a,b->"}, (torch.empty(2**15, device="meta"),) * 4),
    ],
)
def test_what_is_much_larger_than_its_inputs_is_capped(operator: str, attributes: dict[str, object], inputs: tuple[object, ...]) -> None:
    run = OPERATORS[operator].build(Node.from_proto(node(operator, ["x"] * len(inputs), "y", **attributes), 23))
    with pytest.raises(GraphTooLarge, match="elements"):
        run(*inputs)


def test_blocks_that_do_not_fit_the_image_are_an_error() -> None:
    run = OPERATORS["Col2Im"].build(Node.from_proto(node("Col2Im", ["x"] * 3, "y"), 18))
    with pytest.raises(ValueError, match="blocks of 4096 elements"):
        run(torch.zeros(1, 4, 1), torch.tensor([2**14, 2**14]), torch.tensor([2**6, 2**6]))
