"""Units through what moves, splits and joins the axes of a value."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import ModelProto, NodeProto, TensorProto, helper

from compressor.structure.sizes import Size, Sizes, regroup, solve
from tests.compressor.graph.models import model_of, node, values
from tests.compressor.structure.checks import Arrays, check, sizes


def test_concat_and_flatten_know_whose_columns_are_whose() -> None:
    nodes = [
        *(node("Conv", ["x", "w1", "b1"], "a"), node("Conv", ["x", "w2", "b2"], "b"), node("Concat", ["a", "x", "b"], "c", axis=1)),
        *(node("Reshape", ["c", "shape"], "f"), node("Gemm", ["f", "w3", "b3"], "y")),
    ]
    arrays = {"w1": values(3, 2, 1, 1), "b1": values(3), "w2": values(4, 2, 1, 1), "b2": values(4), "w3": values(9 * 6, 2), "b3": values(2)}
    arrays["w3"].reshape(9, 6, 2)[[1, 3, 5, 8]] = 0  # of a, of x, and two of b
    model = model_of(nodes, {"x": ["n", 2, 2, 3]}, {"y": ["n", 2]}, arrays | {"shape": np.array([0, -1])})
    found = check(model, arrays, values(4, 2, 2, 3))
    assert sizes(found) == {"w1": (2, 2, 1, 1), "b1": (2,), "w2": (2, 2, 1, 1), "b2": (2,), "w3": (36, 2), "b3": (2,)}


def test_transposes_move_the_axis_of_values_and_weights() -> None:
    nodes = [
        *(node("Conv", ["x", "w1", "b1"], "a"), node("Transpose", ["a"], "t", perm=[0, 2, 3, 1]), node("Mul", ["t", "scale"], "m")),
        *(node("Transpose", ["w2"], "turned"), node("MatMul", ["m", "turned"], "b"), node("Add", ["b2", "b"], "c")),
        *(node("Reshape", ["c", "shape"], "f"), node("Gemm", ["f", "w3", "b3"], "y")),
    ]
    arrays = {"w1": values(4, 1, 1, 1), "b1": values(4), "scale": values(4), "w2": values(3, 4), "b2": values(3)}
    arrays |= {"w3": values(6 * 3, 2), "b3": values(2)}
    arrays["w2"][:, 2] = 0
    arrays["scale"][3] = 0
    arrays["w3"].reshape(6, 3, 2)[:, 1] = 0
    model = model_of(nodes, {"x": ["n", 1, 2, 3]}, {"y": ["n", 2]}, arrays | {"shape": np.array([-1, 18])})
    found = check(model, arrays, values(4, 1, 2, 3))
    # The flattened positions have the units in turn, not in blocks.
    expected = {"w1": (2, 1, 1, 1), "b1": (2,), "scale": (2,), "w2": (2, 2), "b2": (2,), "w3": (6 * 2, 2), "b3": (2,)}
    assert sizes(found) == expected


def linear_around(nodes: Sequence[NodeProto], hidden: int, read: int, numbers: Arrays, rank: int = 3) -> tuple[ModelProto, Arrays]:
    """A Gemm or MatMul makes a of `hidden` features, `nodes` make p, of which another one reads `read` features."""
    arrays = {"w1": values(4, hidden), "b1": values(hidden, seed=1), "w2": values(read, 3, seed=2), "b2": values(3, seed=3)}
    before = [node("MatMul", ["x", "w1"], "m"), node("Add", ["m", "b1"], "a")]
    after = [node("MatMul", ["p", "w2"], "n"), node("Add", ["n", "b2"], "y")]
    batch = ["n", "s"][: rank - 1]
    return model_of([*before, *nodes, *after], {"x": [*batch, 4]}, {"y": [None] * rank}, arrays | numbers, opset=18), arrays


X = values(2, 5, 4, seed=9)


def test_sections_of_an_axis_shrink_each_by_itself() -> None:
    nodes = [
        *(node("Split", ["a", "lengths"], ["l", "r"], axis=-1), node("Sigmoid", ["r"], "g"), node("Mul", ["l", "g"], "m1")),
        *(node("Slice", ["a", "starts", "ends", "axes"], "t"), node("Concat", ["m1", "t"], "p", axis=2)),
    ]
    numbers = {"lengths": np.array([3, 3]), "starts": np.array([-3]), "ends": np.array([8]), "axes": np.array([2])}
    model, arrays = linear_around(nodes, 6, 6, numbers)
    arrays["w2"][[1, 4]] = 0
    found = check(model, arrays, X)
    # Of the features 0 to 2 the second goes; of 3 to 5 it is still a gate, and goes as what the slice gives only.
    assert sizes(found)["w1"] == (4, 4)
    assert sizes(found)["w2"] == (4, 3)


@pytest.mark.parametrize("opset", [11, 17, 18])
def test_split_into_equal_parts_gets_lengths(opset: int) -> None:
    attributes = {11: {"split": [4, 4]}, 17: {}, 18: {"num_outputs": 2}}[opset]
    nodes = [node("Split", ["a"], ["l", "r"], axis=2, **attributes), node("Relu", ["l"], "p")]
    model, arrays = linear_around(nodes, 8, 4, {})
    model.opset_import[0].version = opset
    arrays["w2"][[0, 3]] = 0
    found = check(model, arrays, X)
    assert sizes(found)["w1"] == (4, 3)  # two on the left, and one of the right, which nobody reads


def test_channels_shuffle() -> None:
    """Two groups of three channels, dealt out like cards: a group goes where all of it is dead."""
    nodes = [node("Reshape", ["a", "apart"], "r"), node("Transpose", ["r"], "t", perm=[0, 1, 3, 2]), node("Reshape", ["t", "again"], "p")]
    model, arrays = linear_around(nodes, 6, 6, {"apart": np.array([0, 0, 2, 3]), "again": np.array([0, 0, 6])})
    arrays["w2"][[0, 2]] = 0
    assert sizes(check(model, arrays, X))["w1"] == (4, 6)
    arrays["w2"][4] = 0
    found = check(model, arrays, X)
    assert found.kept["w1"][1].tolist() == [3, 4, 5]
    assert found.kept["w2"][0].tolist() == [1, 3, 5]


def test_sizes_that_the_graph_computes_are_set_anew() -> None:
    """[batch, length, 6] to [batch * length, 6] and back, all sizes read off values."""
    sizes_of_a = [node("Shape", ["a"], "s"), *(node("Gather", ["s", f"{axis}"], f"s{axis}") for axis in range(3))]
    nodes = [
        *(*sizes_of_a, node("Mul", ["s0", "s1"], "rows"), node("Concat", ["rows", "s2"], "flat", axis=0)),
        *(node("Reshape", ["a", "flat"], "r"), node("Relu", ["r"], "h")),
        *(node("Concat", ["s0", "s1", "s2"], "whole", axis=0), node("Reshape", ["h", "whole"], "p")),
    ]
    model, arrays = linear_around(nodes, 6, 6, {f"{axis}": np.array([axis]) for axis in range(3)})
    arrays["w2"][[0, 2]] = 0
    assert sizes(check(model, arrays, X))["w1"] == (4, 4)


def test_a_size_that_is_read_as_a_number_stays() -> None:
    nodes = [
        *(node("Shape", ["a"], "s"), node("Gather", ["s", "two"], "f"), node("Cast", ["f"], "number", to=TensorProto.FLOAT)),
        node("Div", ["a", "number"], "d"),
        node("Relu", ["a"], "p"),
    ]
    model, arrays = linear_around(nodes, 6, 6, {"two": np.array([2])})
    arrays["w2"][[0, 2]] = 0
    assert sizes(check(model, arrays, X))["w1"] == (4, 4)  # nobody needs the division
    model.graph.output.append(helper.make_tensor_value_info("number", TensorProto.FLOAT, [1]))
    assert sizes(check(model, arrays, X))["w1"] == (4, 6)
    model.graph.output[-1].CopyFrom(helper.make_tensor_value_info("f", TensorProto.INT64, [1]))
    assert sizes(check(model, arrays, X))["w1"] == (4, 6)


@pytest.mark.parametrize("kind", ["Add", "Mul"])
def test_a_size_that_is_doubled_over_and_over_takes_no_memory(kind: str) -> None:
    doubled = [node(kind, [f"s{index}", f"s{index}"], f"s{index + 1}") for index in range(60)]
    nodes = [
        *(node("Shape", ["a"], "s"), node("Gather", ["s", "two"], "s0"), *doubled, node("Mul", ["s60", "zero"], "nothing")),
        *(node("Add", ["nothing", "same"], "shape"), node("Reshape", ["a", "shape"], "p")),
    ]
    numbers = {"two": np.array([2]), "zero": np.array([0]), "same": np.array([0, 0, -1])}
    model, arrays = linear_around(nodes, 6, 6, numbers)
    arrays["w2"][[0, 2]] = 0
    check(model, arrays, X)


def test_joining_with_the_batch_and_parting_again() -> None:
    """[batch, 6] to [batch * 2, 3] and back: of a half, all goes or nothing."""
    nodes = [node("Reshape", ["a", "joined"], "j"), node("Relu", ["j"], "h"), node("Reshape", ["h", "parted"], "p")]
    model, arrays = linear_around(nodes, 6, 6, {"joined": np.array([-1, 3]), "parted": np.array([-1, 6])}, rank=2)
    arrays["w2"][:3] = 0
    found = check(model, arrays, X[0])
    assert sizes(found)["w1"] == (4, 3)
    arrays["w2"][2] = 1
    assert sizes(check(model, arrays, X[0]))["w1"] == (4, 6)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_any_views_and_turns(data: st.DataObject) -> None:
    """The features are a product of factors; axes are split, joined, with the batch too, and turned."""
    factors = data.draw(st.lists(st.integers(2, 3), min_size=1, max_size=3))
    axes, nodes, numbers = [[BATCH], factors], [], {}
    for index in range(data.draw(st.integers(1, 4))):
        if data.draw(st.booleans()):
            axes = _regrouped(axes, data.draw(st.lists(st.booleans(), min_size=len(factors) + 1, max_size=len(factors) + 1)))
            numbers[f"to{index}"] = np.array([-1 if BATCH in axis else math.prod(axis) for axis in axes])
            nodes.append(("Reshape", f"to{index}", {}))
        else:
            perm = data.draw(st.permutations(range(len(axes))))
            axes = [axes[axis] for axis in perm]
            nodes.append(("Transpose", "", {"perm": perm}))
        nodes.append(("Sigmoid", "", {}))
    place = next(index for index, axis in enumerate(axes) if BATCH in axis)
    order = [place, *(index for index in range(len(axes)) if index != place)]
    atoms = [atom for index in order for atom in axes[index]]
    read = atoms[atoms.index(BATCH) + 1 :]
    nodes += [("Transpose", "", {"perm": order}), ("Reshape", "end", {})]
    numbers["end"] = np.array([-1, math.prod(read)])
    names = ["a", *(f"v{index}" for index in range(1, len(nodes))), "p"]
    made = [
        node(kind, [name for name in (names[index], second) if name], names[index + 1], **options)
        for index, (kind, second, options) in enumerate(nodes)
    ]
    model, arrays = linear_around(made, math.prod(factors), math.prod(read), numbers, rank=2)
    for _ in range(data.draw(st.integers(0, 3))):
        axis = data.draw(st.integers(0, max(0, len(read) - 1)))
        if read:
            np.moveaxis(arrays["w2"].reshape(*read, 3), axis, 0)[data.draw(st.integers(0, read[axis] - 1))] = 0
    for feature in data.draw(st.lists(st.integers(0, math.prod(factors) - 1), max_size=3)):
        arrays["w1"][:, feature] = 0
    check(model, arrays, values(6, 4, seed=9))


BATCH = 0


def _regrouped(axes: Sequence[Sequence[int]], breaks: Sequence[bool]) -> list[list[int]]:
    joined: list[list[int]] = [[]]
    for atom, new in zip([atom for axis in axes for atom in axis], breaks, strict=True):
        if new and joined[-1]:
            joined.append([])
        joined[-1].append(atom)
    return joined


def test_a_view_that_tears_units_apart_keeps_them() -> None:
    nodes = [node("Reshape", ["a", "torn"], "r"), node("Relu", ["r"], "h"), node("Reshape", ["h", "whole"], "p")]
    model, arrays = linear_around(nodes, 6, 6, {"torn": np.array([-1, 4]), "whole": np.array([-1, 6])}, rank=2)
    arrays["w2"][[0, 2]] = 0
    assert sizes(check(model, arrays, values(4, 4, seed=9)))["w1"] == (4, 6)


@given(st.data())
def test_the_atoms_of_a_view_make_up_both_sides(data: st.DataObject) -> None:
    """Whatever sizes are joined on both sides."""
    parts = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    given_sizes, made_sizes = (
        _joined(parts, data.draw(st.lists(st.booleans(), min_size=len(parts), max_size=len(parts)))) for _ in range(2)
    )
    atoms = regroup(tuple(map(Size, given_sizes)), list(map(Size, made_sizes)))
    assert atoms is not None
    factors = [atom.size.factor for atom in atoms]
    assert math.prod(factors) == math.prod(parts)
    for axis, size in enumerate(given_sizes):
        assert math.prod(atom.size.factor for atom in atoms if atom.given == axis) == size
    for axis, size in enumerate(made_sizes):
        assert math.prod(atom.size.factor for atom in atoms if atom.made == axis) == size
    places = [[getattr(atom, side) for atom in atoms if getattr(atom, side) >= 0] for side in ("given", "made")]
    assert all(place == sorted(place) for place in places)


def _joined(parts: Sequence[int], breaks: Sequence[bool]) -> list[int]:
    joined = [1]
    for part, new in zip(parts, breaks, strict=True):
        if new:
            joined.append(part)
        else:
            joined[-1] *= part
    return joined


N, L = Size(1, ("n",)), Size(1, ("l",))


@pytest.mark.parametrize(
    ("given_sizes", "made", "expected"),
    [
        ((N, Size(6)), [None, Size(3)], [(N, 0, 0), (Size(2), 1, 0), (Size(3), 1, 1)]),
        ((N.times(L), Size(8)), [N, L, Size(2), Size(4)], [(N, 0, 0), (L, 0, 1), (Size(2), 1, 2), (Size(4), 1, 3)]),
        ((N, Size(6)), [None, None, Size(3)], [(None, 1, 1), (Size(3), 1, 2)]),
        ((N, Size(1), Size(5)), [N, Size(5)], [(N, 0, 0), (Size(1), 1, 0), (Size(5), 2, 1)]),
        ((Size(1), Size(5)), [Size(5), Size(1)], [(Size(1), 0, -1), (Size(5), 1, 0), (Size(1), 1, 1)]),
        ((Size(4), Size(3)), [Size(6), Size(2)], None),
        ((Size(4), Size(0)), [Size(0)], None),
        ((Size(4), Size(3)), [Size(3)], None),
    ],
)
def test_atoms(given_sizes: Sizes, made: list[Size | None], expected: list[tuple[Size | None, int, int]] | None) -> None:
    atoms = regroup(given_sizes, solve(given_sizes, made))
    if expected is None:
        assert atoms is None or atoms[0].size is None
    else:
        assert [(atom.size, atom.given, atom.made) for atom in atoms or []] == expected
