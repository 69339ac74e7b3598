"""The parts of a run: what is given stays whole, what is absent is carved by the seed, and split.npz says so."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from compressor.data import split
from compressor.errors import DatasetError, InvalidDataset, LabelOutOfRange, MissingLabels, ShapeMismatch

N = 50


@pytest.fixture
def file(tmp_path: Path):
    """file(name, offset): 50 rows whose one feature is their number from `offset` on."""

    def write(name: str, offset: int = 0, rows: int = N) -> Path:
        values = np.arange(offset, offset + rows, dtype=np.float32)
        np.savez(tmp_path / f"{name}.npz", x=values[:, None], y=values.astype(np.int64) % 10)
        return tmp_path / f"{name}.npz"

    return write


def rows(dataset) -> list[int]:
    return dataset.inputs[0][:, 0].astype(int).tolist()


@given(
    num_rows=st.integers(1, 500),
    parts=st.sampled_from([("validation",), ("test",), ("validation", "test")]),
    seed=st.integers(0, 2**63 - 1),
)
def test_carved_parts_are_disjoint_and_whole(num_rows: int, parts: tuple[str, ...], seed: int) -> None:
    try:
        indices = split.carve(num_rows, parts, seed)
    except InvalidDataset:
        assert num_rows <= len(parts)
        return
    assert sorted(np.concatenate(list(indices.values())).tolist()) == list(range(num_rows))
    for part in parts:
        assert len(indices[part]) == max(1, round(num_rows / 10))
    again = split.carve(num_rows, parts, seed)
    assert all(np.array_equal(indices[part], again[part]) for part in indices)


def test_both_parts_are_carved_by_the_seed(file, load, spec) -> None:
    parts = load(file("train"), spec((None, 1)), seed=3)
    assert parts.carved == ("validation", "test")
    assert (len(parts.train), len(parts.validation), len(parts.test)) == (40, 5, 5)
    for part in ("train", "validation", "test"):
        dataset = getattr(parts, part)
        assert rows(dataset) == parts.indices[part].tolist()
        assert dataset.labels.tolist() == [row % 10 for row in rows(dataset)]
    assert rows(load(file("train"), spec((None, 1)), seed=3).train) == rows(parts.train)
    assert rows(load(file("train"), spec((None, 1)), seed=4).train) != rows(parts.train)
    assert any("probably seen" in warning for warning in parts.warnings)


def test_only_what_is_absent_is_carved(file, load, spec) -> None:
    parts = load(file("train"), spec((None, 1)), test=file("test", 1000))
    assert parts.carved == ("validation",)
    assert (len(parts.train), len(parts.validation)) == (45, 5)
    assert rows(parts.test) == list(range(1000, 1050))
    assert parts.indices.keys() == {"train", "validation"}


def test_what_is_given_stays_as_it_is(file, load, spec) -> None:
    parts = load(file("train"), spec((None, 1)), validation=file("validation", 500), test=file("test", 1000))
    assert rows(parts.train) == list(range(N))
    assert rows(parts.validation) == list(range(500, 550))
    assert rows(parts.test) == list(range(1000, 1050))
    assert parts.carved == ()
    assert parts.indices == {}
    assert parts.warnings == []


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_rows_to_carve_from(file, load, spec, count) -> None:
    with pytest.raises(InvalidDataset, match="too few"):
        load(file("train", rows=count), spec((None, 1)))
    assert len(load(file("train", rows=3), spec((None, 1))).train) == 1


def test_an_error_names_the_part_that_it_is_in(file, load, spec, tmp_path) -> None:
    np.savez(tmp_path / "bad.npz", x=np.zeros((5, 1)), y=np.full(5, 10))
    with pytest.raises(LabelOutOfRange, match=r"test \(bad.npz\), row 0"):
        load(file("train"), spec((None, 1)), test=tmp_path / "bad.npz")
    np.savez(tmp_path / "bad.npz", x=np.zeros((5, 1)))
    with pytest.raises(MissingLabels, match=r"validation \(bad.npz\)"):
        load(file("train"), spec((None, 1)), validation=tmp_path / "bad.npz")


@pytest.mark.parametrize("suffix", [".npz", ".parquet", ".csv"])
@pytest.mark.parametrize("part", ["dataset", "validation", "test"])
def test_a_broken_file_is_named_as_the_request_names_it(file, load, spec, tmp_path, part, suffix) -> None:
    broken = tmp_path / f"broken{suffix}"
    broken.write_bytes(b"broken")
    files = {"dataset": file("train"), part: broken}
    with pytest.raises(InvalidDataset, match=rf"^{part} \(broken{suffix}\)") as caught:
        load(files.pop("dataset"), spec((None, 1)), **files)
    assert caught.value.param == part


def test_parts_of_another_kind_are_refused(load, spec, tmp_path) -> None:
    np.savez(tmp_path / "other.npz", x=np.zeros((5, 2, 2), np.uint8), y=np.zeros(5, np.int64))
    np.savez(tmp_path / "numbers.npz", x=np.zeros((5, 2, 2), np.float32), y=np.zeros(5, np.int64))
    with pytest.raises(InvalidDataset, match="differ in kind") as caught:
        load(tmp_path / "numbers.npz", spec((None, 2, 2)), test=tmp_path / "other.npz")
    assert caught.value.param == "test"


def test_the_split_is_written_whole_and_read_back(tmp_path: Path) -> None:
    indices = split.carve(100, ("validation", "test"), seed=0)
    split.write_split(tmp_path / "split.npz", indices)
    found = split.read_split(tmp_path / "split.npz")
    assert found.keys() == indices.keys()
    assert all(np.array_equal(found[part], indices[part]) and found[part].dtype == np.int64 for part in indices)
    assert [path.name for path in tmp_path.iterdir()] == ["split.npz"]
    first = (tmp_path / "split.npz").read_bytes()
    split.write_split(tmp_path / "split.npz", indices)
    assert (tmp_path / "split.npz").read_bytes() == first


@pytest.mark.parametrize("shape", [(None, 64), (None, 1, 8, 8), (None, 8, 8, 1), (1, 8, 8)])
def test_the_digits_come_in_the_shape_of_the_input(load, spec, shape) -> None:
    parts = load("builtin:digits", spec(shape))
    assert (len(parts.train), len(parts.validation), len(parts.test)) == (1437, 180, 180)
    assert not parts.images
    pixels, labels = load_digits(return_X_y=True)
    for part in ("train", "validation", "test"):
        dataset = getattr(parts, part)
        assert dataset.inputs[0].shape == (len(dataset), *shape[1:])
        np.testing.assert_allclose(dataset.inputs[0].reshape(len(dataset), 64), pixels[parts.indices[part]] / 16, rtol=1e-6)
        assert np.array_equal(dataset.labels, labels[parts.indices[part]])


def test_the_digits_do_not_fit_every_model(load, spec) -> None:
    with pytest.raises(ShapeMismatch, match=r"\[N, 64\]"):
        load("builtin:digits", spec((None, 784)))
    with pytest.raises(LabelOutOfRange):
        load("builtin:digits", spec((None, 64)), num_classes=5)
    with pytest.raises(ShapeMismatch):
        load("builtin:digits", spec((None, 64), "a"), spec((None, 64), "b"))
    with pytest.raises(DatasetError):
        load("builtin:letters", spec((None, 64)))
