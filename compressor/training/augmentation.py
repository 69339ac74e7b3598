"""Light changes to images while they are trained on: shifted, mirrored, cropped, each row for itself."""

from collections.abc import Sequence

import torch
from torch import Tensor

from compressor.config import Augmentation

_SHIFT_PART = 28  # a shift of one pixel for every 28 of the side
_CROP_PART = 8  # a crop leaves out at most an eighth of the side


def augment_images(images: Tensor, kinds: Sequence[Augmentation], height_axis: int) -> Tensor:
    """Every image under a random change of its own, by torch's default generator.

    All changes are one: which row and which column of the image each row and column of the result comes from.

    Args:
        images: [N, ...], any dtype; the axis after `height_axis` is the width.
        kinds: "shift" by up to a 28th of the side, at least one pixel, the border repeated; "flip" left to right for half of the images;
            "crop" of at least seven eighths of the side, stretched to the whole by the nearest pixel.
    Returns: same shape and dtype.
    """
    num, height, width = len(images), images.shape[height_axis], images.shape[height_axis + 1]
    rows, columns = _identity(num, height), _identity(num, width)
    if "crop" in kinds:
        rows, columns = _cropped(rows, height), _cropped(columns, width)
    if "shift" in kinds:
        rows, columns = _shifted(rows, height), _shifted(columns, width)
    if "flip" in kinds:
        columns = torch.where(torch.rand(num, 1) < 0.5, columns.flip(1), columns)
    rows, columns = rows.clamp(0, height - 1).long().to(images.device), columns.clamp(0, width - 1).long().to(images.device)
    moved = images.movedim((height_axis, height_axis + 1), (1, 2))
    index = torch.arange(num, device=images.device)
    return moved[index[:, None, None], rows[:, :, None], columns[:, None, :]].movedim((1, 2), (height_axis, height_axis + 1)).contiguous()


def _identity(num: int, size: int) -> Tensor:
    return torch.arange(size, dtype=torch.float32).expand(num, size)


def _shifted(places: Tensor, size: int) -> Tensor:
    most = max(1, round(size / _SHIFT_PART))
    return places + torch.randint(-most, most + 1, (len(places), 1))


def _cropped(places: Tensor, size: int) -> Tensor:
    part = 1.0 - torch.rand(len(places), 1) / _CROP_PART
    start = torch.rand(len(places), 1) * size * (1.0 - part)
    return ((places + 0.5) * part + start).floor()
