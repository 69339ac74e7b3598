"""Resize in all its modes and older forms, against stock ONNX Runtime."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from compressor.errors import GraphTooLarge, UnsupportedModel
from compressor.graph.node import Node
from compressor.graph.ops import OPERATORS
from tests.compressor.graph.models import node, values
from tests.compressor.graph.single_node import Case, assert_equals_onnx_runtime

SHAPE = (2, 3, 10, 9)
COORDINATES = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric", "tf_crop_and_resize")
ROI = np.array([0, 0, 0.2, 0.1, 1, 1, 0.8, 1.1], np.float32)
NOTHING = np.array([], np.float32)


def scales(*factors: float) -> np.ndarray:
    return np.array([1, 1, *factors], np.float32)


def sizes(*lengths: int) -> np.ndarray:
    return np.array([2, 3, *lengths], np.int64)


TARGETS = [(scales(2, 3), None), (scales(0.5, 1 / 3), None), (scales(0.7, 1.3), None), (None, sizes(13, 4)), (None, sizes(1, 1))]


def cases() -> Iterator[Case]:
    for coordinates in COORDINATES:
        roi = ROI if coordinates == "tf_crop_and_resize" else None
        for scale, size in TARGETS:
            for mode, options in (("nearest", {}), ("linear", {}), ("linear", {"antialias": 1}), ("cubic", {"exclude_outside": 1})):
                attributes = {"mode": mode, "coordinate_transformation_mode": coordinates, "extrapolation_value": 7.0, **options}
                yield Case("Resize", 19, SHAPE, (roi, scale, size), attributes)
    for rounding in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"):
        for coordinates in ("half_pixel", "asymmetric"):
            attributes = {"mode": "nearest", "nearest_mode": rounding, "coordinate_transformation_mode": coordinates}
            yield from (Case("Resize", 13, SHAPE, (None, scale, size), attributes) for scale, size in TARGETS)
    yield Case("Resize", 18, SHAPE, (None, scales(0.4, 0.4), None), {"mode": "cubic", "antialias": 1, "cubic_coeff_a": -0.5})
    # Opset 11: roi and scales are always there, empty where they do not count.
    for coordinates in ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "tf_half_pixel_for_nn"):
        mode = {"mode": "nearest" if coordinates.startswith("tf") else "linear", "coordinate_transformation_mode": coordinates}
        yield Case("Resize", 11, SHAPE, (NOTHING, scales(2, 0.5)), mode)
        yield Case("Resize", 11, SHAPE, (NOTHING, NOTHING, sizes(7, 20)), mode)
    yield Case(
        "Resize", 11, SHAPE, (ROI, NOTHING, sizes(7, 20)), {"mode": "linear", "coordinate_transformation_mode": "tf_crop_and_resize"}
    )
    # From opset 18 on: some axes only, and sizes that keep the aspect ratio.
    for policy in ("stretch", "not_larger", "not_smaller"):
        attributes = {"mode": "linear", "axes": [3, 2], "keep_aspect_ratio_policy": policy}
        yield Case("Resize", 18, SHAPE, (None, None, np.array([12, 8])), attributes)
    yield Case("Resize", 18, SHAPE, (None, np.array([0.5, 2], np.float32)), {"mode": "nearest", "axes": [-2, -1]})
    yield Case("Resize", 13, (2, 3, 8), (None, np.array([1, 1, 2], np.float32)), {"mode": "linear"})
    yield Case("Resize", 13, (1, 2, 3, 4, 5), (None, np.array([1, 1, 2, 2, 0.5], np.float32)), {"mode": "linear"})


@pytest.mark.parametrize("case", list(cases()), ids=str)
def test_resize_equals_onnx_runtime(case: Case) -> None:
    assert_equals_onnx_runtime(case, values(*case.shape), 1e-4)


def test_the_largest_tensor_on_the_way_is_capped() -> None:
    run = OPERATORS["Resize"].build(Node.from_proto(node("Resize", ["x", "", "", "sizes"], "y"), 19))
    for lengths in ([2**15, 2**15], [2**30, 1]):
        with pytest.raises(GraphTooLarge, match="elements"):
            run(torch.zeros(1, 4), None, None, torch.tensor(lengths))


def test_a_scale_that_leaves_nothing_gives_an_empty_tensor() -> None:
    run = OPERATORS["Resize"].build(Node.from_proto(node("Resize", ["x", "", "scales"], "y", mode="linear", antialias=1), 19))
    assert run(torch.zeros(2, 4), None, torch.tensor([1.0, 1e-9])).shape == (2, 0)
    with pytest.raises(ValueError, match="scales"):
        run(torch.zeros(2, 4), None, torch.tensor([1.0, 0.0]))


def test_an_endless_filter_is_refused() -> None:
    run = OPERATORS["Resize"].build(Node.from_proto(node("Resize", ["x", "", "", "sizes"], "y", mode="linear", antialias=1), 19))
    with pytest.raises(UnsupportedModel, match="antialiasing over"):
        run(torch.zeros(1, 2**14), None, None, torch.tensor([1, 1]))


def test_gradients_reach_every_element_of_an_enlarged_input() -> None:
    run = OPERATORS["Resize"].build(Node.from_proto(node("Resize", ["x", "", "scales"], "y", mode="linear"), 19))
    x = torch.randn(1, 1, 4, 4, requires_grad=True)
    with torch.inference_mode():
        run(x.detach(), None, torch.tensor([1.0, 1, 2, 2]))  # what is kept from here must serve training too
    run(x, None, torch.tensor([1.0, 1, 2, 2])).sum().backward()
    torch.testing.assert_close(x.grad, torch.full((1, 1, 4, 4), 4.0))
