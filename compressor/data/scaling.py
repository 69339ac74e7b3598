"""How pixels become numbers: x = pixel * scale + offset, and batches become tensors."""

from collections.abc import Sequence
from typing import get_args

import numpy as np
import numpy.typing as npt
import torch

from compressor.config import ImageScaling
from compressor.data.dataset import Array
from compressor.data.images import channel_axis

SCALINGS: tuple[ImageScaling, ...] = get_args(ImageScaling.__value__)

# Mean and deviation of ImageNet's training images in [0, 1], red, green, blue, as torchvision's and timm's pretrained models use them.
_IMAGENET_MEAN = np.array([0.485, 0.456, 0.406])
_IMAGENET_STD = np.array([0.229, 0.224, 0.225])

Floats = npt.NDArray[np.float32]


def scale_and_offset(scaling: ImageScaling, row_shape: Sequence[int]) -> tuple[Floats, Floats]:
    """`scale` and `offset` that broadcast over a batch of uint8 images.

    Args:
        scaling: "unit" gives [0, 1], "symmetric" [-1, 1], "imagenet" (x - mean) / std per channel.
        row_shape: shape of one image: [C, H, W], [H, W, C], [H, W] or flat. Grey takes the mean of the three channels'
            means and deviations, and a fourth channel (alpha) none.
    Returns: two float32 arrays with a dimension of 1 for the batch and for every axis but the channels'.
    """
    axis = channel_axis(row_shape)
    channels = 1 if axis is None else row_shape[axis]
    mean, std = _mean_and_std(scaling, channels)
    shape = [1] * (len(row_shape) + 1)
    if axis is not None:
        shape[axis + 1] = channels
    return (1 / (255 * std)).astype(np.float32).reshape(shape), (-mean / std).astype(np.float32).reshape(shape)


def _mean_and_std(scaling: ImageScaling, channels: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    if scaling == "unit":
        return np.zeros(channels), np.ones(channels)
    if scaling == "symmetric":
        return np.full(channels, 0.5), np.full(channels, 0.5)
    if channels in (3, 4):
        return np.append(_IMAGENET_MEAN, 0.0)[:channels], np.append(_IMAGENET_STD, 1.0)[:channels]
    return np.full(channels, _IMAGENET_MEAN.mean()), np.full(channels, _IMAGENET_STD.mean())


def to_tensor(raw: Array, scaling: ImageScaling | None) -> torch.Tensor:
    """A batch as the tensor that the model takes, on the CPU.

    Args:
        raw: [N, ...] uint8 pixels, float32 or int64, as in `Dataset.inputs`.
        scaling: how pixels are scaled; ignored for other types. None leaves the pixels 0 to 255.
    Returns: float32 of the same shape; int64 for int64.
    """
    if raw.dtype == np.int64:
        return torch.from_numpy(np.ascontiguousarray(raw))
    values = raw.astype(np.float32)
    if raw.dtype == np.uint8 and scaling is not None:
        scale, offset = scale_and_offset(scaling, raw.shape[1:])
        values *= scale
        values += offset
    return torch.from_numpy(values)
