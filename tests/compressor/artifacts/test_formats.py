"""Files of every released format_version are read as what they were written as."""

from pathlib import Path

import numpy as np
import pytest
import torch

from compressor.artifacts import bp, csr, dense_onnx, packed_onnx, points, sparse_onnx
from tests.compressor.artifacts import stranger
from tests.compressor.artifacts.formats.make import FOLDER, write

VERSIONS = sorted(path for path in FOLDER.iterdir() if path.name.startswith("v"))
READERS = {
    "model.onnx": sparse_onnx.read,
    "model.opset12.onnx": sparse_onnx.read,
    "model.dense.onnx": dense_onnx.read,
    "model.float16.onnx": dense_onnx.read,
    "model.packed.onnx": packed_onnx.read,
    "model.bp": bp.read,
    "weights.safetensors": csr.read,
}
FILES = {*READERS, "curve.safetensors"}


def expected(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "expected.npz") as file:
        return dict(file)


def same(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> bool:
    return found.keys() == wanted.keys() and all(np.array_equal(found[name], array) for name, array in wanted.items())


def check(folder: Path) -> None:
    values = expected(folder)
    for name, read in READERS.items():
        found = read(folder / name)  # float16 has the numbers of these grids exactly
        assert same({tensor: found[tensor] for tensor in values}, values), name
    assert stranger.decode((folder / "model.bp").read_bytes()) == bp.unpack(folder / "model.bp")
    assert csr.read_sigmas(folder / "weights.safetensors").keys() == {"w"}
    curve = points.read(folder / "curve.safetensors")
    point = points.read_point(folder / "curve.safetensors", curve, 0, {name: torch.from_numpy(array) for name, array in values.items()})
    assert same({name: tensor.numpy() for name, tensor in point.tensors.items()}, values)
    assert torch.equal(point.log_sigma2["w"] == -2, point.tensors["w"] != 0)


@pytest.mark.parametrize("folder", VERSIONS, ids=[path.name for path in VERSIONS])
def test_files_of_a_released_version_are_read(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {*FILES, "expected.npz"}
    check(folder)


def test_there_is_a_folder_for_the_present_version_and_its_writers_still_write_it(tmp_path: Path) -> None:
    assert [path.name for path in VERSIONS] == ["v1"]
    write(tmp_path / "now")
    check(tmp_path / "now")
    for name in FILES:
        assert (tmp_path / "now" / name).read_bytes() == (VERSIONS[-1] / name).read_bytes(), name
