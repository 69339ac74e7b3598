"""What this machine offers a run: a device and memory."""

import os
import resource

import torch

from compressor.errors import DeviceUnavailable


def resolve_device(name: str) -> torch.device:
    """Raises: DeviceUnavailable where CUDA was asked for and there is none."""
    if name == "cuda" and not torch.cuda.is_available():
        raise DeviceUnavailable("There is no CUDA device here.", param="device", suggestion='Use "auto" or "cpu".')
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def available_bytes() -> int:
    """Memory that this process may come to have: the machine's, or its own limit where that is lower."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return physical if limit == resource.RLIM_INFINITY else min(physical, limit)
