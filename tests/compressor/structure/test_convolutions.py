"""Filters and channels: padding, pooling, normalisation, residual sums, groups."""

import numpy as np
import pytest
from onnx import ModelProto, NodeProto

from compressor.structure import Compaction
from tests.compressor.graph.models import model_of, node, values
from tests.compressor.structure.checks import Arrays, check, pruned, sizes


@pytest.mark.parametrize(("pads", "left"), [([0, 0, 0, 0], 2), ([1, 1, 1, 1], 3)])
def test_a_constant_channel_is_not_folded_through_padding(pads: list[int], left: int) -> None:
    """Three filters: one alive, one that gives 0, one that gives a constant; and one that nobody reads."""
    nodes = [
        *(node("Conv", ["x", "w1", "b1"], "a"), node("Relu", ["a"], "h"), node("MaxPool", ["h"], "p", kernel_shape=[2, 2])),
        *(node("Conv", ["p", "w2", "b2"], "y", pads=pads),),
    ]
    arrays = {"w1": values(5, 2, 3, 3), "b1": np.float32([1, -1, 1, 1, 1]), "w2": values(3, 5, 3, 3, seed=1), "b2": values(3)}
    arrays["w1"][[1, 2]] = 0
    arrays["w2"][:, 3] = 0
    model = model_of(nodes, {"x": ["n", 2, 9, 9]}, {"y": ["n", 3, None, None]}, arrays)
    found = check(model, arrays, values(4, 2, 9, 9, seed=5))
    assert sizes(found) == {"w1": (left, 2, 3, 3), "b1": (left,), "w2": (3, left, 3, 3), "b2": (3,)}


@pytest.mark.parametrize("attributes", [{"pads": [1, 1, 1, 1]}, {"pads": [1, 1, 1, 1], "count_include_pad": 1}, {}])
def test_an_average_over_padding_is_no_constant(attributes: dict[str, object]) -> None:
    nodes = [
        node("Conv", ["x", "w1", "b1"], "a"),
        node("AveragePool", ["a"], "p", kernel_shape=[3, 3], **attributes),
        node("Conv", ["p", "w2", "b2"], "y"),
    ]
    arrays = {"w1": values(3, 1, 2, 2), "b1": np.float32([1, 1, 1]), "w2": values(2, 3, 2, 2), "b2": values(2)}
    arrays["w1"][0] = 0
    found = check(model_of(nodes, {"x": ["n", 1, 9, 9]}, {"y": ["n", 2, None, None]}, arrays), arrays, values(4, 1, 9, 9))
    assert len(sizes(found)["b1"]) == 1
    assert sizes(found)["b1"][0] == (3 if "count_include_pad" in attributes else 2)


@pytest.mark.parametrize("kind", ["AveragePool", "MaxPool"])
def test_a_window_that_sees_nothing_but_padding_gives_no_constant(kind: str) -> None:
    nodes = [
        *(node("Conv", ["x", "w1", "b1"], "a"), node(kind, ["a"], "p", kernel_shape=[2, 2], dilations=[3, 3], pads=[1, 1, 1, 1])),
        *(node("Sigmoid", ["p"], "h"), node("Conv", ["h", "w2", "b2"], "y")),
    ]
    arrays = {"w1": values(3, 1, 1, 1), "b1": np.float32([1, 0, 1]), "w2": values(2, 3, 1, 1), "b2": values(2)}
    arrays["w1"][:2] = 0
    model = model_of(nodes, {"x": ["n", 1, 2, 2]}, {"y": ["n", 2, 1, 1]}, arrays, opset=19)
    assert sizes(check(model, arrays, values(4, 1, 2, 2)))["b1"] == (3,)


def test_a_normalisation_without_scale_is_a_constant_that_its_successors_take() -> None:
    def norm(name: str) -> Arrays:
        return {f"{name}{part}": np.abs(values(4, seed=seed)) for seed, part in enumerate("smvb")}

    nodes = [
        *(node("Conv", ["x", "w1"], "a"), node("BatchNormalization", ["a", "1s", "1b", "1m", "1v"], "n"), node("Relu", ["n"], "h")),
        *(node("Conv", ["h", "w2"], "c"), node("BatchNormalization", ["c", "2s", "2b", "2m", "2v"], "y")),
    ]
    arrays = {"w1": values(4, 1, 3, 3), "w2": values(4, 4, 3, 3), **norm("1"), **norm("2")}
    arrays["1s"][[0, 2]] = 0
    found = check(model_of(nodes, {"x": ["n", 1, 8, 8]}, {"y": ["n", 4, None, None]}, arrays), arrays, values(4, 1, 8, 8))
    assert sizes(found)["w1"] == (2, 1, 3, 3)
    assert sizes(found)["w2"] == (4, 2, 3, 3)
    assert sizes(found)["1v"] == (2,)


def residual(w1: np.ndarray, w2: np.ndarray, w3: np.ndarray) -> tuple[ModelProto, Arrays]:
    nodes = [
        *(node("Conv", ["x", "w1", "b1"], "a"), node("Conv", ["a", "w2"], "b", pads=[1, 1, 1, 1])),
        *(node("Add", ["a", "b"], "s"), node("GlobalAveragePool", ["s"], "p"), node("Flatten", ["p"], "f")),
        node("Gemm", ["f", "w3", "b3"], "y"),
    ]
    arrays = {"w1": w1, "b1": values(4), "w2": w2, "w3": w3, "b3": values(2)}
    return model_of(nodes, {"x": ["n", 1, 6, 6]}, {"y": ["n", 2]}, arrays), arrays


def test_a_residual_channel_goes_where_it_is_dead_in_every_branch() -> None:
    rows = values(4, 1, 6, 6)
    w1, w2, w3 = values(4, 1, 3, 3), values(4, 4, 3, 3), values(4, 2)
    w3[1] = 0  # still read by the branch
    assert sizes(check(*residual(w1, w2, w3), rows))["w1"] == (4, 1, 3, 3)
    w2[:, 1] = 0
    found = check(*residual(w1, w2, w3), rows)
    assert sizes(found) == {"w1": (3, 1, 3, 3), "b1": (3,), "w2": (3, 3, 3, 3), "w3": (3, 2), "b3": (2,)}


def test_a_constant_of_one_branch_is_none_of_the_sum() -> None:
    w1, w2, w3 = values(4, 1, 3, 3), values(4, 4, 3, 3), values(4, 2)
    w1[2] = 0
    w2[[1, 2]] = 0
    assert sizes(check(*residual(w1, w2, w3), values(4, 1, 6, 6)))["w1"] == (4, 1, 3, 3)  # the padded convolution reads the constant
    w2[:, 2] = 0
    found = check(*residual(w1, w2, w3), values(4, 1, 6, 6))
    assert found.kept["w1"][0].tolist() == [0, 1, 3]  # the second is 0 in one branch only, the third is a constant in both
    np.testing.assert_allclose(found.folded["b3"], values(2) + w3[2] * values(4)[2], rtol=1e-6)


def test_a_channel_of_a_depthwise_convolution_goes_with_its_filter() -> None:
    nodes = [
        *(node("Conv", ["x", "w1", "b1"], "a"), node("Relu", ["a"], "h"), node("Conv", ["h", "d", "e"], "b", group=4, pads=[1] * 4)),
        *(node("Relu", ["b"], "i"), node("Conv", ["i", "w2", "b2"], "y")),
    ]
    arrays = {"w1": values(4, 1, 1, 1), "b1": values(4), "d": values(4, 1, 3, 3), "e": np.float32([1, 1, 1, 1]), "w2": values(2, 4, 1, 1)}
    arrays["b2"] = values(2)
    arrays["d"][0] = 0  # a constant 1, whatever comes in
    arrays["w2"][:, 2] = 0
    found = check(model_of(nodes, {"x": ["n", 1, 5, 5]}, {"y": ["n", 2, 5, 5]}, arrays), arrays, values(4, 1, 5, 5))
    assert sizes(found) == {"w1": (2, 1, 1, 1), "b1": (2,), "d": (2, 1, 3, 3), "e": (2,), "w2": (2, 2, 1, 1), "b2": (2,)}


def test_normalisation_along_another_axis_takes_no_constants() -> None:
    """The product has as many units on its last axis as the normalisation has channels on its second."""
    nodes = [
        *(node("MatMul", ["x", "w1"], "a"), node("Add", ["a", "b1"], "h"), node("MatMul", ["h", "w2"], "m")),
        node("BatchNormalization", ["m", "s", "b", "mean", "var"], "y"),
    ]
    arrays = {"w1": values(3, 4) * np.float32([0, 1, 1, 1]), "b1": values(4), "w2": values(4, 5)}
    arrays |= {name: np.abs(values(5, seed=seed)) for seed, name in enumerate(("s", "b", "mean", "var"))}
    model = model_of(nodes, {"x": ["n", 5, 3]}, {"y": ["n", 5, 5]}, arrays)
    assert sizes(check(model, arrays, values(4, 5, 3)))["w1"] == (3, 4)


ALIVE, ZERO, ONE, UNREAD, OTHER = range(5)
NUMBERS = {
    **{"half": np.float32([0.5]), "six": np.float32(6), "slopes": np.abs(values(5, 1, 1)), "no": np.zeros((1, 1, 1, 7), bool)},
    **{"twice": np.float32([1, 1, 2, 2]), "fourteen": np.array([1, 5, 14, 14]), "last": np.array([14, 14])},
    **{"border": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "more": np.float32(2.0), "mid": np.array([2, 5])},
    **{
        "zero": np.array([0]),
        "two": np.array([2]),
        "three": np.array([3]),
        "far": np.array([9]),
        "scale": values(7),
        "of_all": values(5, 7, 7),
    },
    **{"one": np.array([1]), "seven": np.array([7]), "before": np.array([-1]), "start": np.array([-9])},
    **{"region": np.float32([0, 0, 0, 0, 1, 1, 1.5, 1.5]), "channels": np.abs(values(5)), "shift": values(5)},
}


def between_convolutions(*nodes: NodeProto) -> tuple[ModelProto, Arrays]:
    """`nodes` make p of a, which has five channels: one alive, one that is 0, one that is 1, one that nobody reads, one alive."""
    arrays = {"w1": values(5, 2, 3, 3), "b1": np.float32([1, 0, 1, 1, -1]), "w2": values(3, 5, 2, 2, seed=1), "b2": values(3)}
    arrays["w1"][[ZERO, ONE]] = 0
    arrays["w2"][:, UNREAD] = 0
    used = {name for each in nodes for name in each.input}
    given = {name: number for name, number in NUMBERS.items() if name in used}
    made = [node("Conv", ["x", "w1", "b1"], "a"), *nodes, node("Conv", ["p", "w2", "b2"], "y")]
    return model_of(made, {"x": [1, 2, 9, 9]}, {"y": [1, 3, None, None]}, arrays | given, opset=18), arrays


# The mean of the channels of x, cropped to the size of a.
MEAN = [
    *(node("ReduceMean", ["x", "one"], "mean"), node("Slice", ["mean", "zero", "seven", "two"], "high")),
    node("Slice", ["high", "zero", "seven", "three"], "m"),
]
FOLDED = {
    "Relu": [node("Relu", ["a"], "p")],
    "Sigmoid of 0 is no 0": [node("Sigmoid", ["a"], "p")],
    "Clip": [node("Clip", ["a", "half", "six"], "c"), node("Clip", ["c", "", "six"], "p")],
    "HardSwish": [node("HardSwish", ["a"], "p")],
    "PRelu with a slope for each channel": [node("PRelu", ["a", "slopes"], "p")],
    "MaxPool with padding": [node("MaxPool", ["a"], "p", kernel_shape=[3, 3], pads=[1, 1, 1, 1])],
    "AveragePool of what is there": [node("AveragePool", ["a"], "p", kernel_shape=[3, 3], pads=[1, 1, 1, 1])],
    "Pad that mirrors": [node("Pad", ["a", "border"], "p", mode="reflect")],
    "Resize by scales": [node("Resize", ["a", "", "twice"], "p", mode="cubic")],
    "Resize to constant sizes": [node("Resize", ["a", "", "", "fourteen"], "p", mode="linear")],
    "Resize to computed sizes": [
        *(node("Shape", ["a"], "s", end=2), node("Concat", ["s", "last"], "sizes", axis=0)),
        node("Resize", ["a", "", "", "sizes"], "p", mode="nearest"),
    ],
    "Slice of a row": [node("Slice", ["a", "zero", "far", "two"], "p")],
    "Split of rows": [node("Split", ["a", "mid"], ["q", "p"], axis=2)],
    "Concat of rows": [node("Relu", ["a"], "r"), node("Concat", ["r", "a"], "p", axis=3)],
    "its own negative": [node("Neg", ["a"], "r"), node("Add", ["a", "r"], "t"), node("Sub", ["t", "a"], "p")],
}
NOT_FOLDED = {  # 0 is, 1 is not
    "AveragePool that counts padding": [node("AveragePool", ["a"], "p", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1)],
    "AveragePool that may count it": [node("AveragePool", ["a"], "p", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)],
    "Pad": [node("Pad", ["a", "border"], "p")],
    "a gate for all channels": [*MEAN, node("Mul", ["a", "m"], "p")],
}
UNKNOWN = {
    "Pad with 2": [node("Pad", ["a", "border", "more"], "p")],
    "Softmax of rows": [node("Softmax", ["a"], "p", axis=3)],
    "LayerNormalization of rows": [node("LayerNormalization", ["a", "scale"], "p")],
    "Where": [node("Where", ["no", "six", "a"], "p")],
    "a sum with what is the same for all channels": [*MEAN, node("Add", ["a", "m"], "p")],
}
CROP = {"mode": "linear", "coordinate_transformation_mode": "tf_crop_and_resize"}
STUCK = {
    "Softmax over channels": [node("Softmax", ["a"], "p", axis=1)],
    "LayerNormalization over channels": [node("LayerNormalization", ["a", "of_all"], "p", axis=1)],
    "InstanceNormalization": [node("InstanceNormalization", ["a", "channels", "shift"], "p")],
    "LRN": [node("LRN", ["a"], "p", size=3)],
    "Resize of a region": [
        node("Resize", ["a", "region", "twice"], "p", mode="linear", coordinate_transformation_mode="tf_crop_and_resize")
    ],
    "channels the other way round": [node("Slice", ["a", "before", "start", "one", "before"], "p")],
    "a division by a value": [node("Exp", ["a"], "e"), node("Div", ["a", "e"], "p")],
}


@pytest.mark.parametrize("nodes", FOLDED.values(), ids=FOLDED)
def test_constant_channels_go_through(nodes: list[NodeProto]) -> None:
    model, arrays = between_convolutions(*nodes)
    found = check(model, arrays, values(1, 2, 9, 9, seed=5))
    assert found.kept["w1"][0].tolist() == [ALIVE, OTHER]
    assert sizes(found)["w2"] == (3, 2, 2, 2)
    assert not np.allclose(found.folded["b2"], arrays["b2"])


@pytest.mark.parametrize("nodes", NOT_FOLDED.values(), ids=NOT_FOLDED)
def test_a_channel_goes_through_only_where_it_is_0(nodes: list[NodeProto]) -> None:
    model, arrays = between_convolutions(*nodes)
    found = check(model, arrays, values(1, 2, 9, 9, seed=5))
    assert found.kept["w1"][0].tolist() == [ALIVE, ONE, OTHER]
    assert np.array_equal(found.folded["b2"], arrays["b2"])


@pytest.mark.parametrize("nodes", UNKNOWN.values(), ids=UNKNOWN)
def test_only_channels_that_nobody_reads_go(nodes: list[NodeProto]) -> None:
    model, arrays = between_convolutions(*nodes)
    found = check(model, arrays, values(1, 2, 9, 9, seed=5))
    assert found.kept["w1"][0].tolist() == [ALIVE, ZERO, ONE, OTHER]


@pytest.mark.parametrize("nodes", STUCK.values(), ids=STUCK)
def test_what_mixes_channels_keeps_them(nodes: list[NodeProto]) -> None:
    model, arrays = between_convolutions(*nodes)
    assert sizes(check(model, arrays, values(1, 2, 9, 9, seed=5)))["w1"] == (5, 2, 3, 3)


def test_two_filters_for_each_channel() -> None:
    """A depthwise convolution whose channels have two filters each keeps or loses both of them."""
    model, arrays = in_groups("Conv", groups=4, read=4, made=8)
    arrays["w"][[0, 1, 2]] = 0
    arrays["w2"][:, [0, 1, 2, 3, 7]] = 0
    found = check(model, arrays, ROWS)
    assert sizes(found)["w"] == (4, 1, 3, 3)
    assert found.kept["w"][0].tolist() == [4, 5, 6, 7]


ROWS = values(2, 2, 7, 7, seed=5)


def in_groups(kind: str, groups: int, read: int = 6, made: int = 6, **attributes: object) -> tuple[ModelProto, Arrays]:
    """A convolution in groups between two others."""
    shape = (made, read // groups, 3, 3) if kind == "Conv" else (read, made // groups, 3, 3)
    nodes = [
        *(node("Conv", ["x", "w1", "b1"], "a"), node("Relu", ["a"], "h"), node(kind, ["h", "w", "b"], "c", group=groups, **attributes)),
        *(node("Relu", ["c"], "i"), node("Conv", ["i", "w2", "b2"], "y")),
    ]
    arrays = {"w1": values(read, 2, 1, 1), "b1": values(read, seed=1), "w": values(*shape, seed=2), "b": values(made, seed=3)}
    arrays |= {"w2": values(2, made, 1, 1, seed=4), "b2": values(2)}
    return model_of(nodes, {"x": ["n", 2, 7, 7]}, {"y": ["n", 2, None, None]}, arrays), arrays


def group_of(found: Compaction) -> int:
    made = next(each for each in found.model.graph.node if each.output[0] == "c")
    return next(attribute.i for attribute in made.attribute if attribute.name == "group")


@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose"])
def test_a_whole_group_goes(kind: str) -> None:
    model, arrays = in_groups(kind, groups=3)
    arrays["w2"][:, 2:4] = 0
    found = check(model, arrays, ROWS)
    assert group_of(found) == 2
    assert sizes(found) == {
        **{"w1": (4, 2, 1, 1), "b1": (4,), "w": (4, 2, 3, 3), "b": (4,)},
        **{"w2": (2, 4, 1, 1), "b2": (2,)},
    }


def test_a_group_that_reads_nothing_is_a_constant() -> None:
    model, arrays = in_groups("Conv", groups=3)
    arrays["w"][2:4] = 0
    found = check(model, arrays, ROWS)
    assert (group_of(found), sizes(found)["w1"]) == (2, (4, 2, 1, 1))
    held = np.maximum(arrays["b"][2:4], 0)
    np.testing.assert_allclose(found.folded["b2"], arrays["b2"] + arrays["w2"][:, 2:4, 0, 0] @ held, rtol=1e-6)


def test_equally_many_channels_of_each_group_go() -> None:
    """One filter of each group, each at another place; and of what is read, the same place of every group."""
    model, arrays = in_groups("Conv", groups=2)
    arrays["w2"][:, [0, 5]] = 0
    arrays["w"][:, 1] = 0
    found = check(model, arrays, ROWS)
    assert group_of(found) == 2
    assert sizes(found)["w"] == (4, 2, 3, 3)
    assert [None if axis is None else axis.tolist() for axis in found.kept["w"]] == [[1, 2, 3, 4], [0, 2], None, None]
    assert found.kept["w1"][0].tolist() == [0, 2, 3, 5]


def test_channels_of_one_group_only_stay() -> None:
    model, arrays = in_groups("Conv", groups=2)
    arrays["w2"][:, [0, 1]] = 0
    arrays["w"][:3, 1] = 0
    found = check(model, arrays, ROWS)
    assert (group_of(found), sizes(found)["w"]) == (2, (6, 3, 3, 3))
    assert not found.folded["w"][[0, 1]].any()
    transposed, arrays = in_groups("ConvTranspose", groups=2)
    arrays["w2"][:, 0] = 0
    found = check(transposed, arrays, ROWS)
    assert (group_of(found), sizes(found)["w"]) == (2, (6, 3, 3, 3))
    assert not found.folded["w"][:3, 0].any()


@pytest.mark.parametrize(("pads", "left"), [(0, 2), (1, 3)])
def test_a_constant_goes_into_the_bias_of_its_group(pads: int, left: int) -> None:
    model, arrays = in_groups("Conv", groups=2, pads=[pads] * 4)
    arrays["w1"][[1, 4]] = 0  # at the same place of both groups
    arrays["b1"][[1, 4]] = [1, 2]
    found = check(model, arrays, ROWS)
    assert sizes(found)["w"] == (6, left, 3, 3)
    assert np.array_equal(found.folded["b"], arrays["b"]) == (left == 3)


def test_groups_of_the_input_stay_as_many() -> None:
    nodes = [node("Conv", ["x", "w", "b"], "c", group=2), node("Conv", ["c", "w2", "b2"], "y")]
    arrays = {"w": values(6, 1, 3, 3), "b": values(6), "w2": values(2, 6, 1, 1), "b2": values(2)}
    arrays["w2"][:, [0, 1, 2, 4]] = 0
    model = model_of(nodes, {"x": ["n", 2, 7, 7]}, {"y": ["n", 2, None, None]}, arrays)
    found = check(model, arrays, ROWS)
    assert (group_of(found), sizes(found)["w"]) == (2, (4, 1, 3, 3))


@pytest.mark.parametrize("seed", range(12))
def test_any_masks_of_convolutions_in_groups(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups, read, made, pads = rng.integers(1, 5), rng.integers(1, 4), rng.integers(1, 4), int(rng.integers(2))
    kind = ("Conv", "ConvTranspose")[seed % 2]
    model, arrays = in_groups(kind, int(groups), int(groups * read), int(groups * made), pads=[pads] * 4)
    check(model, pruned(arrays, seed, dead=0.7, kept=0.8), ROWS)
