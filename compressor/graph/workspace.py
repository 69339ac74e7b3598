"""What torch's kernels on the CPU take beside the tensors that they are given and make: buffers, and time."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

_CONVOLUTION = torch.ops.aten.convolution.default
# oneDNN stores this many channels side by side, whether there are so many or not.
_CHANNELS_BLOCKED = 16
# From here on torch gives float32 to oneDNN; smaller ones it unfolds (aten/src/ATen/native/Convolution.cpp, use_mkldnn).
_ONEDNN_ELEMENTS = 20_480


def convolution_bytes(func: Any, args: Any, result: Any) -> int:
    """Bytes of the buffers of a convolution; 0 for any other operator.

    Where torch unfolds the input, every element stands there as many times as the kernel has elements; where oneDNN computes, input and
    output are copied with their channels rounded up.
    """
    if func is not _CONVOLUTION:
        return 0
    x, w, transposed = args[0], args[1], args[6]
    narrow, wide = (x, result) if transposed else (result, x)
    unfolded = x.shape[0] * wide.shape[1] * w.shape[2:].numel() * narrow.shape[2:].numel() * x.element_size()
    if x.dtype != torch.float32:
        return int(unfolded)
    blocked = sum(_blocked_bytes(tensor) for tensor in (x, result))
    return blocked + (int(unfolded) if x.numel() <= _ONEDNN_ELEMENTS else 0)


def _blocked_bytes(tensor: Tensor) -> int:
    channels = -(-tensor.shape[1] // _CHANNELS_BLOCKED) * _CHANNELS_BLOCKED
    return tensor.shape[0] * channels * tensor.shape[2:].numel() * tensor.element_size()


# How many elements of an addition one element takes as long as, about; that of a division's rest grows with the digits of the quotient.
_SLOW: Mapping[str, int] = {"fmod": 64, "remainder": 8} | dict.fromkeys(("pow", "tan", "sinh", "cosh", "asinh", "acosh", "atanh", "erf"), 4)
_SLOWER_IN_DOUBLE = 16


def work(func: Any, args: Any) -> int:
    """How many times the elements of its tensors an operator is to be counted with."""
    name = str(func._overloadpacket.__name__).rstrip("_")
    if name in ("sort", "topk"):
        return 2 * int(args[0].numel()).bit_length()
    in_double = isinstance(args[0], Tensor) and args[0].dtype == torch.float64
    return _SLOW.get(name, 1) * (_SLOWER_IN_DOUBLE if name == "fmod" and in_double else 1)


def pooled_elements(func: Any, args: Any, result: Any) -> int:
    """Elements that a pooling reads: as many for each of its results as its window has; 0 for any other operator."""
    name = func._overloadpacket.__name__
    if "pool" not in name or "adaptive" in name:
        return 0
    first = result[0] if isinstance(result, tuple) else result
    return int(first.numel()) * math.prod(map(int, args[1]))
