"""Devices are found without torch: by its distribution and the driver's file."""

from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
import torch

from service import devices


@pytest.mark.parametrize(
    ("version", "driver", "found"),
    [("2.13.0", True, ["cpu", "cuda"]), ("2.13.0+cu130", True, ["cpu", "cuda"]), ("2.13.0+cpu", True, ["cpu"]), ("2.13.0", False, ["cpu"])],
)
def test_cuda_needs_a_driver_and_a_build_for_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: str, driver: bool, found: list[str]
) -> None:
    monkeypatch.setattr(devices, "version", lambda _: version)
    monkeypatch.setattr(devices, "CUDA_DEVICE", tmp_path if driver else tmp_path / "none")
    assert devices.find_devices() == found


def test_none_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(devices, "version", missing)
    assert devices.find_devices() == []


def test_it_is_what_torch_says_itself() -> None:
    assert ("cuda" in devices.find_devices()) == torch.cuda.is_available()
