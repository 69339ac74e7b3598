"""Small files that ask for much memory, through every operator that makes more than it is given."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, SparseTensorProto, TensorProto, helper, numpy_helper

from tests.benchmarks.hostile.case import HARMLESS, Case, beside, built, summed
from tests.compressor.graph.models import model_of, node, values

_OWN, _LARGE = "own", "graph_too_large"
_DOUBLING, _FILLED = "Concat doubling x40", "ConstantOfShape 160 GB"


def ints(*numbers: int) -> np.ndarray:
    return np.array(numbers, dtype=np.int64)


def made(operator: str, inputs: list[str], arrays: dict[str, Any], opset: int = 17, **attributes: Any) -> Callable[[str], bytes]:
    """One node whose result, the first output, is summed up."""
    return beside([node(operator, inputs, "made", **attributes), *summed("made")], arrays, opset=opset)


def _doubled(first: str, times: int = 40) -> list[NodeProto]:
    names = [first, *(f"twice{index}" for index in range(times))]
    return [node("Concat", [before] * 2, after, axis=0) for before, after in pairwise(names)]


def _doubling(first: str, **arrays: Any) -> Callable[[str], bytes]:
    return beside([*_doubled(first), *summed("twice39")], arrays)


def _sparse(side: int) -> Callable[[str], bytes]:
    def make() -> ModelProto:
        numbers, places = numpy_helper.from_array(values(2)), numpy_helper.from_array(ints(1, 5))
        weight = node("Constant", [], "w", sparse_value=SparseTensorProto(values=numbers, indices=places, dims=[side, side]))
        return model_of([weight, node("MatMul", ["x", "w"], "y")], {"x": ["n", side]}, {"y": ["n", side]})

    return built(make)


def _many_constants() -> Callable[[str], bytes]:
    """Tensors that are each small enough to be computed as a shape, and that are all held to the end."""
    ranges = [node("Range", ["zero", "many", "one"], f"m{index}") for index in range(4000)]
    arrays = {"zero": np.array(0), "many": np.array(65_536), "one": np.array(1)}
    return beside([*ranges, node("Sum", [f"m{index}" for index in range(4000)], "all"), *summed("all")], arrays)


def _broadcast(operator: str, shape: tuple[int, ...], other: tuple[int, ...], condition: bool = False) -> Callable[[str], bytes]:
    """Two constants of moderate size that an operator broadcasts against each other."""
    nodes = [node("ConstantOfShape", ["s"], "a"), node("ConstantOfShape", ["t"], "b")]
    inputs = ["a", "b"]
    if condition:
        nodes.append(node("Cast", ["a"], "c", to=TensorProto.BOOL))
        inputs = ["c", "a", "b"]
    return beside([*nodes, node(operator, inputs, "made"), *summed("made")], {"s": ints(*shape), "t": ints(*other)})


def recurrent(operator: str, hidden: int, steps: int, gates: int) -> Callable[[str], bytes]:
    """Its matrices are made by the graph, and so is its sequence."""
    shapes = {"steps": ints(steps, 1, 1), "of_w": ints(1, gates * hidden, 1), "of_r": ints(1, gates * hidden, hidden)}
    nodes = [node("ConstantOfShape", [name], made) for name, made in (("steps", "sequence"), ("of_w", "W"), ("of_r", "R"))]
    nodes.append(node(operator, ["sequence", "W", "R"], "made", hidden_size=hidden))
    return beside([*nodes, *summed("made")], shapes)


def _second_output() -> ModelProto:
    nodes = [node("MatMul", ["x", "w"], "y"), node("ConstantOfShape", ["s"], "big"), node("Relu", ["big"], "other")]
    return model_of(nodes, {"x": ["n", 4]}, {"y": ["n", 3], "other": [None]}, {"w": values(4, 3), "s": ints(2**32)})


def _second_output_from_data() -> ModelProto:
    nodes = [node("MatMul", ["x", "w"], "y"), node("ReduceSum", ["x"], "t"), node("Expand", ["t", "s"], "other")]
    return model_of(nodes, {"x": ["n", 4]}, {"y": ["n", 3], "other": [None, None]}, {"w": values(4, 3), "s": ints(2**20, 2**12)})


def _leftover() -> ModelProto:
    """ONNX Runtime computes what no output needs, too."""
    model = _second_output()
    del model.graph.output[1]
    return model


def _lying_shapes() -> ModelProto:
    """ONNX Runtime folds constants by the shapes that a file notes."""
    nodes = [node("Relu", ["x"], "v"), node("Shape", ["v"], "s"), node("ConstantOfShape", ["s"], "c")]
    nodes += [*summed("c"), node("MatMul", ["v", "w"], "m"), node("Add", ["m", "r"], "y")]
    model = model_of(nodes, {"x": ["n", 4]}, {"y": ["n", 3]}, {"w": values(4, 3)})
    model.graph.value_info.append(helper.make_tensor_value_info("v", TensorProto.FLOAT, [2**32, 4]))
    return model


def _of_any_size() -> ModelProto:
    """No size of the input is declared, so that each guess at it fails in the same way."""
    nodes = [*_doubled("x"), node("MatMul", ["twice39", "w"], "y")]
    return model_of(nodes, {"x": ["n", "size"]}, {"y": ["n", None]}, {"w": values(32, 3)})


def _inputs(count: int, size: int) -> Callable[[str], bytes]:
    names = [f"x{index}" for index in range(count)]
    nodes = [node("Sum", names, "x"), node("MatMul", ["x", "w"], "y")]
    return built(lambda: model_of(nodes, {name: ["n", size, 4] for name in names}, {"y": ["n", size, 3]}, {"w": values(4, 3)}))


def _huge_batch(rows: int) -> Callable[[str], bytes]:
    return built(lambda: model_of([node("MatMul", ["x", "w"], "y")], {"x": [rows, 4]}, {"y": [rows, 3]}, {"w": values(4, 3)}))


def _volume(kernel: tuple[int, ...], element: int, **attributes: Any) -> Callable[[str], bytes]:
    """A convolution that torch unfolds: every element as often as the kernel has elements."""
    weight = values(1, 1, *kernel).astype(helper.tensor_dtype_to_np_dtype(element))
    types = {"x": element, "y": element}
    nodes = [node("Conv", ["x", "w"], "y", **attributes)]
    return built(lambda: model_of(nodes, {"x": ["n", 1, 512, 512]}, {"y": ["n", 1, None, None]}, {"w": weight}, types=types))


def image(operator: str, inputs: list[str], arrays: dict[str, Any], opset: int = 17, **attributes: Any) -> Callable[[str], bytes]:
    """An operator over images of 8 by 8, and a convolution."""
    nodes = [node("Conv", ["x", "w"], "c"), node(operator, ["c", *inputs], "y", **attributes)]
    return built(lambda: model_of(nodes, {"x": ["n", 2, 8, 8]}, {"y": [None] * 4}, {"w": values(2, 2, 1, 1), **arrays}, opset))


_SIXTEEN = ints(1, 1, 2**16, 2**16)
_SQUARE = {"t": values(1, 1), "s": ints(2**14, 2**14)}
_X = {"c": np.zeros((1, 1, 4, 4), np.float32)}

CASES = (
    Case("made: ConstantOfShape, 160 GB", _FILLED, _LARGE, made("ConstantOfShape", ["s"], {"s": ints(200_000, 200_000)})),
    Case("made: ConstantOfShape, 2^62 * 4", _FILLED, _LARGE, made("ConstantOfShape", ["s"], {"s": ints(2**62, 4)})),
    Case("made: ConstantOfShape, less than nothing", _FILLED, "invalid_model", made("ConstantOfShape", ["s"], {"s": ints(-1, 2**40)})),
    Case("made: Concat of data, 40 times", _DOUBLING, _LARGE, _doubling("x")),
    Case("made: Concat of integers, 40 times", _DOUBLING, _LARGE, _doubling("c", c=ints(1, 2))),
    Case("made: Concat of floats, 40 times", _DOUBLING, _LARGE, _doubling("c", c=np.zeros(2, np.float32))),
    Case("made: Expand", _OWN, _LARGE, made("Expand", ["x", "s"], {"s": ints(2**20, 2**10, 1, 4)})),
    Case("made: Tile", _OWN, _LARGE, made("Tile", ["x", "s"], {"s": ints(2**20, 2**12)})),
    Case("made: Range", _OWN, _LARGE, made("Range", ["a", "b", "c"], {"a": np.array(0), "b": np.array(2**50), "c": np.array(1)})),
    Case(
        "made: Range, step 0", _OWN, "invalid_model", made("Range", ["a", "b", "c"], {"a": np.array(0), "b": np.array(9), "c": np.array(0)})
    ),
    Case("made: EyeLike", _OWN, _LARGE, beside([node("Expand", ["t", "s"], "e"), node("EyeLike", ["e"], "m"), *summed("m")], _SQUARE)),
    Case("made: OneHot", _OWN, _LARGE, made("OneHot", ["i", "d", "v"], {"i": ints(*range(64)), "d": np.array(2**40), "v": ints(0, 1)})),
    Case("made: Gather", _OWN, _LARGE, made("Gather", ["g", "i"], {"g": np.zeros((2, 4096)), "i": np.zeros((512, 512), np.int64)})),
    Case("made: GatherND", _OWN, _LARGE, made("GatherND", ["g", "i"], {"g": np.zeros((2, 65536)), "i": np.zeros((256, 256, 1), np.int64)})),
    Case("made: Einsum, outer product", _OWN, _LARGE, made("Einsum", ["a", "a", "a"], {"a": values(4096)}, equation="i,j,k->ijk")),
    Case("made: MatMul of constants", _OWN, _LARGE, _broadcast("MatMul", (2**16, 1), (1, 2**16))),
    Case("made: Add of constants", _OWN, _LARGE, _broadcast("Add", (2**16, 1), (1, 2**16))),
    Case("made: Mul of constants", _OWN, _LARGE, _broadcast("Mul", (2**13, 1, 2**13), (1, 2**13, 1))),
    Case("made: Where of constants", _OWN, _LARGE, _broadcast("Where", (2**16, 1), (1, 2**16), condition=True)),
    Case("made: many constants of half a megabyte", _OWN, _LARGE, _many_constants()),
    Case("made: LSTM of 2^20 units", _OWN, _LARGE, recurrent("LSTM", 2**20, 2, 4)),
    Case("made: a sparse weight of 200,000^2", _OWN, _LARGE, _sparse(200_000)),
    Case("made: a sparse weight of 15,000^2 with 2 numbers", _OWN, _LARGE, _sparse(15_000)),
    Case("made: Pad", _OWN, _LARGE, image("Pad", ["p"], {"p": ints(0, 0, 2**20, 2**20, 0, 0, 0, 0)})),
    Case("made: Pad, reflected", _OWN, _LARGE, image("Pad", ["p"], {"p": ints(0, 0, 2**20, 2**20, 0, 0, 0, 0)}, mode="reflect")),
    Case("made: CenterCropPad", _OWN, _LARGE, image("CenterCropPad", ["s"], {"s": ints(1, 1, 2**20, 2**20)}, 18)),
    Case("made: Resize", _OWN, _LARGE, image("Resize", ["", "", "s"], {"s": ints(2, 2, 2**20, 2**20)}, mode="linear")),
    Case("made: Resize, one long axis", _OWN, _LARGE, image("Resize", ["", "", "s"], {"s": ints(2, 2, 1, 2**26)}, mode="cubic")),
    Case("made: Resize, by a scale", _OWN, _LARGE, image("Resize", ["", "s"], {"s": np.array([1, 1, 1e9, 1e9], np.float32)})),
    Case("made: AffineGrid", _OWN, _LARGE, made("AffineGrid", ["t", "s"], {"t": np.zeros((1, 2, 3), np.float32), "s": _SIXTEEN}, 20)),
    Case(
        "made: Col2Im",
        _OWN,
        _LARGE,
        made(
            "Col2Im",
            ["c", "i", "b"],
            {"c": np.zeros((1, 1, 9), np.float32), "i": ints(2, 2), "b": ints(1, 1)},
            18,
            pads=[2**20] * 4,
            strides=[2**20] * 2,
        ),
    ),
    Case(
        "made: MaxUnpool",
        _OWN,
        _LARGE,
        made("MaxUnpool", ["c", "p", "s"], {**_X, "p": np.zeros((1, 1, 4, 4), np.int64), "s": _SIXTEEN}, kernel_shape=[2, 2]),
    ),
    Case("made: DepthToSpace", _OWN, "invalid_model", image("DepthToSpace", [], {}, blocksize=2**40)),
    Case("made: ConvTranspose, stride 2^20", _OWN, _LARGE, image("ConvTranspose", ["w"], {}, strides=[2**20, 2**20])),
    Case("made: Conv, padded by 2^20", _OWN, _LARGE, image("Conv", ["w"], {}, pads=[2**20] * 4)),
    Case("made: Conv in double precision, unfolded", _OWN, _LARGE, _volume((65, 65), TensorProto.DOUBLE)),
    Case("made: Conv of a few elements, padded", _OWN, _LARGE, image("Conv", ["w3"], {"w3": values(2, 2, 3, 3)}, pads=[2000] * 4)),
    Case("output: another one, constant", _OWN, _LARGE, built(_second_output)),
    Case("output: another one, of data", _OWN, _LARGE, built(_second_output_from_data)),
    Case("output: none, but nodes", _OWN, HARMLESS, built(_leftover)),
    Case("shapes: noted, and wrong", _OWN, HARMLESS, built(_lying_shapes)),
    Case("input: of any size", _OWN, _LARGE, built(_of_any_size)),
    Case("input: 200 of 2^24 rows", _OWN, _LARGE, _inputs(200, 2**24)),
    Case("input: 2^62 elements", _OWN, _LARGE, _inputs(1, 2**60)),
    Case("input: a batch of 2^40 rows", _OWN, _LARGE, _huge_batch(2**40)),
)
