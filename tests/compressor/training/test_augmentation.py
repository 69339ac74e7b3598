"""Augmented images: every pixel comes from where it may come from, every row for itself, the same ones for the same seed."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compressor.training.augmentation import augment_images

CODED = torch.arange(28 * 28, dtype=torch.int32).view(1, 1, 28, 28)  # a pixel says where it was


def augmented(kinds, seed=0, num=200, images=CODED):
    torch.manual_seed(seed)
    return augment_images(images.expand(num, *images.shape[1:]), kinds, 2)


def test_a_shift_is_one_pixel_of_28_in_each_direction_with_the_border_repeated():
    found = augmented(["shift"])
    moves = set()
    for image in found[:, 0]:
        rows, columns = image // 28, image % 28
        down, right = int(rows[10, 10]) - 10, int(columns[10, 10]) - 10
        moves.add((down, right))
        assert torch.equal(rows, (torch.arange(28) + down).clamp(0, 27)[:, None].expand(28, 28).int())
        assert torch.equal(columns, (torch.arange(28) + right).clamp(0, 27)[None].expand(28, 28).int())
    assert moves == {(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)}


def test_a_flip_mirrors_about_half_of_the_rows_left_to_right():
    found = augmented(["flip"])
    flipped = sum(torch.equal(image, CODED[0].flip(2)) for image in found)
    assert flipped + sum(torch.equal(image, CODED[0]) for image in found) == 200
    assert 70 < flipped < 130


def test_a_crop_keeps_seven_eighths_of_each_side_in_order():
    for image in augmented(["crop"])[:, 0]:
        rows = image[:, 0] // 28
        assert (rows.diff() >= 0).all()
        assert int(rows[-1] - rows[0]) >= 28 * 7 // 8 - 2
    assert len({tuple(image[:, 0].tolist()) for image in augmented(["crop"])[:, 0]}) > 20


@pytest.mark.parametrize("axis", [1, 2])
def test_the_axes_of_the_image_are_those_that_are_named(axis):
    images = torch.randint(0, 255, (8, 9, 11, 3) if axis == 1 else (8, 3, 9, 11), dtype=torch.uint8)
    torch.manual_seed(1)
    one = augment_images(images, ["shift", "flip", "crop"], axis)
    torch.manual_seed(1)
    other = augment_images(images.movedim(3, 1) if axis == 1 else images.movedim(1, 3), ["shift", "flip", "crop"], 3 - axis)
    assert one.shape == images.shape
    assert one.dtype == torch.uint8
    assert torch.equal(one, other.movedim(1, 3) if axis == 1 else other.movedim(3, 1))


@given(st.lists(st.sampled_from(["shift", "flip", "crop"]), max_size=3), st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**31))
def test_nothing_is_made_up(kinds, height, width, seed):
    torch.manual_seed(seed)
    images = torch.rand(3, 1, height, width)
    found = augment_images(images, kinds, 2)
    assert found.shape == images.shape
    for image, source in zip(found, images, strict=True):
        assert torch.isin(image, source).all()
