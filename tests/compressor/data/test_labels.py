"""Labels: every way to be wrong has its own code, and the row and the value stand in the message. The same for .parquet and .npz."""

import decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compressor.data.labels import Targets, check_label_array
from compressor.data.source import Source
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


def in_order(parts) -> np.ndarray:
    order = np.argsort(np.concatenate([parts.indices[part] for part in ("train", "validation", "test")]))
    return np.concatenate([parts.train.labels, parts.validation.labels, parts.test.labels])[order]


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_floats_are_numbers_to_be_met(labelled, load, spec, kind) -> None:
    values = np.linspace(-3, 5, N).astype(kind)
    parts = load(labelled(values), spec((None, 1)), num_values=1)
    assert (parts.train.labels.dtype, parts.train.labels.shape) == (np.float32, (16, 1))
    assert np.array_equal(in_order(parts)[:, 0], values.astype(np.float32))


@pytest.mark.parametrize("fixed", [True, False])
def test_lists_of_floats_are_rows_of_numbers(table_file, npz_file, load, spec, fixed) -> None:
    values = np.random.default_rng(0).normal(size=(N, 3)).astype(np.float32)
    kind = pa.list_(pa.float32(), 3) if fixed else pa.list_(pa.float32())
    for path in (table_file(x=np.zeros(N), label=pa.array(list(values), kind)), npz_file(x=np.zeros((N, 1)), y=values)):
        assert np.array_equal(in_order(load(path, spec((None, 1)), num_values=3)), values)


def test_lists_of_several_lengths_are_refused(table_file, load, spec) -> None:
    with pytest.raises(InvalidDataset, match="differ in length"):
        load(table_file(x=np.zeros(N), label=[[0.5]] * 5 + [[0.5, 1.0]] * (N - 5)), spec((None, 1)), num_values=1)


def test_integers_are_regressed_where_the_task_says_so(labelled, load, spec) -> None:
    parts = load(labelled(np.array(GOOD)), spec((None, 1)), num_classes=0, num_values=1, task="regression")
    assert in_order(parts)[:, 0].tolist() == GOOD
    with pytest.raises(UnsupportedTask, match="one score for each") as caught:
        load(labelled(np.array(GOOD)), spec((None, 1)), num_classes=0, num_values=1)
    assert '{"task": "regression"}' in (caught.value.suggestion or "")


def test_floats_as_classes_are_another_task(labelled, load, spec) -> None:
    with pytest.raises(UnsupportedTask, match="integer classes") as caught:
        load(labelled(np.array(GOOD, dtype=np.float32)), spec((None, 1)), task="classification")
    assert caught.value.code == "unsupported_task"


def test_floats_of_another_width_than_the_output_are_another_task(labelled, load, spec) -> None:
    with pytest.raises(UnsupportedTask, match="give 1 numbers for each row and the model's output 10; in a regression"):
        load(labelled(np.array(GOOD, dtype=np.float32)), spec((None, 1)))
    with pytest.raises(UnsupportedTask, match="softmax"):
        load(labelled(np.array(GOOD, dtype=np.float32)), spec((None, 1)), num_values=0)


def test_floats_that_are_all_0_or_1_may_be_classes(labelled, load, spec) -> None:
    values = np.array(GOOD) % 2.0
    with pytest.raises(UnsupportedTask, match="all of them 0 or 1"):
        load(labelled(values), spec((None, 1)), num_classes=2, num_values=1)
    assert in_order(load(labelled(values), spec((None, 1)), num_classes=2, num_values=1, task="regression")).tolist() == [
        [v] for v in values
    ]
    assert in_order(load(labelled(values), spec((None, 1)), num_classes=0, num_values=1)).tolist() == [[v] for v in values]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39])
def test_a_number_that_is_none_is_named_with_its_row(labelled, load, spec, value) -> None:
    labels = np.linspace(0, 1, N)
    labels[[11, 15]] = value
    with pytest.raises(InvalidDataset, match="row 11: the label"):
        load(labelled(labels), spec((None, 1)), num_values=1)


@given(st.lists(st.lists(st.floats(width=32), min_size=2, max_size=2), min_size=1, max_size=30))
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_labels_of_a_regression_are_read_as_they_are_or_the_first_wrong_row_is_named(rows) -> None:
    labels, targets = np.array(rows, dtype=np.float64), Targets("regression", 0, 2)
    wrong = [index for index, row in enumerate(rows) if not np.isfinite(row).all()]
    if wrong:
        with pytest.raises(InvalidDataset, match=rf"row {wrong[0]}: "):
            check_label_array(labels, targets, Source("dataset", "a.npz"), "y")
    else:
        found = check_label_array(labels, targets, Source("dataset", "a.npz"), "y")
        assert found.dtype == np.float32
        assert np.array_equal(found, labels.astype(np.float32))


@pytest.mark.parametrize("kind", ["npz", "parquet"])
def test_rows_without_labels_are_taken_where_none_are_needed(table_file, npz_file, load, spec, kind) -> None:
    x = np.arange(N, dtype=np.float32)
    path = table_file(x=x) if kind == "parquet" else npz_file(x=x[:, None])
    parts = load(path, spec((None, 1)), distillation_weight=1)
    assert [part.labels for part in (parts.train, parts.validation, parts.test)] == [None] * 3
    assert sorted(value for part in (parts.train, parts.validation, parts.test) for value in part.inputs[0][:, 0]) == x.tolist()
    with pytest.raises(MissingLabels) as caught:
        load(path, spec((None, 1)), distillation_weight=0.9)
    assert '{"distillation_weight": 1}' in (caught.value.suggestion or "")


def test_rows_and_labels_must_be_as_many_and_there_must_be_some(npz_file, load, spec) -> None:
    with pytest.raises(InvalidDataset, match="no rows"):
        load(npz_file(x=np.zeros((0, 1))), spec((None, 1)), distillation_weight=1)
    with pytest.raises(InvalidDataset, match="'x' has shape"):
        load(npz_file(x=np.zeros((N, 1)), y=np.zeros(3, np.int64)), spec((None, 1)))


def test_parts_are_of_one_task(npz_file, tmp_path, load, spec) -> None:
    train = npz_file(x=np.zeros((N, 1)), y=np.linspace(0, 1, N)).rename(tmp_path / "floats.npz")
    test = npz_file(x=np.zeros((N, 1)), y=np.array(GOOD))
    with pytest.raises(InvalidDataset, match="integers in one part and floats in another"):
        load(train, spec((None, 1)), test=test, num_values=1)
    assert load(train, spec((None, 1)), test=test, num_values=1, task="regression").test.labels.shape == (N, 1)


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
