"""One reader per kind of parquet column: each takes Arrow tables batch by batch and ends in one array."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from compressor.data.dataset import Array, InputSpec, Labels, to_text
from compressor.data.expanded import ExpandedSize
from compressor.data.images import ImageColumn
from compressor.data.labels import Targets, check_finite, check_range, float_labels, not_integers
from compressor.data.numeric import input_type, shape_mismatch, to_input_type, to_row_shape
from compressor.data.source import Source
from compressor.errors import InvalidDataset, MissingLabels, ShapeMismatch


def is_image(kind: pa.DataType) -> bool:
    """An encoded image as `datasets` stores it: a struct of bytes and path, or bytes alone."""
    if pa.types.is_struct(kind):
        return {field.name for field in kind.fields} <= {"bytes", "path"}
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def is_number(kind: pa.DataType) -> bool:
    """A number, or lists of numbers of any depth."""
    while _is_list(kind):
        kind = kind.value_type
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def label_reader(
    name: str, kind: pa.DataType, num_rows: int, targets: Targets, where: Source, size: ExpandedSize
) -> "LabelReader | ValueReader":
    """What reads a label column of this type.

    Raises: MissingLabels, InvalidDataset, UnsupportedTask where it can be no label, or none that the model's output is made for.
    """
    if pa.types.is_null(kind):
        raise _no_label(where, name, 0)
    if pa.types.is_decimal(kind):
        raise float_labels(where, name, str(kind))
    element = kind
    while _is_list(element):
        element = element.value_type
    if not is_number(kind) or (element is not kind and targets.task != "regression" and not pa.types.is_floating(element)):
        raise not_integers(where, name, f"of type {str(kind)[:60]}")
    floats = pa.types.is_floating(element)
    if targets.task_of("floats" if floats else "integers", where, name, str(kind)[:60]) == "regression":
        return ValueReader(name, num_rows, targets, floats, where, size)
    return LabelReader(name, num_rows, targets.num_classes, where, size)


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _no_label(where: Source, name: str, row: int) -> MissingLabels:
    return MissingLabels(f"{where}, row {row}: the label is null.", param=name, suggestion="Label the row or drop it.")


def _first_null(column: pa.Array) -> int:
    return int(pc.index(column.is_null(), True).as_py())


def _one_array(batch: pa.Table, name: str) -> pa.Array:
    column = batch.column(name).combine_chunks()
    return column.storage if isinstance(column, pa.ExtensionArray) else column


class LabelReader:
    def __init__(self, name: str, num_rows: int, num_classes: int, where: Source, size: ExpandedSize) -> None:
        self._name = name
        self._num_classes = num_classes
        self._where = where
        size.add(name, (num_rows,), np.int64)
        self._labels: Labels = np.empty(num_rows, dtype=np.int64)

    def add(self, batch: pa.Table, first_row: int) -> None:
        column = _one_array(batch, self._name)
        if column.null_count:
            raise _no_label(self._where, self._name, first_row + _first_null(column))
        values = column.to_numpy(zero_copy_only=False)
        self._labels[first_row : first_row + len(values)] = check_range(values, self._num_classes, self._where, self._name, first_row)

    def finish(self) -> Labels:
        return self._labels


class ValueReader:
    """A column of numbers, or of lists of them that are all of one length, as [N, K]."""

    def __init__(self, name: str, num_rows: int, targets: Targets, floats: bool, where: Source, size: ExpandedSize) -> None:
        self._name = name
        self._num_rows = num_rows
        self._targets = targets
        self._floats = floats
        self._where = where
        self._size = size
        self._labels: Labels | None = None

    def add(self, batch: pa.Table, first_row: int) -> None:
        column = _one_array(batch, self._name)
        if column.null_count:
            raise _no_label(self._where, self._name, first_row + _first_null(column))
        values = _numbers_of(column, self._where, self._name, first_row)
        if self._labels is None:
            self._targets.check_width(values.shape[1], self._where, self._name)
            shape = (self._num_rows, values.shape[1])
            self._size.add(self._name, shape, np.float32)
            self._labels = np.empty(shape, dtype=np.float32)
        if values.shape[1] != self._labels.shape[1]:
            raise _lists_differ(self._where, self._name, first_row)
        self._labels[first_row : first_row + len(values)] = check_finite(values, self._where, self._name, first_row)

    def finish(self) -> Labels:
        assert self._labels is not None  # noqa: S101 - files without rows are refused before
        if self._floats:
            self._targets.refuse_float_classes(self._labels, self._where, self._name)
        return self._labels


class ImageReader:
    def __init__(self, spec: InputSpec, name: str, num_rows: int, where: Source, size: ExpandedSize) -> None:
        self._name = name
        self._images = ImageColumn(spec, name, num_rows, where, size)

    def add(self, batch: pa.Table, first_row: int) -> None:
        column = _one_array(batch, self._name)
        rows = column.to_pylist()
        if pa.types.is_struct(column.type):
            data: list[bytes | None] = [row and row.get("bytes") for row in rows]
            paths: list[str | None] = [row and row.get("path") for row in rows]
        else:
            data, paths = rows, [None] * len(rows)
        self._images.add(data, paths, first_row)

    def finish(self) -> Array:
        return self._images.finish()


class NumberReader:
    """Columns side by side in the given order; a list column counts as many numbers as its rows hold."""

    def __init__(self, spec: InputSpec, names: tuple[str, ...], num_rows: int, where: Source, size: ExpandedSize) -> None:
        self._spec = spec
        self._size = size
        self._names = names
        self._num_rows = num_rows
        self._where = where
        self._rows: Array | None = None

    def add(self, batch: pa.Table, first_row: int) -> None:
        blocks = [self._block(batch, name, first_row) for name in self._names]
        width = sum(block.shape[1] for block in blocks)
        if self._rows is None:
            self._rows = self._begin(blocks, width)
        if width != self._rows.shape[1]:
            raise _lists_differ(self._where, self._names[0], first_row)
        np.concatenate(blocks, axis=1, out=self._rows[first_row : first_row + batch.num_rows])

    def finish(self) -> Array:
        assert self._rows is not None  # noqa: S101 - files without rows are refused before
        shape = to_row_shape(self._rows.shape[1], self._spec)
        assert shape is not None  # noqa: S101 - checked in _begin
        return self._rows.reshape(self._num_rows, *shape)

    def _begin(self, blocks: list[Array], width: int) -> Array:
        if to_row_shape(width, self._spec) is None:
            raise self._mismatch(blocks, width)
        shape = (self._num_rows, width)
        self._size.add(self._names[0], shape, input_type(self._spec))
        return np.empty(shape, dtype=input_type(self._spec))

    def _mismatch(self, blocks: list[Array], width: int) -> ShapeMismatch:
        if len(blocks) == 1:
            return shape_mismatch(self._where, self._names[0], (None, width), self._spec)
        return ShapeMismatch(
            f"{self._where}: {len(blocks)} numeric columns give rows of {width} numbers ([N, {width}]), but input {self._spec.name!r} "
            f"takes {to_text(self._spec.shape)}.",
            param=self._spec.name,
            suggestion="Keep exactly the columns that the model was trained on, in order, and the label; pandas' index does not count.",
        )

    def _block(self, batch: pa.Table, name: str, first_row: int) -> Array:
        """One column as [rows, width] of the input's type."""
        values = _numbers_of(_one_array(batch, name), self._where, name, first_row)
        return to_input_type(values, self._spec, self._where, name, first_row)


def _numbers_of(column: pa.Array, where: Source, name: str, first_row: int) -> npt.NDArray[Any]:
    """Numbers, or lists of them of any depth, as [rows, width].

    Raises: InvalidDataset where something is null, or lists differ in length.
    """
    num_rows = len(column)
    while True:
        if column.null_count:
            row = first_row + _first_null(column) * num_rows // len(column)
            raise InvalidDataset(f"{where}, row {row}: {name!r} is null.", param=name, suggestion="Fill or drop such rows.")
        if not _is_list(column.type):
            break
        lengths = pc.unique(pc.list_value_length(column))
        if len(lengths) != 1 or lengths[0].as_py() == 0:
            raise InvalidDataset(
                f"{where}, rows {first_row} to {first_row + num_rows - 1}: the lists {name!r} differ in length or are empty.",
                param=name,
                suggestion="Bring all rows to one length.",
            )
        column = column.flatten()
    values: npt.NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return values.reshape(num_rows, -1)


def _lists_differ(where: Source, name: str, row: int) -> InvalidDataset:
    return InvalidDataset(
        f"{where}, row {row}: lists differ in length from the rows before.", param=name, suggestion="Bring all rows to one length."
    )
