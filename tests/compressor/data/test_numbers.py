"""Numeric columns: file order to one input, by name to several, and never a silent guess."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from compressor.data import expanded
from compressor.data.limits import MAX_METADATA_BYTES
from compressor.errors import DatasetError, DatasetTooLarge, InvalidDataset, ShapeMismatch

ROWS = np.random.default_rng(0).standard_normal((20, 6)).astype(np.float32)
LABELS = [index % 4 for index in range(20)]


def in_order(parts, which: int = 0):
    """All rows of one input in the order of the file."""
    rows = np.concatenate([getattr(parts, part).inputs[which] for part in ("train", "validation", "test")])
    order = np.concatenate([parts.indices[part] for part in ("train", "validation", "test")])
    return rows[np.argsort(order)]


def columns(values: np.ndarray = ROWS) -> dict[str, np.ndarray]:
    # Names whose alphabetical order is another than that of the file.
    return {f"f{9 - index}": values[:, index] for index in range(values.shape[1])}


@pytest.mark.parametrize("shape", [(None, 6), (1, 6), (None, 2, 3), (None, 1, 2, 3), (None, None), (None, None, 3)])
def test_columns_fill_the_one_input_in_the_order_of_the_file(table_file, load, spec, shape) -> None:
    parts = load(table_file(**columns(), label=LABELS), spec(shape))
    rows = in_order(parts)
    assert rows.dtype == np.float32
    assert not parts.images
    assert rows.shape[1:] == tuple(want or have for want, have in zip(shape[1:], rows.shape[1:], strict=True))
    assert np.array_equal(rows.reshape(20, 6), ROWS)


@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.large_list(pa.float64()), pa.list_(pa.float32(), 6)])
def test_a_column_of_lists_is_a_row_of_numbers(table_file, load, spec, kind) -> None:
    parts = load(table_file(x=pa.array(ROWS.tolist(), kind), label=LABELS), spec((None, 6)))
    np.testing.assert_allclose(in_order(parts), ROWS, rtol=1e-6)


def test_nested_lists_keep_their_order(table_file, load, spec) -> None:
    parts = load(
        table_file(x=pa.array(ROWS.reshape(20, 2, 3).tolist(), pa.list_(pa.list_(pa.float32()))), label=LABELS), spec((None, 2, 3))
    )
    assert np.array_equal(in_order(parts), ROWS.reshape(20, 2, 3))


def test_integers_and_booleans_become_floats(table_file, load, spec) -> None:
    parts = load(table_file(a=[index % 2 == 0 for index in range(20)], b=list(range(20)), label=LABELS), spec((None, 2)))
    assert np.array_equal(in_order(parts), np.array([[index % 2 == 0, index] for index in range(20)], dtype=np.float32))


@pytest.mark.parametrize("dtype", [np.int64, np.dtype("int32"), torch.int64, torch.int32])
def test_integer_inputs_take_integers_as_int64(table_file, load, spec, dtype) -> None:
    path = table_file(tokens=pa.array([[index, 2**40] for index in range(20)]), label=LABELS)
    rows = in_order(load(path, spec((None, 2), dtype=dtype)))
    assert rows.dtype == np.int64
    assert np.array_equal(rows, [[index, 2**40] for index in range(20)])


def test_integer_inputs_refuse_floats(table_file, load, spec) -> None:
    with pytest.raises(InvalidDataset, match="integers"):
        load(table_file(a=np.ones(20), label=LABELS), spec((None, 1), dtype=torch.int64))


def test_several_inputs_take_the_columns_of_their_names(table_file, load, spec, png) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (20, 4, 4), dtype=np.uint8)
    path = table_file(b=pa.array(ROWS.tolist()), unused=["text"] * 20, label=LABELS, a=ROWS[:, 0], picture=[png(one) for one in pixels])
    parts = load(path, spec((None, 1), "a"), spec((None, 1, 4, 4), "picture"), spec((None, 2, 3), "b"))
    assert np.array_equal(in_order(parts, 0), ROWS[:, :1])
    assert np.array_equal(in_order(parts, 1), pixels[:, None])
    np.testing.assert_allclose(in_order(parts, 2), ROWS.reshape(20, 2, 3), rtol=1e-6)
    assert parts.images
    assert any("'unused'" in warning for warning in parts.warnings)


def test_an_input_without_its_column_is_named(table_file, load, spec) -> None:
    with pytest.raises(ShapeMismatch, match="'b'") as caught:
        load(table_file(a=ROWS[:, 0], label=LABELS), spec((None, 1), "a"), spec((None, 1), "b"))
    assert caught.value.param == "b"
    assert "'a'" in caught.value.detail


@pytest.mark.parametrize("shape", [(None, 5), (None, 7), (None, 1, 28, 28), (None, 4, None)])
def test_a_wrong_width_names_both_shapes(table_file, load, spec, shape) -> None:
    with pytest.raises(ShapeMismatch) as caught:
        load(table_file(**columns(), label=LABELS), spec(shape))
    assert "[N, 6]" in caught.value.detail
    assert "[N, " + ", ".join("?" if size is None else str(size) for size in shape[1:]) in caught.value.detail
    assert caught.value.suggestion


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300, None])
def test_numbers_that_are_none_are_named_with_row_and_column(table_file, load, spec, bad) -> None:
    values = [1.0] * 20
    values[13] = bad
    with pytest.raises(InvalidDataset, match=r"row 13.*'b'") as caught:
        load(table_file(a=[1.0] * 20, b=values, label=LABELS), spec((None, 2)))
    assert caught.value.param == "b"


def test_nulls_within_lists_are_named_with_their_row(table_file, load, spec) -> None:
    values = [[1.0, 2.0]] * 20
    values[7] = [1.0, None]
    with pytest.raises(InvalidDataset, match="row 7"):
        load(table_file(x=values, label=LABELS), spec((None, 2)))


@pytest.mark.parametrize("bad", [[1.0], [], [1.0, 2.0, 3.0]])
def test_ragged_lists_are_refused(table_file, load, spec, bad) -> None:
    with pytest.raises(InvalidDataset, match="length"):
        load(table_file(x=[[1.0, 2.0]] * 19 + [bad], label=LABELS), spec((None, 2)))


def test_lists_that_change_their_length_between_batches_are_refused(table_file, load, spec) -> None:
    with pytest.raises(InvalidDataset, match="row 2048"):
        load(table_file(x=[[1.0, 2.0]] * 2048 + [[1.0]] * 10, label=[0] * 2058), spec((None, None)))


@pytest.mark.parametrize(
    "column",
    [
        ["text"] * 20,
        [{"a": 1.0}] * 20,
        pa.array([1] * 20, pa.timestamp("s")),
        pa.array(["a"] * 20).dictionary_encode(),
        pa.nulls(20),
        [[["x"]]] * 20,
    ],
    ids=["text", "struct", "time", "dictionary", "null", "lists of text"],
)
def test_columns_that_are_no_numbers_are_named(table_file, load, spec, column) -> None:
    with pytest.raises(InvalidDataset, match="'odd'") as caught:
        load(table_file(a=ROWS[:, 0], odd=column, label=LABELS), spec((None, 2)))
    assert caught.value.param == "odd"


# As after a shuffle: an index that is a range of numbers is not stored as a column.
SHUFFLED = pd.Index(np.random.default_rng(2).permutation(20))


def indexed(index: pd.Index | None) -> pd.DataFrame:
    table = pd.DataFrame(ROWS, columns=list("abcdef")).assign(label=LABELS)
    return table if index is None else table.set_index(index)


@pytest.mark.parametrize(
    "index",
    [
        None,
        SHUFFLED,
        SHUFFLED.rename("id"),
        pd.MultiIndex.from_product([range(4), range(5)]),
    ],
    ids=["range", "sampled", "named", "two levels"],
)
@pytest.mark.parametrize("metadata", [True, False])
def test_the_index_of_pandas_is_no_feature(tmp_path, load, spec, index, metadata) -> None:
    table = pa.Table.from_pandas(indexed(index))
    if not metadata:
        table = table.replace_schema_metadata(None)
    pq.write_table(table, tmp_path / "t.parquet")
    names = [name for name in table.column_names if name not in "abcdef" and name != "label"]
    if names == ["id"] and not metadata:
        with pytest.raises(ShapeMismatch, match="7 numeric columns"):
            load(tmp_path / "t.parquet", spec((None, 6)))
        return
    parts = load(tmp_path / "t.parquet", spec((None, 6)))
    assert np.array_equal(in_order(parts), ROWS)
    assert all(any(repr(name) in warning for warning in parts.warnings) for name in names)


def test_an_index_named_after_an_input_is_its_column(tmp_path, load, spec) -> None:
    indexed(SHUFFLED.rename("id")).to_parquet(tmp_path / "t.parquet")
    parts = load(tmp_path / "t.parquet", spec((None, 1), "a"), spec((None, 1), "id", torch.int64))
    assert in_order(parts, 1)[:, 0].tolist() == SHUFFLED.tolist()


@pytest.mark.parametrize(
    "declared", [b"", b"{", b"[]", b"null", b'{"index_columns": 3}', b'{"index_columns": [null, {"kind": "range"}, "x"]}']
)
def test_odd_metadata_of_pandas_is_no_obstacle(tmp_path, load, spec, declared) -> None:
    table = pa.table({**columns(), "label": LABELS}).replace_schema_metadata({"pandas": declared})
    pq.write_table(table, tmp_path / "t.parquet")
    assert np.array_equal(in_order(load(tmp_path / "t.parquet", spec((None, 6)))), ROWS)


def test_metadata_of_many_megabytes_is_not_parsed(tmp_path, load, spec) -> None:
    table = pa.table({**columns(), "label": LABELS}).replace_schema_metadata({"pandas": b" " * (MAX_METADATA_BYTES + 1)})
    pq.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(DatasetTooLarge, match="metadata"):
        load(tmp_path / "t.parquet", spec((None, 6)))


def test_two_inputs_that_fit_one_by_one_are_too_large_together(table_file, load, spec, monkeypatch) -> None:
    path = table_file(a=pa.array(ROWS.astype(np.float16).tolist()), b=pa.array(ROWS.tolist()), label=LABELS)
    inputs = (spec((None, 6), "a"), spec((None, 6), "b"))
    monkeypatch.setattr(expanded, "MAX_EXPANDED_BYTES", 20 * (2 * 24 + 8))
    assert in_order(load(path, *inputs)).shape == (20, 6)
    monkeypatch.setattr(expanded, "MAX_EXPANDED_BYTES", 20 * (2 * 24 + 8) - 1)
    with pytest.raises(DatasetTooLarge, match=r"1,120 bytes in memory") as caught:
        load(path, *inputs)
    assert caught.value.param == "b"


def test_labels_alone_are_no_data(table_file, load, spec) -> None:
    with pytest.raises(InvalidDataset, match="no column"):
        load(table_file(label=LABELS), spec((None, 1)))


def test_many_batches_come_in_order(table_file, load, spec) -> None:
    values = np.arange(5000, dtype=np.float32)
    assert np.array_equal(in_order(load(table_file(a=values, label=np.zeros(5000, np.int64)), spec((None, 1))))[:, 0], values)


def test_an_image_for_an_integer_input_is_refused(table_file, load, spec, png) -> None:
    with pytest.raises(DatasetError, match="integers"):
        load(table_file(x=[png(np.zeros((4, 4), np.uint8))] * 20, label=LABELS), spec((None, 1, 4, 4), dtype=torch.int64))
