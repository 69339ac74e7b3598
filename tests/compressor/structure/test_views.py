"""Units through what moves, splits and joins the axes of a value."""

import numpy as np

from tests.compressor.graph.models import model_of, node, values
from tests.compressor.structure.checks import check, sizes


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
