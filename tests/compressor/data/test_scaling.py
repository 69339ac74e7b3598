"""Scaling of pixels, against the formulas written out per channel."""

import numpy as np
import pytest
import torch

from compressor.data.scaling import SCALINGS, scale_and_offset, to_tensor

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RNG = np.random.default_rng(0)


def test_there_are_three_scalings() -> None:
    assert SCALINGS == ("unit", "symmetric", "imagenet")


@pytest.mark.parametrize("shape", [(4, 1, 6, 5), (4, 3, 6, 5), (4, 6, 5, 3), (4, 6, 5), (4, 30), (4, 6, 5, 4)])
def test_unit_and_symmetric_map_black_and_white_to_the_ends(shape) -> None:
    raw = RNG.integers(0, 256, shape, dtype=np.uint8)
    unit, symmetric = to_tensor(raw, "unit"), to_tensor(raw, "symmetric")
    assert unit.dtype == symmetric.dtype == torch.float32
    np.testing.assert_allclose(unit.numpy(), raw / 255, rtol=1e-6)
    np.testing.assert_allclose(symmetric.numpy(), raw / 127.5 - 1, atol=1e-6)


@pytest.mark.parametrize("last", [True, False])
def test_imagenet_is_normalised_channel_by_channel(last: bool) -> None:
    raw = RNG.integers(0, 256, (4, 3, 6, 5), dtype=np.uint8)
    expected = np.stack([(raw[:, channel] / 255 - MEAN[channel]) / STD[channel] for channel in range(3)], axis=1)
    if last:
        raw, expected = np.ascontiguousarray(raw.transpose(0, 2, 3, 1)), expected.transpose(0, 2, 3, 1)
    np.testing.assert_allclose(to_tensor(raw, "imagenet").numpy(), expected, atol=1e-5)


def test_imagenet_leaves_alpha_in_0_to_1() -> None:
    raw = RNG.integers(0, 256, (4, 6, 5, 4), dtype=np.uint8)
    np.testing.assert_allclose(to_tensor(raw, "imagenet").numpy()[..., 3], raw[..., 3] / 255, rtol=1e-6)


@pytest.mark.parametrize("shape", [(4, 1, 6, 5), (4, 6, 5, 1), (4, 6, 5), (4, 30)])
def test_imagenet_for_grey_takes_the_mean_of_the_channels(shape) -> None:
    raw = RNG.integers(0, 256, shape, dtype=np.uint8)
    np.testing.assert_allclose(to_tensor(raw, "imagenet").numpy(), (raw / 255 - np.mean(MEAN)) / np.mean(STD), atol=1e-5)


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("row_shape", [(1, 6, 5), (3, 6, 5), (6, 5, 3), (6, 5), (30,)])
def test_scale_and_offset_broadcast_over_a_batch(scaling, row_shape) -> None:
    scale, offset = scale_and_offset(scaling, row_shape)
    assert scale.dtype == offset.dtype == np.float32
    assert scale.ndim == offset.ndim == len(row_shape) + 1
    raw = RNG.integers(0, 256, (4, *row_shape), dtype=np.uint8)
    np.testing.assert_allclose(raw * scale + offset, to_tensor(raw, scaling).numpy(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("scaling", [*SCALINGS, None])
def test_only_pixels_are_scaled(scaling) -> None:
    floats, integers = RNG.standard_normal((4, 3)).astype(np.float32), np.arange(12).reshape(4, 3)
    assert np.array_equal(to_tensor(floats, scaling).numpy(), floats)
    assert to_tensor(integers, scaling).dtype == torch.int64
    assert np.array_equal(to_tensor(integers, scaling).numpy(), integers)


def test_without_scaling_pixels_stay_bytes_in_value_and_the_source_is_not_changed() -> None:
    raw = np.array([[0, 128, 255]], dtype=np.uint8)
    tensor = to_tensor(raw, None)
    assert tensor.tolist() == [[0.0, 128.0, 255.0]]
    floats = np.ones((2, 2), dtype=np.float32)
    to_tensor(floats, "unit").add_(1)
    assert np.array_equal(floats, np.ones((2, 2)))
