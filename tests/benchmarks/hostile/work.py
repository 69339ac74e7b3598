"""Small files that ask for much time, in torch, in Python, in numpy or in ONNX Runtime."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto

from tests.benchmarks.hostile.case import HARMLESS, Case, beside, built, summed
from tests.benchmarks.hostile.memory import image, ints, made, recurrent
from tests.compressor.graph.models import model_of, node, values

_OWN, _LARGE, _WRONG = "own", "graph_too_large", "invalid_model"


def _chain(steps: Sequence[tuple[str, list[str], dict[str, Any]]], count: int, **arrays: np.ndarray) -> Callable[[str], bytes]:
    """`count` nodes of `steps` in turn, one after the other, over tensors that are small."""

    def make() -> ModelProto:
        names = ["x", *(f"v{index}" for index in range(count))]
        nodes = []
        for index, (before, after) in enumerate(pairwise(names)):
            operator, inputs, attributes = steps[index % len(steps)]
            nodes.append(node(operator, [before, *inputs], after, **attributes))
        nodes.append(node("Conv", [names[-1], "w"], "y"))
        return model_of(nodes, {"x": ["n", 2, 8, 8]}, {"y": [None] * 4}, {"w": values(2, 2, 1, 1), **arrays})

    return built(make)


def _repeated(count: int, nodes: Callable[[str], list[NodeProto]], **arrays: Any) -> Callable[[str], bytes]:
    """`nodes(name)` give the number `name`; all of these are added up."""
    names = [f"r{index}" for index in range(count)]
    parts = [part for name in names for part in nodes(name)]
    return beside([*parts, node("Sum", names, "r")], arrays)


def _product(name: str) -> list[NodeProto]:
    return [node("MatMul", ["a", "a"], f"p{name}"), node("ReduceSum", [f"p{name}"], name, keepdims=0)]


def _expanded_sum(name: str) -> list[NodeProto]:
    return [node("Expand", ["one", "s"], f"e{name}"), node("ReduceSum", [f"e{name}"], name, keepdims=0)]


def _of_guessed_size() -> ModelProto:
    """A long chain that fails at its end, whatever the size that was left open."""
    names = ["x", *(f"v{index}" for index in range(15_000))]
    nodes = [node("Pad", [a, "p"], b) for a, b in pairwise(names)]
    nodes.append(node("MatMul", [names[-1], "w"], "y"))
    arrays = {"w": values(7, 3), "p": ints(0, 0, 0, 1)}
    return model_of(nodes, {"x": ["n", "size"]}, {"y": ["n", 3]}, arrays)


def _normalised_weights(count: int) -> ModelProto:
    """Each divided by its own norm, so that none may become zero, in a graph that takes a while."""
    nodes = [node("ReduceSum", ["x"], "sum", keepdims=0), node("Expand", ["sum", "s"], "wide"), node("Tan", ["wide"], "tan")]
    nodes.append(node("ReduceMax", ["tan"], "most", keepdims=0))
    arrays = {f"w{index}": values(4, 3, seed=index) for index in range(count)}
    for index in range(count):
        nodes += [node("ReduceL2", [f"w{index}"], f"norm{index}"), node("Div", [f"w{index}", f"norm{index}"], f"one{index}")]
        nodes.append(node("MatMul", ["x", f"one{index}"], f"product{index}"))
    nodes += [node("Sum", [f"product{index}" for index in range(count)], "total"), node("Add", ["total", "most"], "y")]
    return model_of(nodes, {"x": ["n", 4]}, {"y": ["n", 3]}, {**arrays, "s": ints(2**20)})


def _slow(operator: str, count: int, size: int, **attributes: Any) -> Callable[[str], bytes]:
    """A slow operator over what is small in the file, several times."""

    def nodes(name: str) -> list[NodeProto]:
        made = [f"made{name}", f"places{name}"] if operator == "TopK" else f"made{name}"
        given = [node("Expand", ["one", "s"], f"wide{name}"), node(operator, [f"wide{name}", "k"], made, **attributes)]
        return [*given, node("ReduceMax", [f"made{name}"], name, keepdims=0)]

    k: Any = ints(1) if operator == "TopK" else np.float32(1e-30)
    return _repeated(count, nodes, one=np.ones(1, np.float32), s=ints(size), k=k)


def _many_operands() -> ModelProto:
    equation = ",".join(["ab", "bc", *(["b"] * 1800)]) + "->ac"
    nodes = [node("Einsum", ["x", "w", *(["v"] * 1800)], f"e{index}", equation=equation) for index in range(100)]
    nodes.append(node("Sum", [f"e{index}" for index in range(100)], "y"))
    return model_of(nodes, {"x": ["n", 4]}, {"y": ["n", 3]}, {"w": values(4, 3), "v": values(4)})


_LETTERS = "a" * 4000

CASES = (
    Case("time: 19,000 convolutions", _OWN, _LARGE, _chain([("Conv", ["w"], {})], 19_000)),
    Case(
        "time: 19,000 nodes of sizes of their own",
        _OWN,
        _LARGE,
        _chain([("Pad", ["p"], {}), ("HardSwish", [], {})], 19_000, p=ints(0, 0, 0, 0, 0, 0, 0, 1)),
    ),
    Case("time: an open size, guessed eight times", _OWN, HARMLESS, built(_of_guessed_size), is_slow=True),
    Case("time: LSTM of a million steps", _OWN, _LARGE, recurrent("LSTM", 4, 10**6, 4)),
    Case("time: GRU of a million steps", _OWN, _LARGE, recurrent("GRU", 4, 10**6, 3)),
    Case("time: RNN of a million steps", _OWN, _LARGE, recurrent("RNN", 4, 10**6, 1)),
    Case(
        "time: a hundred RNN of 16,384 steps",
        _OWN,
        _LARGE,
        _repeated(
            100,
            lambda name: [node("RNN", ["q", "W", "R"], f"o{name}", hidden_size=4), node("ReduceSum", [f"o{name}"], name, keepdims=0)],
            q=np.zeros((16_384, 1, 1), np.float32),
            W=values(1, 4, 1),
            R=values(1, 4, 4),
        ),
        is_slow=True,
    ),
    Case(
        "time: a sequence of a million parts",
        _OWN,
        _LARGE,
        beside(
            [
                node("ConstantOfShape", ["s"], "long"),
                node("SplitToSequence", ["long"], "parts"),
                node("SequenceAt", ["parts", "at"], "part"),
                *summed("part"),
            ],
            {"s": ints(10**6, 1), "at": np.array(0)},
        ),
    ),
    Case(
        "time: a sequence of parts of one",
        _OWN,
        _LARGE,
        beside(
            [
                node("ConstantOfShape", ["s"], "long"),
                node("SplitToSequence", ["long", "at"], "parts"),
                node("ConcatFromSequence", ["parts"], "part", axis=0),
                *summed("part"),
            ],
            {"s": ints(10**7, 1), "at": np.array(1)},
        ),
    ),
    Case("time: 4,000 sums of 2^20 elements", _OWN, _LARGE, _repeated(4000, _expanded_sum, one=values(1), s=ints(2**20))),
    Case("time: products of 2,048^2, a hundred times", _OWN, _LARGE, _repeated(100, _product, a=values(2048, 2048))),
    Case("time: MaxPool of 1,001^2", _OWN, _LARGE, image("MaxPool", [], {}, kernel_shape=[1001, 1001], pads=[1000] * 4)),
    Case(
        "time: AveragePool of a long axis",
        _OWN,
        _LARGE,
        image("AveragePool", [], {}, kernel_shape=[1, 2**20 + 1], pads=[0, 2**20, 0, 2**20], count_include_pad=1),
    ),
    Case(
        "time: AveragePool, windows uneven", _OWN, _LARGE, image("AveragePool", [], {}, kernel_shape=[1, 2**24], pads=[0, 2**24, 0, 2**23])
    ),
    Case("time: LRN over 2^30 channels", _OWN, _LARGE, image("LRN", [], {}, size=2**30)),
    Case(
        "time: Resize, a million taps",
        _OWN,
        "unsupported_model",
        beside(
            [
                node("ConstantOfShape", ["s"], "long"),
                node("Resize", ["long", "", "", "t"], "short", mode="cubic", antialias=1),
                *summed("short"),
            ],
            {"s": ints(1, 1, 1, 2**22), "t": ints(1, 1, 1, 8)},
            opset=18,
        ),
    ),
    Case("time: an equation that is none", _OWN, "unsupported_model", made("Einsum", ["x"], {}, equation=_LETTERS + "!")),
    Case("time: an equation of 100,000 letters", _OWN, _LARGE, made("Einsum", ["x"], {}, equation=_LETTERS * 25)),
    Case(
        "time: GridSample of 2^25 points",
        _OWN,
        _LARGE,
        beside(
            [node("ConstantOfShape", ["s"], "g"), node("GridSample", ["c", "g"], "y4", mode="bicubic"), *summed("y4")],
            {"s": ints(1, 2**13, 2**13, 2), "c": np.zeros((1, 1, 4, 4), np.float32)},
        ),
    ),
    Case(
        "time: Slice, an axis 60,000 times",
        _OWN,
        _WRONG,
        made("Slice", ["x", "z", "e", "z"], {"z": np.zeros(60_000, np.int64), "e": np.full(60_000, 9)}),
    ),
    Case("time: Unsqueeze by 60,000 axes", _OWN, _LARGE, made("Unsqueeze", ["x", "a"], {"a": np.arange(60_000)}, 13)),
    Case("time: a shape of two million dimensions", _OWN, _LARGE, made("Reshape", ["x", "s"], {"s": np.ones(2**21, np.int64)})),
    Case("time: 1,500 weights of length one", _OWN, "no_weights", built(lambda: _normalised_weights(1500))),
    Case("time: Mod, a quotient of 100 digits", _OWN, _LARGE, _slow("Mod", 7, 2**25, fmod=1)),
    Case("time: TopK of 2^22, twenty times", _OWN, _LARGE, _slow("TopK", 20, 2**22)),
    Case("time: Einsum of 1,802 operands", _OWN, "unsupported_model", built(_many_operands)),
    Case(
        "time: RMSNormalization of axis -2^40",
        _OWN,
        _WRONG,
        made("RMSNormalization", ["x", "k"], {"k": values(4)}, 23, axis=-(2**40)),
    ),
    Case(
        "Div of the smallest integer by -1",
        _OWN,
        _WRONG,
        beside([node("Div", ["a", "b"], "q"), *summed("q")], {"a": np.array(-(2**63)), "b": np.array(-1)}),
    ),
    Case(
        "time: Split into 2^40 parts",
        _OWN,
        _WRONG,
        beside([node("Split", ["x"], ["made", "rest"], axis=1, num_outputs=2**40), *summed("made")], opset=18),
    ),
    Case("time: TopK of 2^40", _OWN, _WRONG, beside([node("TopK", ["x", "k"], ["made", "places"]), *summed("made")], {"k": ints(2**40)})),
)
