"""LSTM, GRU and RNN against stock ONNX Runtime, inside vmap, and on another device."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
import torch

from compressor.errors import UnsupportedModel
from compressor.graph.gaussian import GaussianValue
from compressor.graph.module import OnnxModule
from compressor.graph.node import Node
from compressor.graph.ops import OPERATORS
from tests.compressor.graph.models import model_of, node, values
from tests.compressor.graph.single_node import Case, assert_equals_onnx_runtime

STEPS, BATCH, INPUT, HIDDEN = 5, 3, 4, 6
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
STATES = {"LSTM": 2, "GRU": 1, "RNN": 1}


def layer(operator: str, opset: int = 14, given: str = "", **attributes: object) -> Case:
    """A layer with random parameters; of the optional inputs it has those whose letters are in `given`: B, S(equence lengths), H, C, P."""
    directions, gates = 2 if attributes.get("direction") == "bidirectional" else 1, GATES[operator]
    state = (BATCH, directions, HIDDEN) if attributes.get("layout") else (directions, BATCH, HIDDEN)
    optional = {
        "B": values(directions, 2 * gates * HIDDEN, seed=3),
        "S": np.array([STEPS, 2, 1], np.int32),
        "H": values(*state, seed=4),
        "C": values(*state, seed=5),
        "P": values(directions, 3 * HIDDEN, seed=6),
    }
    names = "BSHCP" if operator == "LSTM" else "BSH"
    constants = (
        values(directions, gates * HIDDEN, INPUT, seed=1) * np.float32(0.5),
        values(directions, gates * HIDDEN, HIDDEN, seed=2) * np.float32(0.5),
        *(optional[name] if name in given else None for name in names),
    )
    shape = (BATCH, STEPS, INPUT) if attributes.get("layout") else (STEPS, BATCH, INPUT)
    states = STATES[operator]
    return Case(operator, opset, shape, constants, {"hidden_size": HIDDEN, **attributes}, 1 + states, (4, *[3] * states))


def cases() -> Iterator[Case]:
    for operator in GATES:
        state = "HC" if operator == "LSTM" else "H"
        for direction in ("forward", "reverse", "bidirectional"):
            yield layer(operator, direction=direction)
            yield layer(operator, 22, "B" + state, direction=direction)
            yield layer(operator, 11, "BS" + state, direction=direction)
        yield layer(operator, 14, "B", direction="bidirectional", clip=0.4)
        functions = ["HardSigmoid", "Softsign", "Elu"] if operator == "LSTM" else ["HardSigmoid", "Softsign"]
        yield layer(operator, 14, "BS", activations=functions[-1:] if operator == "RNN" else functions)
    functions = ["Affine", "LeakyRelu", "ThresholdedRelu", "Elu", "HardSigmoid", "Relu", "ScaledTanh", "Softsign", "Softplus", "Sigmoid"]
    for first, second in pairwise(functions):
        constants = {"activation_alpha": [0.3, 0.6], "activation_beta": [0.2, 0.7]}
        yield layer("RNN", 14, "B", direction="bidirectional", activations=[first, second], **constants)
    yield layer("LSTM", 14, "BHCP", direction="bidirectional")
    yield layer("LSTM", 14, "BSP", clip=0.4)
    yield layer("LSTM", 14, "BP", input_forget=1)
    yield layer("LSTM", 14, "B", activations=["HardSigmoid", "Tanh", "Relu"], activation_alpha=[0.5])
    for given in ("", "B", "BSH"):
        yield layer("GRU", 14, given, linear_before_reset=1, direction="bidirectional")
    yield layer("GRU", 14, "B", linear_before_reset=1, clip=0.3)


@pytest.mark.parametrize("case", list(cases()), ids=str)
def test_a_layer_equals_onnx_runtime(case: Case) -> None:
    assert_equals_onnx_runtime(case, values(*case.shape), 2e-5)


@pytest.mark.parametrize(
    ("attributes", "problem"),
    [
        ({"activations": ["Swish"]}, "activation 'Swish'"),
        ({"activations": ["ScaledTanh"], "activation_alpha": [1.0]}, "without its constants"),
        ({"activations": ["Tanh", "Tanh"]}, "2 activations for 1 direction"),
    ],
)
def test_activations_that_are_not_known_are_refused(attributes: dict[str, object], problem: str) -> None:
    made = Node.from_proto(node("RNN", ["x", "w", "r"], "y", hidden_size=2, **attributes), 14)
    with pytest.raises(UnsupportedModel, match=problem):
        OPERATORS["RNN"].build(made)


def test_a_layer_that_is_batch_first_gives_the_same() -> None:
    for operator in GATES:
        state = "HC" if operator == "LSTM" else "H"
        case, turned = (layer(operator, 14, "BS" + state, layout=layout, direction="bidirectional") for layout in (0, 1))
        x = torch.from_numpy(values(*turned.shape))
        constants = [None if value is None else torch.from_numpy(np.asarray(value)) for value in turned.constants]
        run, run_turned = (OPERATORS[operator].build(Node.from_proto(made.model().graph.node[0], 14)) for made in (case, turned))
        first, *states = run_turned(x, *constants)
        swapped = [value.transpose(0, 1) if place >= 4 and value is not None else value for place, value in enumerate(constants)]
        expected, *ends = run(x.transpose(0, 1), *swapped)
        torch.testing.assert_close(first, expected.permute(2, 0, 1, 3))
        torch.testing.assert_close(states, [end.transpose(0, 1) for end in ends])


def classifier(operator: str, rows: int | str = "batch", **attributes: object) -> OnnxModule:
    """Batch first outside, as exporters write it: transposed, both directions, the last hidden states into a linear layer."""
    gates = GATES[operator]
    nodes = [
        node("Transpose", ["x"], "steps", perm=[1, 0, 2]),
        node(operator, ["steps", "w", "r", "b"], ["", "last"], hidden_size=HIDDEN, direction="bidirectional", **attributes),
        node("Transpose", ["last"], "turned", perm=[1, 0, 2]),
        node("Flatten", ["turned"], "flat"),
        node("MatMul", ["flat", "head"], "y"),
    ]
    arrays = {
        "w": values(2, gates * HIDDEN, INPUT, seed=1),
        "r": values(2, gates * HIDDEN, HIDDEN, seed=2) * np.float32(0.5),
        "b": values(2, 2 * gates * HIDDEN, seed=3),
        "head": values(2 * HIDDEN, 3, seed=4),
    }
    return OnnxModule(model_of(nodes, {"x": [rows, STEPS, INPUT]}, {"y": [rows, 3]}, arrays))


def noise(module: OnnxModule) -> dict[str, GaussianValue]:
    return {name: GaussianValue(module.tensors()[name], torch.full_like(module.tensors()[name], 0.01)) for name in module.weight_names}


@pytest.mark.parametrize("operator", GATES)
def test_matrices_are_weights_and_biases_are_trainable(operator: str) -> None:
    module = classifier(operator)
    assert module.weight_names == ("w", "r", "head")
    assert module.tensors().keys() == {"w", "r", "b", "head"}


@pytest.mark.parametrize("operator", GATES)
@pytest.mark.parametrize("noisy", [False, True])
def test_rows_one_by_one_inside_vmap(operator: str, noisy: bool) -> None:
    module = classifier(operator)
    x = torch.from_numpy(values(4, STEPS, INPUT))
    given = noise(module) if noisy else {}
    rows = torch.func.vmap(lambda row: module(row.unsqueeze(0), values=given).squeeze(0), randomness="different")(x)
    assert rows.shape == (4, 3)
    if noisy:
        assert not torch.allclose(rows, module(x))
        rows.square().sum().backward()
        assert all(tensor.grad is not None for tensor in module.tensors().values())
    else:
        torch.testing.assert_close(rows, module(x))


@pytest.mark.parametrize("operator", GATES)
@pytest.mark.parametrize("noisy", [False, True])
def test_shapes_on_another_device(operator: str, noisy: bool) -> None:
    module = classifier(operator).to("meta")
    assert module(torch.empty(7, STEPS, INPUT, device="meta"), values=noise(module) if noisy else None).shape == (7, 3)


def test_the_way_of_torch_and_the_loop_give_the_same() -> None:
    """Without noise torch.lstm runs; a variance of 0 takes the loop."""
    module = classifier("LSTM")
    x = torch.from_numpy(values(4, STEPS, INPUT))
    still = {"w": GaussianValue(module.tensors()["w"], torch.zeros_like(module.tensors()["w"]))}
    gradients = []
    for given in ({}, still):
        module.zero_grad()
        module(x, values=given).square().sum().backward()
        gradients.append([tensor.grad for tensor in module.tensors().values()])
    torch.testing.assert_close(module(x), module(x, values=still), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)


def test_shapes_that_do_not_fit_are_errors() -> None:
    """torch.lstm would end the process."""
    run = OPERATORS["LSTM"].build(Node.from_proto(node("LSTM", ["x", "w", "r"], "y", hidden_size=HIDDEN), 14))
    x, w, r = torch.zeros(STEPS, BATCH, INPUT), torch.zeros(1, 4 * HIDDEN, INPUT), torch.zeros(1, 4 * HIDDEN, HIDDEN)
    state = torch.zeros(1, BATCH + 1, HIDDEN)
    wrong: list[tuple[torch.Tensor | None, ...]] = [
        (x, w[..., 1:], r),
        (x, w[:, 1:], r),
        (x, w, r[..., 1:]),
        (x[0], w, r),
        (x, w, r, torch.zeros(1, 7 * HIDDEN)),
        (x, w, r, None, None, state),
        (x, w, r, None, None, None, state[:, :-1, 1:]),
        (x, w.double(), r),
    ]
    for inputs in wrong:
        with pytest.raises((RuntimeError, ValueError, IndexError)):
            run(*inputs)
    assert run(x, w, r)[0].shape == (STEPS, 1, BATCH, HIDDEN)
