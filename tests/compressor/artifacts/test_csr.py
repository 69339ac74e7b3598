"""weights.safetensors: any tensor survives, the layout is the documented one, and nothing damaged reaches scipy."""

import hashlib
import json
import tracemalloc
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors import safe_open
from safetensors.numpy import save_file
from scipy.sparse import csr_array

import compressor
from compressor.artifacts import csr
from compressor.errors import InvalidArtifact
from tests.compressor.artifacts.mutants import mutants

quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

SHAPES = hnp.array_shapes(min_dims=1, max_dims=5, min_side=1, max_side=7)


@st.composite
def tensors(draw: st.DrawFn) -> np.ndarray:
    kind = draw(st.sampled_from([np.float16, np.float32, np.float64]))
    elements = st.floats(width=np.dtype(kind).itemsize * 8, allow_nan=False, allow_infinity=False)
    values = draw(hnp.arrays(kind, draw(SHAPES), elements=elements, fill=st.just(0.0)))
    if draw(st.booleans()):
        values[draw(st.integers(0, len(values) - 1))] = 0
    return values


# Few letters, so that names such as "w", "w.values" and "w_" meet in one file.
NAMES = st.one_of(
    st.text(min_size=1, max_size=12),
    st.builds(
        str.__add__, st.sampled_from(["w", "w_", ""]), st.sampled_from([".values", ".col_indices", ".crow_indices", "w", "__metadata__"])
    ),
)


@quick
@given(st.dictionaries(NAMES, tensors(), max_size=5))
def test_every_tensor_comes_back_as_it_was(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    path = tmp_path / "weights.safetensors"
    csr.write(path, arrays)
    found = csr.read(path)
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert np.array_equal(found[name], array)
    assert list(tmp_path.iterdir()) == [path]


@quick
@given(st.dictionaries(NAMES, tensors(), max_size=3))
def test_load_csr_gives_what_scipy_makes_of_the_dense_matrix(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    path = tmp_path / "weights.safetensors"
    csr.write(path, arrays)
    matrices = compressor.load_csr(path)
    assert matrices.keys() == {name for name, array in arrays.items() if array.ndim >= 2}
    for name, matrix in matrices.items():
        dense = arrays[name].reshape(len(arrays[name]), -1).astype(np.promote_types(arrays[name].dtype, np.float32))
        expected = csr_array(dense)
        assert matrix.shape == expected.shape
        assert matrix.dtype == expected.dtype
        assert np.array_equal(matrix.indptr, expected.indptr)
        assert np.array_equal(matrix.indices, expected.indices)
        assert np.array_equal(matrix.data, expected.data)


@quick
@given(st.dictionaries(NAMES, tensors(), max_size=4))
def test_standard_deviations_stand_beside_the_values(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    path = tmp_path / "weights.safetensors"
    sigmas = {name: np.random.default_rng(0).random(array.shape) for name, array in list(arrays.items())[::2]}

    csr.write(path, arrays, sigmas)

    found = csr.read_sigmas(path)
    assert found.keys() == sigmas.keys()
    for name, sigma in sigmas.items():
        assert np.array_equal(found[name], np.where(arrays[name] != 0, sigma, 0).astype(np.float32))
    assert all(np.array_equal(csr.read(path)[name], array) for name, array in arrays.items())


def test_the_layout_is_the_documented_one(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    weight = np.zeros((3, 2, 200), dtype=np.float32)
    weight[0, 1, 5], weight[2, 0, 7], weight[2, 1, 199] = 1.5, -2, 3
    csr.write(path, {"conv/w:0": weight, "bias": np.array([0, 1], dtype=np.float32)})
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
        stored = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - safe_open is no mapping
    text = metadata["bayespress_csr"]
    digest = json.loads(text)["digest"]
    numbers = [stored[key].tobytes() for key in ("conv/w:0.crow_indices", "conv/w:0.col_indices", "conv/w:0.values", "bias")]
    assert digest == hashlib.sha256(b"".join([text.replace(digest, "").encode(), *numbers])).hexdigest()[:32]
    assert json.loads(text) == {
        "format_version": 1,
        "digest": digest,
        "tensors": [
            {"name": "conv/w:0", "key": "conv/w:0", "layout": "csr", "shape": [3, 2, 200], "sigma": False},
            {"name": "bias", "key": "bias", "layout": "dense", "shape": [2], "sigma": False},
        ],
    }
    assert stored["conv/w:0.crow_indices"].tolist() == [0, 1, 1, 3]
    assert stored["conv/w:0.col_indices"].tolist() == [205, 7, 399]
    assert stored["conv/w:0.values"].tolist() == [1.5, -2, 3]
    assert stored["conv/w:0.crow_indices"].dtype == np.uint8
    assert stored["conv/w:0.col_indices"].dtype == np.uint16
    assert stored["bias"].tolist() == [0, 1]


@pytest.mark.parametrize(("columns", "kind"), [(256, np.uint8), (257, np.uint16), (65_536, np.uint16), (65_537, np.uint32)])
def test_columns_take_the_smallest_type_that_fits(tmp_path: Path, columns: int, kind: type) -> None:
    weight = np.zeros((2, columns), dtype=np.float32)
    weight[1, -1] = 1
    csr.write(tmp_path / "w", {"w": weight})
    with safe_open(tmp_path / "w", framework="numpy") as file:
        assert file.get_tensor("w.col_indices").dtype == kind
    assert np.array_equal(csr.read(tmp_path / "w")["w"], weight)


def test_a_matrix_without_zeros_is_stored_dense_and_still_loads_as_csr(tmp_path: Path) -> None:
    weight = np.arange(1, 13, dtype=np.float32).reshape(3, 4)
    csr.write(tmp_path / "w", {"w": weight})
    with safe_open(tmp_path / "w", framework="numpy") as file:
        assert list(file.keys()) == ["w"]
    assert np.array_equal(csr.load_csr(tmp_path / "w")["w"].toarray(), weight)


def test_bfloat16_is_stored_as_float32(tmp_path: Path) -> None:
    weight = np.eye(4).astype(ml_dtypes.bfloat16)
    csr.write(tmp_path / "w", {"w": weight})
    found = csr.read(tmp_path / "w")["w"]
    assert found.dtype == np.float32
    assert np.array_equal(found, np.eye(4))


def test_the_same_tensors_give_the_same_bytes(tmp_path: Path) -> None:
    arrays = {"a": np.eye(5, dtype=np.float32), "b": np.ones(3, dtype=np.float32)}
    csr.write(tmp_path / "one", arrays)
    csr.write(tmp_path / "two", arrays)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


GOOD: dict[str, Any] = {
    "w.crow_indices": np.array([0, 2, 2, 3], dtype=np.uint8),
    "w.col_indices": np.array([1, 3, 0], dtype=np.uint8),
    "w.values": np.array([1, 2, 3], dtype=np.float32),
}


ENTRY: dict[str, Any] = {"name": "w", "key": "w", "layout": "csr", "shape": [3, 4], "sigma": False}


def save(path: Path, stored: dict[str, Any], layout: object = None) -> Path:
    """With a digest that is right for what is stored, in its order."""
    layout = {"format_version": 1, "tensors": [ENTRY]} if layout is None else layout
    if isinstance(layout, dict):
        layout = {"format_version": 1, "digest": ""} | layout
        text = json.dumps(layout, separators=(",", ":")).encode()
        layout["digest"] = hashlib.sha256(b"".join([text, *(array.tobytes() for array in stored.values())])).hexdigest()[:32]
    save_file(stored, path, {"bayespress_csr": json.dumps(layout, separators=(",", ":"))})
    return path


def test_the_crafted_file_is_good_before_it_is_damaged(tmp_path: Path) -> None:
    matrix = csr.load_csr(save(tmp_path / "w", GOOD))["w"]
    assert matrix.toarray().tolist() == [[0, 1, 0, 2], [0, 0, 0, 0], [3, 0, 0, 0]]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("w.crow_indices", np.array([0, 3, 2, 3], dtype=np.uint8)),
        ("w.crow_indices", np.array([1, 2, 2, 3], dtype=np.uint8)),
        ("w.crow_indices", np.array([0, 2, 2, 4], dtype=np.uint8)),
        ("w.crow_indices", np.array([0, 2, 3], dtype=np.uint8)),
        ("w.crow_indices", np.array([], dtype=np.uint8)),
        ("w.crow_indices", np.array([0, 2, 2, 3], dtype=np.int64)),
        ("w.crow_indices", np.array([[0, 2, 2, 3]], dtype=np.uint8)),
        ("w.col_indices", np.array([1, 4, 0], dtype=np.uint8)),
        ("w.col_indices", np.array([3, 1, 0], dtype=np.uint8)),
        ("w.col_indices", np.array([1, 1, 0], dtype=np.uint8)),
        ("w.col_indices", np.array([1, 3], dtype=np.uint8)),
        ("w.values", np.array([1, 2], dtype=np.float32)),
        ("w.values", np.array([1, 2, 3], dtype=np.int32)),
    ],
)
def test_indices_that_would_lead_scipy_astray_are_refused(tmp_path: Path, key: str, value: np.ndarray) -> None:
    path = save(tmp_path / "w", GOOD | {key: value})
    with pytest.raises(InvalidArtifact):
        csr.load_csr(path)
    with pytest.raises(InvalidArtifact):
        csr.read(path)


@pytest.mark.parametrize(
    "layout",
    [
        "no object",
        {"tensors": 3},
        {"format_version": 2, "tensors": [ENTRY]},
        {"format_version": 1, "tensors": [ENTRY], "more": 1},
        {"format_version": 1, "tensors": [ENTRY, ENTRY]},
        {"format_version": 1, "tensors": [ENTRY | {"key": "gone"}]},
        {"format_version": 1, "tensors": [ENTRY | {"shape": [12]}]},
        {"format_version": 1, "tensors": [ENTRY | {"shape": [3, 2**40]}]},
        {"format_version": 1, "tensors": [ENTRY | {"shape": [-3, -4]}]},
        {"format_version": 1, "tensors": [ENTRY | {"sigma": True}]},
        {"format_version": 1, "tensors": [ENTRY | {"layout": "coo"}]},
        {"format_version": 1, "tensors": [ENTRY | {"layout": "dense", "key": "w.values", "shape": [4]}]},
    ],
)
def test_a_wrong_layout_is_refused(tmp_path: Path, layout: object) -> None:
    path = save(tmp_path / "w", GOOD, layout)
    with pytest.raises(InvalidArtifact):
        csr.load_csr(path)


def test_few_bytes_that_declare_gigabytes_are_refused_before_anything_is_made_of_them(tmp_path: Path) -> None:
    shapes = {"u": (3, 2**22), "v": (3, 2**20 + 2**19)}
    stored = {f"{name}.{suffix}": GOOD[f"w.{suffix}"] for name in shapes for suffix in ("crow_indices", "col_indices", "values")}
    tensors = [ENTRY | {"name": name, "key": name, "shape": list(shape)} for name, shape in shapes.items()]
    path = save(tmp_path / "w", stored, {"tensors": tensors})
    tracemalloc.start()
    for reader in (csr.read, csr.load_csr, csr.read_sigmas):
        with pytest.raises(InvalidArtifact, match="17,301,504 elements"):
            reader(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


def test_beyond_what_a_reader_takes_matrices_are_stored_dense(tmp_path: Path) -> None:
    empty, other = np.zeros((2**12, 2**12), np.float32), np.eye(2**12, dtype=np.float32)
    csr.write(tmp_path / "w", {"empty": empty, "other": other}, {"empty": np.ones(empty.shape)})
    with safe_open(tmp_path / "w", framework="numpy") as file:
        assert sorted(file.keys()) == ["empty", "empty.sigma", "other.col_indices", "other.crow_indices", "other.values"]
    assert np.array_equal(csr.read(tmp_path / "w")["other"], other)
    assert not csr.read(tmp_path / "w")["empty"].any()
    assert not csr.read_sigmas(tmp_path / "w")["empty"].any()


@pytest.mark.parametrize("sigma", [np.ones(2, np.float32), np.ones(3, np.float64), np.ones((3, 1), np.float32)])
def test_standard_deviations_of_another_number_or_type_are_refused(tmp_path: Path, sigma: np.ndarray) -> None:
    path = save(tmp_path / "w", GOOD | {"w.sigma": sigma}, {"format_version": 1, "tensors": [ENTRY | {"sigma": True}]})
    with pytest.raises(InvalidArtifact, match="deviations"):
        csr.read_sigmas(path)


def test_other_numbers_than_were_written_are_refused(tmp_path: Path) -> None:
    layout = {"format_version": 1, "digest": "0" * 32, "tensors": [ENTRY]}
    save_file(GOOD, tmp_path / "w", {"bayespress_csr": json.dumps(layout, separators=(",", ":"))})
    for reader in (csr.read, csr.load_csr, csr.read_sigmas):
        with pytest.raises(InvalidArtifact, match="digest"):
            reader(tmp_path / "w")


def test_a_file_of_another_tool_is_refused(tmp_path: Path) -> None:
    save_file(GOOD, tmp_path / "w")
    with pytest.raises(InvalidArtifact):
        csr.load_csr(tmp_path / "w")
    with pytest.raises(InvalidArtifact):
        csr.load_csr(tmp_path / "absent")


def test_of_5000_damaged_files_none_gives_other_tensors(tmp_path: Path) -> None:
    path = tmp_path / "w"
    arrays = {"w": np.eye(6, 9, dtype=np.float32), "b": np.ones(3, dtype=np.float32)}
    csr.write(path, arrays, {"w": np.full((6, 9), 0.1)})
    content, refused = path.read_bytes(), 0
    for mutant in mutants(content, 5000):
        path.write_bytes(mutant)
        try:
            found = csr.read(path)
        except InvalidArtifact:
            refused += 1
        else:
            assert found.keys() == arrays.keys()
            assert all(np.array_equal(found[name], array) for name, array in arrays.items())
    assert refused > 4900
