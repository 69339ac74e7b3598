"""Roles: what the data cannot hold on to does not learn."""

import numpy as np
import pytest
import torch
from onnx import NodeProto, TensorProto

from compressor.errors import NoWeights
from compressor.graph.module import OnnxModule
from compressor.graph.ops import Flow
from tests.compressor.graph.models import model_of, node, values

BLOCKED = {
    "ArgMax": [node("ArgMax", ["v_x"], "i", axis=1), node("Cast", ["i"], "b", to=TensorProto.FLOAT)],
    "comparison": [node("Greater", ["v_x", "zero"], "i"), node("Cast", ["i"], "b", to=TensorProto.FLOAT)],
    "choice": [node("Greater", ["v_x", "zero"], "i"), node("Where", ["i", "one", "zero"], "b")],
    "integers": [node("Cast", ["v_x"], "i", to=TensorProto.INT32), node("Cast", ["i"], "b", to=TensorProto.FLOAT)],
    "Hardmax": [node("Hardmax", ["v_x"], "b")],
    "Round": [node("Round", ["v_x"], "b")],
    "TopK": [node("TopK", ["v_x", "three"], ["", "i"]), node("Cast", ["i"], "b", to=TensorProto.FLOAT)],
}


@pytest.mark.parametrize("steps", BLOCKED.values(), ids=BLOCKED)
@pytest.mark.parametrize("reused", [False, True])
def test_what_no_gradient_reaches_is_fixed(steps: list[NodeProto], reused: bool) -> None:
    nodes = [node("MatMul", ["x", "v"], "v_x"), *steps, node("MatMul", ["x", "w"], "w_x"), node("Add", ["w_x", "b"], "sum")]
    nodes += [node("MatMul", ["sum", "v"], "y")] if reused else [node("Identity", ["sum"], "y")]
    arrays = {"v": values(3, 3), "w": values(3, 3, seed=1), "zero": np.zeros(1, np.float32), "one": np.ones(1, np.float32)}
    arrays |= {"three": np.array([3])}
    module = OnnxModule(model_of(nodes, {"x": ["n", 3]}, {"y": ["n", 3]}, arrays))
    assert set(module.weight_names) == ({"v", "w"} if reused else {"w"})
    assert module.tensors().keys() == set(module.weight_names)
    module(torch.randn(5, 3)).square().sum().backward()
    assert all(tensor.grad is not None and tensor.grad.any() for tensor in module.tensors().values())


def test_a_model_that_gives_only_steps_is_refused() -> None:
    nodes = [node("MatMul", ["x", "w"], "scores"), node("Hardmax", ["scores"], "y")]
    with pytest.raises(NoWeights, match="gradient"):
        OnnxModule(model_of(nodes, {"x": ["n", 4]}, {"y": ["n", 3]}, {"w": values(4, 3)}))


def standardised_convolution() -> OnnxModule:
    """Weight standardisation with a gain for each filter, as normaliser-free networks have it before their convolutions."""
    nodes = [
        node("ReduceMean", ["w"], "middle", axes=[1, 2, 3]),
        node("Sub", ["w", "middle"], "centred"),
        node("Mul", ["centred", "centred"], "squares"),
        node("ReduceMean", ["squares"], "spread", axes=[1, 2, 3]),
        node("Add", ["spread", "epsilon"], "safe"),
        node("Sqrt", ["safe"], "deviation"),
        node("Div", ["centred", "deviation"], "unit"),
        node("Mul", ["unit", "gain"], "filters"),
        node("Conv", ["x", "filters", "bias"], "y"),
    ]
    arrays = {"w": values(4, 2, 3, 3), "gain": values(4, 1, 1, 1), "epsilon": np.full(1, 1e-5, np.float32), "bias": values(4)}
    return OnnxModule(model_of(nodes, {"x": ["n", 2, 5, 5]}, {"y": ["n", 4, 3, 3]}, arrays))


def test_a_weight_may_be_computed_from_constants() -> None:
    module = standardised_convolution()
    assert module.weight_names == ("w",)
    assert module.tensors().keys() == {"w", "gain", "bias"}
    assert module.treatments == {"w": frozenset({Flow.SAMPLED})}


def test_the_factors_of_a_low_rank_weight_are_weights() -> None:
    nodes = [node("MatMul", ["down", "up"], "update"), node("Add", ["base", "update"], "w"), node("MatMul", ["x", "w"], "y")]
    arrays = {"base": values(4, 3), "down": values(4, 2, seed=1), "up": values(2, 3, seed=2)}
    module = OnnxModule(model_of(nodes, {"x": ["n", 4]}, {"y": ["n", 3]}, arrays))
    assert set(module.weight_names) == {"base", "down", "up"}
    assert set(module.treatments.values()) == {frozenset({Flow.SAMPLED})}


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([node("Add", ["h", "t"], "y")], False),
        ([node("Mul", ["h", "t"], "y")], False),
        ([node("MatMul", ["t", "t"], "p"), node("Add", ["h", "p"], "y")], False),
        ([node("Gather", ["t", "places"], "p"), node("Add", ["h", "p"], "y")], True),
        ([node("Exp", ["t"], "p"), node("MatMul", ["h", "p"], "y")], True),
        ([node("Exp", ["t"], "p"), node("MatMul", ["h", "p"], "q"), node("Add", ["q", "t"], "y")], True),
        ([node("Add", ["h", "t"], "p"), node("MatMul", ["p", "v"], "y")], False),
    ],
)
def test_what_meets_data_outside_of_a_weight_slot_is_trainable(steps: list[NodeProto], expected: bool) -> None:
    nodes = [node("MatMul", ["x", "w"], "h"), *steps]
    arrays = {"w": values(4, 3), "v": values(3, 3, seed=1), "t": values(3, 3, seed=2), "places": np.array([2, 0, 1])}
    module = OnnxModule(model_of(nodes, {"x": ["n", 3, 4]}, {"y": ["n", 3, 3]}, arrays))
    assert ("t" in module.weight_names) == expected
    assert "t" in module.tensors()


@pytest.mark.parametrize("value", [-1e4, -1e9, float("-inf"), float("nan")])
def test_a_mask_is_fixed(value: float) -> None:
    mask = np.triu(np.full((3, 3), value, np.float32), 1)
    mask[np.tril_indices(3)] = 0.0
    nodes = [node("MatMul", ["x", "w"], "h"), node("Add", ["h", "mask"], "s"), node("Softmax", ["s"], "p"), node("MatMul", ["p", "v"], "y")]
    module = OnnxModule(model_of(nodes, {"x": ["n", 3, 4]}, {"y": ["n", 3, 2]}, {"w": values(4, 3), "v": values(3, 2), "mask": mask}))
    assert module.tensors().keys() == {"w", "v"}


def test_large_values_in_a_weight_slot_or_a_bias_stay() -> None:
    arrays = {"w": values(4, 3) * np.float32(1e5), "b": values(3) * np.float32(1e5)}
    module = OnnxModule(model_of([node("Gemm", ["x", "w", "b"], "y")], {"x": ["n", 4]}, {"y": ["n", 3]}, arrays))
    assert module.tensors().keys() == {"w", "b"}


def test_treatments_name_every_way_in_which_a_weight_is_read() -> None:
    nodes = [
        node("Gather", ["tied", "x"], "rows"),
        node("LSTM", ["rows", "input", "recurrent"], ["steps"], hidden_size=3),
        node("Squeeze", ["steps", "one"], "hidden"),
        node("Mul", ["mixed", "two"], "doubled"),
        node("MatMul", ["hidden", "doubled"], "first"),
        node("MatMul", ["hidden", "mixed"], "second"),
        node("Add", ["first", "second"], "sum"),
        node("Einsum", ["sum", "exact"], "e", equation="tbi,io->tbo"),
        node("Einsum", ["e", "inexact"], "f", equation="tbi,oo->tbo"),
        node("Einsum", ["f", "left", "right"], "g", equation="tbi,ij,jk->tbk"),
        node("Transpose", ["tied"], "turned"),
        node("MatMul", ["g", "turned"], "y"),
    ]
    shapes = {"tied": (7, 3), "input": (1, 12, 3), "recurrent": (1, 12, 3)}
    shapes |= dict.fromkeys(("mixed", "exact", "inexact", "left", "right"), (3, 3))
    arrays = {name: values(*shape) for name, shape in shapes.items()} | {"one": np.array([1]), "two": np.float32(2).reshape(())}
    module = OnnxModule(model_of(nodes, {"x": ["n", 2]}, {"y": ["n", 2, 7]}, arrays, types={"x": TensorProto.INT64}))
    assert module.treatments == {
        "tied": {Flow.LOOKUP, Flow.LINEAR},
        "input": {Flow.LINEAR},
        "recurrent": {Flow.SAMPLED},
        "mixed": {Flow.SAMPLED, Flow.LINEAR},
        "exact": {Flow.LINEAR},
        "inexact": {Flow.SAMPLED},
        "left": {Flow.SAMPLED},
        "right": {Flow.SAMPLED},
    }
    assert tuple(module.treatments) == module.weight_names


def test_absent_inputs_and_outputs_are_not_one_value() -> None:
    """An output that nobody reads does not become a source of gradients because another node has no bias."""
    nodes = [
        node("MatMul", ["x", "v"], "scores"),
        node("Dropout", ["scores"], ["", "kept"]),
        node("Cast", ["kept"], "mask", to=TensorProto.FLOAT),
        node("MatMul", ["x", "w"], "h"),
        node("Mul", ["h", "mask"], "masked"),
        node("Clip", ["masked", "", "high"], "y"),
    ]
    arrays = {"v": values(4, 3), "w": values(4, 3), "high": np.array(9, np.float32)}
    module = OnnxModule(model_of(nodes, {"x": ["n", 4]}, {"y": ["n", 3]}, arrays))
    assert module.weight_names == ("w",)


REASONS: dict[str, tuple[list[NodeProto], np.ndarray, str, bool]] = {
    "mask": ([node("Add", ["h", "t"], "y")], np.full((1, 3), -1e9, np.float32), "it is a fixed mask (Add node 'y')", False),
    "bias": ([node("Gemm", ["h", "w", "t"], "y")], values(1, 3), "it is a bias or scale (Gemm node 'y')", True),
    "slope": ([node("PRelu", ["h", "t"], "y")], values(1, 3), "it is a bias or scale (PRelu node 'y')", True),
    "factor": ([node("Mul", ["h", "t"], "y")], values(1, 3), "it meets the data outside of a weight slot (Mul node 'y')", True),
    "number": ([node("Mul", ["h", "t"], "y")], values(1, 1), "it is a single number (Mul node 'y')", False),
    "gain": (
        [node("Mul", ["w", "t"], "scaled"), node("MatMul", ["h", "scaled"], "y")],
        values(1, 3),
        "it holds one number for each channel of a weight (Mul node 'scaled')",
        True,
    ),
    "threshold": (
        [node("Greater", ["h", "t"], "above"), node("Where", ["above", "h", "zero"], "y")],
        values(1, 3),
        "it is read where nothing learns: a condition, bound or statistic (Greater node 'above')",
        False,
    ),
    "choice": (
        [node("MatMul", ["h", "t"], "scores"), node("Hardmax", ["scores"], "first"), node("Add", ["h", "first"], "y")],
        values(3, 3),
        "no gradient of the output comes back to it (MatMul node 'scores')",
        False,
    ),
}


@pytest.mark.parametrize("case", REASONS)
def test_what_is_no_weight_says_why(case: str) -> None:
    steps, array, reason, trained = REASONS[case]
    nodes = [node("MatMul", ["x", "w"], "h"), *steps]
    arrays = {"w": values(3, 3), "t": array, "zero": np.zeros(1, np.float32)}
    module = OnnxModule(model_of(nodes, {"x": ["n", 3]}, {"y": ["n", 3]}, arrays))
    assert module.uncovered == {"t": reason}
    assert ("t" in module.tensors()) == trained
    assert sum(module.operators.values()) == len(nodes)
