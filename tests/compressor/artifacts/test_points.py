"""The points of a curve come back from the file as they went in; a file that was tampered with is refused before anything is made of it."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from compressor.artifacts.points import METADATA_KEY, Curve, Points, read, read_point, specs_of, verify_points, write
from compressor.errors import ArtifactMismatch, InvalidArtifact
from compressor.report import CurvePoint
from tests.compressor.artifacts.mutants import mutants

SHAPES = st.one_of(
    st.just(()), st.just((0,)), st.just((3, 0)), st.just((1,)), st.lists(st.integers(1, 9), min_size=1, max_size=4).map(tuple)
)


def point(tensors: dict[str, Tensor], metric: float = 0.5) -> CurvePoint:
    nnz = sum(int(tensor.count_nonzero()) for tensor in tensors.values() if tensor.ndim >= 2)
    return CurvePoint(beta=1.0, threshold=None, layer_thresholds={}, nnz=nnz, compression_ratio=2.0, metric=metric, chosen=False)


def write_all(path: Path, all_points: list[dict[str, Tensor]]) -> tuple[Curve, Points]:
    points = Points()
    for tensors in all_points:
        points.append(tensors, {name: tensor.square().log() for name, tensor in tensors.items() if tensor.ndim >= 2})
    curve = Curve(
        model_sha256="0" * 64,
        architecture=None,
        image_size=None,
        output=None,
        numel=100,
        metric="accuracy",
        dense_metric=0.9,
        fixed_nnz=0,
        tensors=specs_of(all_points[0]),
        points=tuple(point(tensors) for tensors in all_points),
    )
    write(path, curve, points)
    return curve, points


def unsealed(curve: Curve) -> Curve:
    """With digests that are of nothing: what is wrong with the parts is found before."""
    return curve.model_copy(update={"digests": ("0" * 32,) * len(curve.points)})


@st.composite
def some_points(draw: st.DrawFn) -> list[dict[str, Tensor]]:
    names = draw(st.lists(st.text(max_size=6), min_size=1, max_size=4, unique=True))
    shapes = {name: draw(SHAPES) for name in names}
    dtypes = {name: draw(st.sampled_from([torch.float32, torch.float64])) for name in names}
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))

    def tensor(name: str, density: float) -> Tensor:
        values = torch.randn(shapes[name], generator=generator, dtype=dtypes[name])
        return values * (torch.rand(shapes[name], generator=generator) < density)

    densities = draw(st.lists(st.sampled_from([0.0, 0.01, 0.1, 0.9, 1.0]), min_size=1, max_size=3))
    return [{name: tensor(name, density) for name in names} for density in densities]


@settings(max_examples=150, deadline=None)
@given(some_points())
def test_every_point_comes_back(tmp_path_factory: pytest.TempPathFactory, all_points: list[dict[str, Tensor]]) -> None:
    path = tmp_path_factory.mktemp("curve") / "curve.safetensors"
    curve, points = write_all(path, all_points)
    verify_points(path, curve, points, all_points[0])
    found_curve = read(path)
    assert found_curve.model_copy(update={"digests": ()}) == curve
    for number, tensors in enumerate(all_points):
        point = read_point(path, found_curve, number, all_points[0])
        found = point.tensors
        assert list(found) == list(tensors)
        assert list(point.log_sigma2) == [name for name, tensor in tensors.items() if tensor.ndim >= 2]
        for name, sigmas in point.log_sigma2.items():
            expected = tensors[name].square().log().to(torch.float16).to(tensors[name].dtype)
            assert torch.equal(sigmas, expected.masked_fill(tensors[name] == 0, -torch.inf))
        for name, tensor in tensors.items():
            assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
            assert torch.equal(found[name], tensor)


SPARSE = {"w": torch.zeros(40, 50).index_put((torch.tensor([3, 7]), torch.tensor([4, 5])), torch.tensor([1.5, -2.0])), "b": torch.ones(5)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "curve.safetensors"


def test_the_same_points_give_the_same_bytes_and_a_sparse_tensor_takes_few(path: Path) -> None:
    write_all(path, [SPARSE])
    first = path.read_bytes()
    write_all(path, [SPARSE])
    assert path.read_bytes() == first
    with safe_open(path, framework="pt") as file:
        assert file.get_tensor("point/0/0/positions").tolist() == [154, 355]
        assert file.get_tensor("point/0/1/positions").tolist() == [0b11111]


def test_another_file_than_was_written_is_found(path: Path) -> None:
    curve, points = write_all(path, [SPARSE])
    write_all(path, [SPARSE | {"b": torch.full((5,), 2.0)}])
    with pytest.raises(ArtifactMismatch):
        verify_points(path, curve, points, SPARSE)


TAMPERED: dict[str, tuple[str, Tensor, str]] = {
    "another type": ("values", torch.tensor([1.5, -2.0], dtype=torch.float64), "type"),
    "a matrix": ("values", torch.tensor([[1.5, -2.0]]), "type"),
    "not finite": ("values", torch.tensor([1.5, torch.inf]), "finite"),
    "zero": ("values", torch.tensor([1.5, 0.0]), "0 or"),
    "fewer values": ("values", torch.tensor([1.5]), "number"),
    "beyond the end": ("positions", torch.tensor([154, 2000], dtype=torch.int32), "outside"),
    "negative": ("positions", torch.tensor([-1, 5], dtype=torch.int32), "outside"),
    "twice": ("positions", torch.tensor([154, 154], dtype=torch.int32), "increase"),
    "backwards": ("positions", torch.tensor([355, 154], dtype=torch.int32), "increase"),
    "floats": ("positions", torch.tensor([154.0, 355.0]), "type"),
    "too few bits": ("positions", torch.full((3,), 1, dtype=torch.uint8), "elements"),
    "fewer variances": ("log_sigma2", torch.zeros(1, dtype=torch.float16), "variances"),
    "variances that are not finite": ("log_sigma2", torch.tensor([0, torch.inf], dtype=torch.float16), "variances"),
    "variances of another type": ("log_sigma2", torch.zeros(2), "variances"),
    "too many bits": ("positions", torch.full((250,), 255, dtype=torch.uint8), "number"),
}


@pytest.mark.parametrize("case", TAMPERED)
def test_tampered_parts_are_refused(path: Path, case: str) -> None:
    part, tensor, words = TAMPERED[case]
    curve, points = write_all(path, [SPARSE])
    tensors = dict(points.to_checkpoint()) | {f"point/0/0/{part}": tensor}
    save_file(tensors, path, {METADATA_KEY: unsealed(curve).model_dump_json()})
    with pytest.raises(InvalidArtifact, match=words) as caught:
        read_point(path, read(path), 0, SPARSE)
    assert caught.value.param == "curve.safetensors"


def test_bits_beyond_the_last_element_are_refused(path: Path) -> None:
    curve, points = write_all(path, [SPARSE])
    tensors = dict(points.to_checkpoint()) | {"point/0/1/positions": torch.tensor([0b101111], dtype=torch.uint8)}
    save_file(tensors, path, {METADATA_KEY: unsealed(curve).model_dump_json()})
    with pytest.raises(InvalidArtifact, match="bits"):
        read_point(path, read(path), 0, SPARSE)


def test_a_header_that_says_otherwise_is_refused(path: Path) -> None:
    curve, points = write_all(path, [SPARSE])
    header = json.loads(unsealed(curve).model_dump_json())
    wrong = {
        "format_version": 2,
        "points": [],
        "numel": 0,
        "dense_metric": "NaN",
        "tensors": [{"name": "w", "shape": [2**62], "dtype": "float32", "more": 1}],
    }
    for key, value in wrong.items():
        save_file(dict(points.to_checkpoint()), path, {METADATA_KEY: json.dumps(header | {key: value})})
        with pytest.raises(InvalidArtifact):
            read(path)
    header["points"][0]["nnz"] = 3
    save_file(dict(points.to_checkpoint()), path, {METADATA_KEY: json.dumps(header)})
    with pytest.raises(InvalidArtifact, match="number of nonzeros"):
        read_point(path, read(path), 0, SPARSE)


def test_tensors_of_another_model_are_refused_whatever_size_they_claim(path: Path) -> None:
    curve, _ = write_all(path, [SPARSE])
    for like in (
        {"w": SPARSE["w"]},
        {"b": SPARSE["b"], "w": SPARSE["w"]},
        SPARSE | {"w": torch.zeros(50, 40)},
        SPARSE | {"w": torch.zeros(40, 50, dtype=torch.float64)},
    ):
        with pytest.raises(InvalidArtifact, match="other tensors"):
            read_point(path, curve, 0, like)


def test_other_numbers_than_were_written_are_refused(path: Path) -> None:
    curve, points = write_all(path, [SPARSE])
    save_file(dict(points.to_checkpoint()), path, {METADATA_KEY: unsealed(curve).model_dump_json()})
    with pytest.raises(InvalidArtifact, match="digest"):
        read_point(path, read(path), 0, SPARSE)
    save_file(dict(points.to_checkpoint()), path, {METADATA_KEY: curve.model_dump_json()})
    with pytest.raises(InvalidArtifact, match="digests"):
        read(path)


def test_the_digest_is_the_documented_one(path: Path) -> None:
    _, points = write_all(path, [SPARSE])
    with safe_open(path, framework="pt") as file:
        text = file.metadata()[METADATA_KEY]
    (digest,) = json.loads(text)["digests"]
    numbers = [part.numpy().tobytes() for _, part in points.to_checkpoint()]
    text = text.replace(f'["{digest}"]', "[]")
    assert digest == hashlib.sha256(b"".join([text.encode(), *numbers])).hexdigest()[:32]


def test_of_5000_damaged_files_none_gives_other_tensors(path: Path) -> None:
    write_all(path, [SPARSE])
    refused = 0
    for mutant in mutants(path.read_bytes(), 5000):
        path.write_bytes(mutant)
        try:
            found = read_point(path, read(path), 0, SPARSE).tensors
        except InvalidArtifact:
            refused += 1
        else:
            assert found.keys() == SPARSE.keys()
            assert all(torch.equal(found[name], tensor) for name, tensor in SPARSE.items())
    assert refused > 4900
