"""Labels: every way to be wrong has its own code, and the row and the value stand in the message. The same for .parquet and .npz."""

import decimal

import numpy as np
import pyarrow as pa
import pytest

from compressor.errors import InvalidDataset, LabelOutOfRange, MissingLabels, UnsupportedTask

N = 20
GOOD = [index % 4 for index in range(N)]


@pytest.fixture(params=["parquet", "npz"])
def labelled(request, table_file, npz_file):
    """labelled(labels): a file with one feature and these labels."""
    if request.param == "parquet":
        return lambda labels: table_file(x=np.zeros(N, np.float32), label=labels)
    return lambda labels: npz_file(x=np.zeros((N, 1), np.float32), y=np.asarray(labels))


def with_one(value: object) -> list:
    return [*GOOD[:11], value, *GOOD[12:]]


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int32, np.int64, np.uint64])
def test_integers_of_any_width_are_classes(labelled, load, spec, kind) -> None:
    parts = load(labelled(np.array(GOOD, dtype=kind)), spec((None, 1)), num_classes=4)
    assert parts.train.labels.dtype == np.int64
    order = np.argsort(np.concatenate([parts.indices[part] for part in ("train", "validation", "test")]))
    labels = np.concatenate([parts.train.labels, parts.validation.labels, parts.test.labels])
    assert labels[order].tolist() == GOOD


def test_booleans_are_two_classes(labelled, load, spec) -> None:
    parts = load(labelled([index % 2 == 1 for index in range(N)]), spec((None, 1)), num_classes=2)
    assert set(parts.train.labels.tolist()) == {0, 1}


@pytest.mark.parametrize("value", [4, 255, -1, 2**62])
def test_a_label_out_of_range_names_row_and_value(labelled, load, spec, value) -> None:
    with pytest.raises(LabelOutOfRange, match=f"row 11: label {value} ") as caught:
        load(labelled(with_one(value)), spec((None, 1)), num_classes=4)
    assert caught.value.code == "label_out_of_range"
    assert "0 to 3" in caught.value.detail
    assert caught.value.param in ("label", "y")
    assert caught.value.suggestion


def test_an_unsigned_label_beyond_int64_is_out_of_range(labelled, load, spec) -> None:
    labels = np.array(GOOD, dtype=np.uint64)
    labels[5] = 2**64 - 1
    with pytest.raises(LabelOutOfRange, match="row 5"):
        load(labelled(labels), spec((None, 1)), num_classes=4)


def test_float_labels_are_another_task(labelled, load, spec) -> None:
    with pytest.raises(UnsupportedTask, match="regression") as caught:
        load(labelled(np.array(GOOD, dtype=np.float32)), spec((None, 1)))
    assert caught.value.code == "unsupported_task"


def test_decimal_labels_are_another_task(table_file, load, spec) -> None:
    with pytest.raises(UnsupportedTask):
        load(table_file(x=[1.0], label=[decimal.Decimal("1.5")]), spec((None, 1)))


def test_text_labels_say_what_to_do(labelled, load, spec) -> None:
    with pytest.raises(InvalidDataset, match="not integer classes") as caught:
        load(labelled(["cat", "dog"] * 10), spec((None, 1)))
    assert "Encode" in (caught.value.suggestion or "")


def test_one_hot_labels_say_what_to_do(table_file, npz_file, load, spec) -> None:
    one_hot = np.eye(4, dtype=np.int64)[GOOD]
    for path in (table_file(x=np.zeros(N), label=one_hot.tolist()), npz_file(x=np.zeros((N, 1)), y=one_hot)):
        with pytest.raises(InvalidDataset, match="not integer classes"):
            load(path, spec((None, 1)))


def test_a_column_of_classes_with_a_second_axis_is_taken(npz_file, load, spec) -> None:
    parts = load(npz_file(x=np.zeros((N, 1)), y=np.array(GOOD)[:, None]), spec((None, 1)))
    assert parts.train.labels.ndim == 1


def test_absent_labels_list_what_is_there(table_file, npz_file, load, spec) -> None:
    for path, found in ((table_file(x=[1.0], target=[1]), "'target'"), (npz_file(x=np.zeros((N, 1)), target=np.zeros(N)), "'target'")):
        with pytest.raises(MissingLabels, match=found) as caught:
            load(path, spec((None, 1)))
        assert caught.value.code == "missing_labels"
        assert "label_column" in (caught.value.suggestion or "")


def test_another_label_column_can_be_named(table_file, load, spec) -> None:
    parts = load(table_file(x=np.zeros(N), target=GOOD), spec((None, 1)), label_column="target")
    assert len(parts.train) == 16


@pytest.mark.parametrize("labels", [pa.array(with_one(None)), pa.nulls(N)])
def test_a_null_label_is_named_with_its_row(table_file, load, spec, labels) -> None:
    with pytest.raises(MissingLabels, match="row 11" if labels.type == pa.int64() else "row 0"):
        load(table_file(x=np.zeros(N), label=labels), spec((None, 1)))
