"""A .npz of a stranger: no pickle, no bomb, no scrambled axes."""

import io
import pathlib
import pickle
import zipfile
from contextlib import suppress

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compressor.data import expanded, npz
from compressor.errors import DatasetError, DatasetTooLarge, InvalidDataset, ShapeMismatch

N = 20
LABELS = np.arange(N) % 4
RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (N, 6, 5), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (N, 6, 5, 3), dtype=np.uint8)


def in_order(parts, which: int = 0):
    rows = np.concatenate([getattr(parts, part).inputs[which] for part in ("train", "validation", "test")])
    return rows[np.argsort(np.concatenate([parts.indices[part] for part in ("train", "validation", "test")]))]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4", np.int16, bool])
def test_numbers_of_any_type_become_float32(npz_file, load, spec, dtype) -> None:
    x = RNG.integers(0, 2, (N, 6)).astype(dtype)
    parts = load(npz_file(x=x, y=LABELS), spec((None, 6)))
    assert in_order(parts).dtype == np.float32
    assert np.array_equal(in_order(parts), x.astype(np.float32))
    assert not parts.images


@pytest.mark.parametrize(
    ("shape", "wanted"),
    [
        ((N, 6, 5), (None, 30)),
        ((N, 30), (None, 1, 6, 5)),
        ((N, 6, 5), (None, 1, 6, 5)),
        ((N, 1, 6, 5), (None, 6, 5)),
        ((N,), (None, 1)),
        ((N, 1), (None,)),
    ],
)
def test_axes_of_one_come_and_go_and_flat_rows_fold(npz_file, load, spec, shape, wanted) -> None:
    x = RNG.standard_normal(shape).astype(np.float32)
    rows = in_order(load(npz_file(x=x, y=LABELS), spec(wanted)))
    assert rows.shape == (N, *wanted[1:])
    assert np.array_equal(rows.ravel(), x.ravel())


@pytest.mark.parametrize(
    ("shape", "wanted"), [((N, 6, 5, 3), (None, 3, 6, 5)), ((N, 5, 6), (None, 6, 5)), ((N, 7), (None, 6)), ((N, 2, 3), (None, 3, 2))]
)
def test_numbers_on_other_axes_are_refused_and_not_scrambled(npz_file, load, spec, shape, wanted) -> None:
    with pytest.raises(ShapeMismatch) as caught:
        load(npz_file(x=np.zeros(shape, np.float32), y=LABELS), spec(wanted))
    assert str(shape[1]) in caught.value.detail
    assert caught.value.param == "x"


@pytest.mark.parametrize(
    ("x", "shape", "expected"),
    [
        (GREY, (None, 1, 6, 5), GREY[:, None]),
        (GREY, (None, 30), GREY.reshape(N, 30)),
        (GREY[..., None], (None, 1, 6, 5), GREY[:, None]),
        (COLOUR, (None, 3, 6, 5), COLOUR.transpose(0, 3, 1, 2)),
        (COLOUR, (None, 6, 5, 3), COLOUR),
        (COLOUR.transpose(0, 3, 1, 2), (None, 6, 5, 3), COLOUR),
        (COLOUR.transpose(0, 3, 1, 2), (None, None, None, None), COLOUR.transpose(0, 3, 1, 2)),
    ],
)
def test_pixels_come_in_the_layout_of_the_input(npz_file, load, spec, x, shape, expected) -> None:
    parts = load(npz_file(x=x, y=LABELS), spec(shape))
    assert parts.images
    assert in_order(parts).dtype == np.uint8
    assert np.array_equal(in_order(parts), expected)


def test_flat_bytes_are_numbers_and_not_images(npz_file, load, spec) -> None:
    parts = load(npz_file(x=GREY.reshape(N, 30), y=LABELS), spec((None, 30)))
    assert not parts.images
    assert in_order(parts).dtype == np.float32
    assert np.array_equal(in_order(parts), GREY.reshape(N, 30))


def test_several_inputs_take_the_arrays_of_their_names(npz_file, load, spec) -> None:
    a, b = RNG.standard_normal((N, 2)).astype(np.float32), np.arange(N * 3).reshape(N, 3)
    parts = load(npz_file(b=b, a=a, y=LABELS), spec((None, 2), "a"), spec((None, 3), "b", torch.int64))
    assert np.array_equal(in_order(parts, 0), a)
    assert np.array_equal(in_order(parts, 1), b)
    with pytest.raises(InvalidDataset, match="'c'"):
        load(npz_file(a=a, y=LABELS), spec((None, 2), "a"), spec((None, 3), "c"))


class Evil:
    def __init__(self, marker: pathlib.Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return (pathlib.Path.touch, (self.marker,))


@pytest.mark.parametrize("which", ["x", "y"])
def test_objects_are_never_unpickled(tmp_path, npz_file, load, spec, which) -> None:
    evil = np.array([Evil(tmp_path / "pwned")] * N, dtype=object)
    path = npz_file(**({"x": np.zeros((N, 1)), "y": LABELS} | {which: evil}))
    with pytest.raises(InvalidDataset, match="never unpickled"):
        load(path, spec((None, 1)))
    assert not (tmp_path / "pwned").exists()


def test_a_pickle_named_npz_is_refused(tmp_path, load, spec) -> None:
    (tmp_path / "t.npz").write_bytes(pickle.dumps(Evil(tmp_path / "pwned")))
    with pytest.raises(InvalidDataset):
        load(tmp_path / "t.npz", spec((None, 1)))
    with zipfile.ZipFile(tmp_path / "t.npz", "w") as archive:
        archive.writestr("x.npy", pickle.dumps(Evil(tmp_path / "pwned")))
        archive.writestr("y.npy", pickle.dumps(Evil(tmp_path / "pwned")))
    with pytest.raises(InvalidDataset):
        load(tmp_path / "t.npz", spec((None, 1)))
    assert not (tmp_path / "pwned").exists()


def npy_bytes(shape: tuple[int, ...], data: bytes, descr: str = "<f4") -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": descr, "fortran_order": False, "shape": shape})
    return buffer.getvalue() + data


def test_a_header_that_declares_more_than_the_entry_holds_is_refused(tmp_path, load, spec) -> None:
    with zipfile.ZipFile(tmp_path / "t.npz", "w") as archive:
        archive.writestr("x.npy", npy_bytes((N, 10**10), b"\0" * 80))
        archive.writestr("y.npy", npy_bytes((N,), LABELS.astype("<f4").tobytes()))
    with pytest.raises(InvalidDataset, match="declares"):
        load(tmp_path / "t.npz", spec((None, 1)))


def test_a_zip_bomb_is_refused_by_its_declared_size(tmp_path, load, spec) -> None:
    with zipfile.ZipFile(tmp_path / "t.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", npy_bytes((N, 10**10), b"\0" * 1000))
        archive.writestr("y.npy", npy_bytes((N,), LABELS.astype("<f4").tobytes()))
        archive.filelist[0].file_size = 2**40
    with pytest.raises(DatasetTooLarge):
        load(tmp_path / "t.npz", spec((None, 1)))


def test_an_entry_that_lies_about_its_size_is_refused(tmp_path, load, spec) -> None:
    """100 MB of zeros behind a declared size of a few bytes."""
    with zipfile.ZipFile(tmp_path / "t.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", npy_bytes((N, 1_250_000), b"\0" * 100_000_000))
        archive.writestr("y.npy", npy_bytes((N,), LABELS.astype("<f4").tobytes()))
        archive.filelist[0].file_size = 300
    with pytest.raises(InvalidDataset):
        load(tmp_path / "t.npz", spec((None, 1)))


@pytest.mark.parametrize(
    ("x", "shape", "dtype", "row_bytes"),
    [
        (GREY.reshape(N, 30), (None, 30), torch.float32, 30 * 4),
        (GREY.reshape(N, 30), (None, 30), torch.int32, 30 * 8),
        (GREY.reshape(N, 30).astype(np.float16), (None, 30), torch.float32, 30 * 4),
        (GREY, (None, 6, 5), torch.float32, 30),
        (GREY, (None, 6, 5), torch.int64, 30 * 8),
    ],
    ids=["bytes", "bytes as int64", "half", "images", "integers of rank 3"],
)
def test_what_counts_is_the_type_in_memory_and_not_the_one_in_the_file(
    npz_file, load, spec, monkeypatch, x, shape, dtype, row_bytes
) -> None:
    """A quarter of a megabyte of zipped bytes became a gigabyte of floats."""
    path = npz_file(x=x, y=LABELS)
    monkeypatch.setattr(npz, "MAX_EXPANDED_BYTES", x.nbytes + LABELS.nbytes + 300)
    monkeypatch.setattr(expanded, "MAX_EXPANDED_BYTES", N * (row_bytes + 8))
    assert in_order(load(path, spec(shape, dtype=dtype))).nbytes == N * row_bytes
    monkeypatch.setattr(expanded, "MAX_EXPANDED_BYTES", N * (row_bytes + 8) - 1)
    monkeypatch.setattr(npz, "_read_array", lambda *_: pytest.fail("read before its size was checked"))
    with pytest.raises(DatasetTooLarge, match="in memory") as caught:
        load(path, spec(shape, dtype=dtype))
    assert caught.value.param == "x"


def test_too_many_rows_or_entries_are_refused(tmp_path, load, spec) -> None:
    with zipfile.ZipFile(tmp_path / "t.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", npy_bytes((30_000_000,), b"\0" * 30_000_000, "|i1"))
        archive.writestr("y.npy", npy_bytes((30_000_000,), b"\0" * 30_000_000, "|i1"))
    with pytest.raises(DatasetTooLarge, match="rows"):
        load(tmp_path / "t.npz", spec((None, 1)))
    with zipfile.ZipFile(tmp_path / "t.npz", "w") as archive:
        for index in range(1001):
            archive.writestr(f"{index}.npy", b"")
    with pytest.raises(DatasetTooLarge, match="entries"):
        load(tmp_path / "t.npz", spec((None, 1)))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros((N, 1)), "y": LABELS[:-1]}, "rows"),
        ({"x": np.zeros((0, 1)), "y": LABELS[:0]}, "no rows"),
        ({"x": np.float32(1), "y": LABELS}, "shape"),
        ({"x": np.zeros((N, 1)), "y": np.int64(1)}, "no rows"),
        ({"x": np.array(["a"] * N), "y": LABELS}, "only numbers"),
        ({"x": np.zeros(N, dtype="datetime64[s]"), "y": LABELS}, "only numbers"),
        ({"x": np.zeros(N, dtype=complex), "y": LABELS}, "only numbers"),
        ({"x": np.zeros(N, dtype=[("a", "f4")]), "y": LABELS}, "only numbers"),
        ({"x": np.full((N, 1), np.nan), "y": LABELS}, "row 0"),
        ({"z": np.zeros((N, 1)), "y": LABELS}, "'x'"),
    ],
)
def test_arrays_that_are_no_rows_of_numbers_are_refused(npz_file, load, spec, arrays, message) -> None:
    with pytest.raises(InvalidDataset, match=message):
        load(npz_file(**arrays), spec((None, 1)))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_is_an_error_with_a_code_or_still_readable(npz_file, load, spec, data) -> None:
    path = npz_file(x=np.arange(N, dtype=np.float32), y=LABELS)
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    with suppress(DatasetError):
        assert len(load(path, spec((None, 1))).train) == 16
