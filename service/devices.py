"""What trainers on this machine can run on, found out without torch, which takes seconds and hundreds of megabytes to import."""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from typing_extensions import TypeAliasType

Device = TypeAliasType("Device", Literal["cpu", "cuda"])

CUDA_DEVICE = Path("/dev/nvidiactl")


def find_devices() -> list[Device]:
    """None where torch is not installed; CUDA where a driver is and torch is no CPU build."""
    try:
        torch = version("torch")
    except PackageNotFoundError:
        return []
    return ["cpu", "cuda"] if CUDA_DEVICE.exists() and not torch.endswith("+cpu") else ["cpu"]
