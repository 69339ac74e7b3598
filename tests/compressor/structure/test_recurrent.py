"""Hidden units of LSTM, GRU and RNN."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper

from compressor.graph.ops.recurrent_activations import DEFAULTS
from compressor.structure import Compaction
from tests.compressor.graph.models import model_of, node, values
from tests.compressor.structure.checks import Arrays, check, pruned, sizes

STEPS, READ, HIDDEN = 5, 3, 4
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
ROWS = values(6, STEPS, READ, seed=9)
FIRST_STATES = {
    "zeros": [
        *(node("Shape", ["x"], "shape"), node("Gather", ["shape", "0"], "rows"), node("Concat", ["ways", "rows", "wide"], "sizes", axis=0)),
        *(node("ConstantOfShape", ["sizes"], "made"), node("Identity", ["made"], "zeros")),
    ],
    "begin": [
        *(node("Gather", ["x", "none"], "feature", axis=2), node("Slice", ["feature", "0", "wide", "1"], "cut")),
        node("Unsqueeze", ["cut", "0"], "begin"),
    ],
}


def layer(
    kind: str,
    *,
    directions: int = 1,
    states: Sequence[str] = (),
    lengths: bool = False,
    peepholes: bool = False,
    outputs: Sequence[str] = ("Y",),
    **attributes: Any,
) -> tuple[ModelProto, Arrays]:
    """A linear layer over each step, a recurrent one, and another linear one over the maximum of its hidden states, and the last ones.

    `states` name the first ones: `zeros` are computed, `begin` is made of x, and others are constants. `lengths`: rows end sooner or later.
    """
    gates, width = GATES[kind], HIDDEN * directions
    optional = ["lengths" if lengths else "", *states, *(["", "", "p"][len(states) :] if peepholes else [])]
    made = [name if name in outputs else "" for name in (("Y", "Y_h", "Y_c") if kind == "LSTM" else ("Y", "Y_h"))]
    direction = "bidirectional" if directions == 2 else "forward"
    nodes = [
        *(step for name in sorted(set(states) & FIRST_STATES.keys()) for step in FIRST_STATES[name]),
        *(node("MatMul", ["x", "w0"], "m"), node("Add", ["m", "b0"], "a"), node("Transpose", ["a"], "steps", perm=[1, 0, 2])),
        node(kind, ["steps", "w", "r", "b", *optional], made, hidden_size=HIDDEN, direction=direction, **attributes),
        *(step for name in outputs for step in _flattened(name)),
        *(node("Concat", [f"{name}f" for name in outputs], "z", axis=1), node("Gemm", ["z", "w2", "b2"], "y")),
    ]
    arrays = {
        **{"w0": values(READ, READ), "b0": values(READ, seed=1), "w": values(directions, gates * HIDDEN, READ, seed=2)},
        **{"r": values(directions, gates * HIDDEN, HIDDEN, seed=3) * np.float32(0.7), "b": values(directions, 2 * gates * HIDDEN, seed=4)},
        **{"w2": values(width * len(outputs), 2, seed=5), "b2": values(2, seed=6)},
    }
    arrays |= {"p": values(directions, 3 * HIDDEN, seed=7)} if peepholes else {}
    numbers = {"0": np.array([0]), "1": np.array([1]), "none": np.array(0), "ways": np.array([directions]), "wide": np.array([HIDDEN])}
    numbers |= {"flat": np.array([0, 0, -1]), "lengths": np.array([5, 3, 5, 2, 1, 5], np.int32)}
    used = {name for each in nodes for name in each.input}
    given = {name: number for name, number in numbers.items() if name in used}
    given |= {name: values(directions, len(ROWS), HIDDEN, seed=8) for name in states if name not in FIRST_STATES}
    rows = "n" if not lengths and FIRST_STATES.keys() >= set(states) else len(ROWS)
    return model_of(nodes, {"x": [rows, STEPS, READ]}, {"y": [rows, 2]}, arrays | given), arrays


def _flattened(output: str) -> list[NodeProto]:
    """An output of a layer as [batch, features]."""
    if output == "Y":
        turned = [node("Transpose", ["Y"], "Yt", perm=[2, 0, 1, 3]), node("Reshape", ["Yt", "flat"], "Yr")]
        return [*turned, node("ReduceMax", ["Yr"], "Yf", axes=[1], keepdims=0)]
    return [node("Transpose", [output], f"{output}t", perm=[1, 0, 2]), node("Flatten", [f"{output}t"], f"{output}f")]


def of_unit(array: np.ndarray, unit: int, parts: int) -> np.ndarray:
    """What belongs to a hidden unit of stacked gates, [directions, parts, ...]; a view."""
    return array.reshape(len(array), parts, HIDDEN, *array.shape[2:])[:, :, unit]


def unread(arrays: Arrays, unit: int, kind: str) -> None:
    """Nobody but itself reads the unit."""
    arrays["w2"].reshape(-1, HIDDEN, 2)[:, unit] = 0
    kept = of_unit(arrays["r"], unit, GATES[kind])[..., unit].copy()
    arrays["r"][:, :, unit] = 0
    of_unit(arrays["r"], unit, GATES[kind])[..., unit] = kept


def hidden_size(found: Compaction) -> int:
    made = next(each for each in found.model.graph.node if each.op_type in GATES)
    return next(attribute.i for attribute in made.attribute if attribute.name == "hidden_size")


OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    **{f"{kind}, {directions} way": (kind, {"directions": directions}) for kind in GATES for directions in (1, 2)},
    "GRU, reset last": ("GRU", {"linear_before_reset": 1, "directions": 2}),
    "LSTM with peepholes": ("LSTM", {"peepholes": True, "directions": 2}),
    "LSTM, coupled and clipped": ("LSTM", {"input_forget": 1, "clip": 0.8}),
    "LSTM, all that it gives": ("LSTM", {"outputs": ["Y", "Y_h", "Y_c"], "directions": 2}),
    "GRU, the last states": ("GRU", {"outputs": ["Y_h"], "directions": 2}),
    "RNN of rows that end": ("RNN", {"lengths": True, "directions": 2, "outputs": ["Y", "Y_h"]}),
    "LSTM from computed zeros": ("LSTM", {"states": ["zeros", "zeros"], "directions": 2}),
    "LSTM from constants": ("LSTM", {"states": ["h0", "h1"], "directions": 2}),
    "GRU from a constant": ("GRU", {"states": ["h0"]}),
}


@pytest.mark.parametrize(("kind", "options"), OPTIONS.values(), ids=OPTIONS)
def test_a_hidden_unit_that_nobody_reads_goes(kind: str, options: dict[str, Any]) -> None:
    model, arrays = layer(kind, **options)
    unread(arrays, 1, kind)
    found = check(model, arrays, ROWS)
    gates, directions = GATES[kind], options.get("directions", 1)
    assert hidden_size(found) == 3
    left = sizes(found)
    assert (left["w"], left["r"], left["b"]) == ((directions, 3 * gates, READ), (directions, 3 * gates, 3), (directions, 6 * gates))
    assert left["w2"][0] == len(arrays["w2"]) * 3 // 4
    assert left.get("p", (directions, 9)) == (directions, 9)
    assert all(left[name] == (directions, 6, 3) for name in left if name in ("h0", "h1"))
    assert not of_unit(found.folded["w"], 1, gates).any()
    assert found.kept["w"][1].tolist() == [gate * HIDDEN + unit for gate in range(gates) for unit in (0, 2, 3)]


@pytest.mark.parametrize("kind", GATES)
def test_units_that_only_read_each_other_go(kind: str) -> None:
    model, arrays = layer(kind)
    arrays["w2"][[0, 2]] = 0
    for reader in (1, 3):
        of_unit(arrays["r"], reader, GATES[kind])[..., [0, 2]] = 0
    assert hidden_size(check(model, arrays, ROWS)) == 2
    of_unit(arrays["r"], 3, GATES[kind])[0, 0, 0] = 1  # and a unit that is read reads one of them
    assert hidden_size(check(model, arrays, ROWS)) == 4


@pytest.mark.parametrize("kind", GATES)
def test_a_unit_of_one_direction_only_stays(kind: str) -> None:
    model, arrays = layer(kind, directions=2)
    arrays["w2"][1] = 0
    arrays["r"][0, :, 1] = 0
    assert hidden_size(check(model, arrays, ROWS)) == 4


def deaf(arrays: Arrays, unit: int, kind: str, bias: float) -> None:
    """The unit reads nothing; its gates have biases, of which that of the candidate is given."""
    gates = GATES[kind]
    of_unit(arrays["w"], unit, gates)[:] = 0
    of_unit(arrays["r"], unit, gates)[:] = 0
    candidate = {"LSTM": [3, 7], "GRU": [2, 5], "RNN": [0, 1]}[kind]
    of_unit(arrays["b"], unit, 2 * gates)[:, candidate] = [bias, 0]


@pytest.mark.parametrize(("kind", "options"), OPTIONS.values(), ids=OPTIONS)
def test_a_unit_that_never_leaves_0_goes(kind: str, options: dict[str, Any]) -> None:
    model, arrays = layer(kind, **options)
    deaf(arrays, 2, kind, 0)
    found = check(model, arrays, ROWS)
    begins_elsewhere = any(name.startswith("h") for name in options.get("states", ()))
    assert hidden_size(found) == (4 if begins_elsewhere else 3)
    assert np.array_equal(found.folded["b2"], arrays["b2"])


def test_a_unit_that_begins_at_0_goes_where_another_one_does_not() -> None:
    model, arrays = layer("LSTM", states=["h0", "h1"])
    deaf(arrays, 2, "LSTM", 0)
    for tensor in model.graph.initializer:
        if tensor.name in ("h0", "h1"):
            begin = values(1, 6, HIDDEN, seed=8) * np.float32([1, 1, 0, 1])
            tensor.raw_data = begin.tobytes()
    assert hidden_size(check(model, arrays, ROWS)) == 3


@pytest.mark.parametrize("kind", GATES)
def test_units_that_are_0_as_long_as_the_others_are_go_together(kind: str) -> None:
    model, arrays = layer(kind, directions=2)
    for unit in (0, 3):
        deaf(arrays, unit, kind, 0)
        of_unit(arrays["r"], unit, GATES[kind])[..., [0, 3]] = 2
    found = check(model, arrays, ROWS)
    assert hidden_size(found) == 2
    of_unit(arrays["r"], 0, GATES[kind])[:, :, 1] = 2  # and one of them hears a unit that lives
    assert hidden_size(check(model, arrays, ROWS)) == 4


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_a_unit_that_moves_by_its_bias_alone_is_no_constant(kind: str) -> None:
    model, arrays = layer(kind)
    deaf(arrays, 2, kind, 0.5)
    assert hidden_size(check(model, arrays, ROWS)) == 4


@pytest.mark.parametrize("reads", [False, True])
def test_a_unit_of_an_rnn_that_hears_nothing_is_a_constant(reads: bool) -> None:
    """From the first step on. Units of its own layer have read what it held before that."""
    model, arrays = layer("RNN", directions=2, states=["h0"])
    deaf(arrays, 2, "RNN", 0.5)
    if not reads:
        arrays["r"][:, :, 2] = 0
    found = check(model, arrays, ROWS)
    assert hidden_size(found) == (4 if reads else 3)
    held = arrays["w2"].reshape(2, HIDDEN, 2)[:, 2].sum(0) * np.tanh(0.5)
    np.testing.assert_allclose(found.folded["b2"], arrays["b2"] + held, rtol=1e-5)


def test_no_constant_goes_on_where_rows_end() -> None:
    model, arrays = layer("RNN", lengths=True)
    deaf(arrays, 2, "RNN", 0.5)
    arrays["r"][:, :, 2] = 0
    assert hidden_size(check(model, arrays, ROWS)) == 4


@pytest.mark.parametrize("activation", ["Relu", "Sigmoid", "Affine", "Elu"])
def test_other_activations_decide_by_what_they_give(activation: str) -> None:
    constants = {"activation_alpha": [0.5], "activation_beta": [0.25]} if activation == "Affine" else {}
    model, arrays = layer("RNN", activations=[activation], **constants)
    deaf(arrays, 2, "RNN", 0)
    assert hidden_size(check(model, arrays, ROWS)) == (3 if activation in ("Relu", "Elu") else 4)
    names = [*DEFAULTS["LSTM"][:2], activation]
    model, arrays = layer("LSTM", activations=names, **constants)
    deaf(arrays, 2, "LSTM", 0)
    assert hidden_size(check(model, arrays, ROWS)) == (3 if activation in ("Relu", "Elu") else 4)


@pytest.mark.parametrize("lengths", [False, True])
@pytest.mark.parametrize("kind", GATES)
def test_constant_features_go_into_the_bias_of_the_input(kind: str, lengths: bool) -> None:
    model, arrays = layer(kind, directions=2, lengths=lengths, linear_before_reset=1) if kind == "GRU" else layer(kind, lengths=lengths)
    arrays["w0"][:, 1] = 0
    found = check(model, arrays, ROWS)
    assert sizes(found)["w"][2] == 2
    gates = GATES[kind] * HIDDEN
    np.testing.assert_allclose(found.folded["b"][:, :gates], arrays["b"][:, :gates] + arrays["w"][..., 1] * arrays["b0"][1], rtol=1e-5)
    assert np.array_equal(found.folded["b"][:, gates:], arrays["b"][:, gates:])


def test_features_that_no_gate_reads_go() -> None:
    model, arrays = layer("GRU", directions=2)
    arrays["w"][..., 0] = 0
    assert sizes(check(model, arrays, ROWS))["w0"] == (READ, 2)


def test_a_layer_without_biases_takes_no_constant_but_0() -> None:
    model, arrays = layer("LSTM")
    next(each for each in model.graph.node if each.op_type == "LSTM").input[3] = ""
    del arrays["b"]
    arrays["w0"][:, [0, 1]] = 0
    arrays["b0"][0] = 0
    assert sizes(check(model, arrays, ROWS))["w"][2] == 2


def stacked(first: str, second: str) -> tuple[ModelProto, Arrays]:
    """An encoder, and a decoder over the same steps that begins where the encoder has ended."""
    nodes = [
        node("Transpose", ["x"], "steps", perm=[1, 0, 2]),
        node(first, ["steps", "we", "re", "be"], ["E", "E_h"], hidden_size=HIDDEN),
        node("Squeeze", ["E", "one"], "e"),
        node(second, ["e", "wd", "rd", "bd", "", "E_h"], ["", "D_h"], hidden_size=HIDDEN),
        *(node("Squeeze", ["D_h", "zero"], "d"), node("Gemm", ["d", "w2", "b2"], "y")),
    ]
    arrays: Arrays = {"w2": values(HIDDEN, 2, seed=5), "b2": values(2, seed=6)}
    for part, kind, read in (("e", first, READ), ("d", second, HIDDEN)):
        gates = GATES[kind] * HIDDEN
        arrays |= {
            f"w{part}": values(1, gates, read, seed=1),
            f"r{part}": values(1, gates, HIDDEN),
            f"b{part}": values(1, 2 * gates, seed=2),
        }
    numbers = {"one": np.array([1]), "zero": np.array([0])}
    return model_of(nodes, {"x": ["n", STEPS, READ]}, {"y": ["n", 2]}, arrays | numbers), arrays


def test_what_another_layer_begins_with_goes_with_it() -> None:
    model, arrays = stacked("GRU", "RNN")
    arrays["w2"][1] = 0
    arrays["rd"][:, :, 1] = 0
    arrays["wd"][:, :, 1] = 0
    assert sizes(check(model, arrays, ROWS))["rd"] == (1, HIDDEN, HIDDEN)  # the encoder's unit is still read by the others of the encoder
    arrays["re"][:, :, 1] = 0
    found = check(model, arrays, ROWS)
    assert (sizes(found)["re"], sizes(found)["rd"]) == ((1, 9, 3), (1, 3, 3))


def test_a_first_state_that_is_made_of_the_input_keeps_all_units() -> None:
    model, arrays = layer("GRU", states=["begin"])
    unread(arrays, 1, "GRU")
    arrays["w"][..., 0] = 0
    found = sizes(check(model, arrays, ROWS))
    assert (found["r"], found["w"]) == ((1, 12, 4), (1, 12, 2))


def test_hidden_states_that_are_an_output_stay() -> None:
    model, arrays = layer("LSTM", outputs=["Y", "Y_h"])
    arrays["w2"][[1, 5]] = 0
    unread(arrays, 1, "LSTM")
    assert hidden_size(check(model, arrays, ROWS)) == 3
    model.graph.output.append(helper.make_tensor_value_info("Y_h", TensorProto.FLOAT, [1, "n", HIDDEN]))
    assert hidden_size(check(model, arrays, ROWS)) == 4


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("kind", "options"), OPTIONS.values(), ids=OPTIONS)
def test_any_masks(kind: str, options: dict[str, Any], seed: int) -> None:
    model, arrays = layer(kind, **options)
    arrays = pruned(arrays, seed, dead=0.5)
    rng = np.random.default_rng(seed)
    for unit in range(HIDDEN):
        if rng.random() < 0.3:
            unread(arrays, unit, kind)
        elif rng.random() < 0.3:
            deaf(arrays, unit, kind, float(rng.choice([0, 0.5])))
    check(model, arrays, ROWS)
