"""Reads an untrusted parquet file: the schema is checked with pyarrow first, then the rows are streamed by `datasets` with nothing decoded.

The features that the file declares of itself are never used: they could say that a cell is a path or an address to be opened.
"""

import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from compressor.data.columns import ImageReader, NumberReader, is_image, is_number, label_reader
from compressor.data.dataset import Dataset, InputSpec, Loaded, takes_integers, to_names
from compressor.data.expanded import ExpandedSize
from compressor.data.images import external_reference
from compressor.data.labels import Targets, missing_labels
from compressor.data.limits import (
    MAX_BATCH_BYTES,
    MAX_BATCH_ROWS,
    MAX_COLUMNS,
    MAX_METADATA_BYTES,
    MAX_ROW_GROUP_BYTES,
    MAX_ROW_GROUPS,
    MAX_ROWS,
)
from compressor.data.source import Source
from compressor.data.unreadable import invalid_if_unreadable, regular_file
from compressor.errors import DatasetTooLarge, InvalidDataset, ShapeMismatch

_KIND = "parquet"


@dataclass(frozen=True)
class _Plan:
    """Which columns are read, and for which input; an image is the only column of its input."""

    columns: tuple[tuple[str, ...], ...]
    label: str | None
    warnings: tuple[str, ...]

    def selected(self) -> list[str]:
        return [*dict.fromkeys(name for names in self.columns for name in names), *([] if self.label is None else [self.label])]


def read_parquet(path: Path, where: Source, inputs: Sequence[InputSpec], targets: Targets, label_column: str, cache_dir: Path) -> Loaded:
    """All rows of the file as arrays that fit `inputs`.

    Args:
        path: a local file.
        where: how messages name it.
        inputs: the model's inputs. One input takes an image column, or all numeric columns but the label and pandas' index in
            file order; several take the columns of their own names.
        targets: what the labels may be, and whether there must be any.
        label_column: name of their column.
        cache_dir: an existing folder, the only one in which `datasets` may write.
    Raises: DatasetError, by the subclass that says what is wrong.
    """
    with invalid_if_unreadable(where, _KIND):
        with pq.ParquetFile(regular_file(path, where)) as file:
            metadata, schema = file.metadata, file.schema_arrow
        check_declared_sizes(metadata, where)
        _check_declared_media(schema, label_column, where)
        index = _index_columns(schema, where)
        schema = schema.remove_metadata()
        plan = _plan(schema, index, inputs, label_column, targets.required, where)
        size = ExpandedSize(where)
        kind = None if plan.label is None else schema.field(plan.label).type
        labels = None if plan.label is None else label_reader(plan.label, kind, metadata.num_rows, targets, where, size)
        readers = [_reader(spec, names, schema, metadata.num_rows, where, size) for spec, names in zip(inputs, plan.columns, strict=True)]
        images = any(isinstance(reader, ImageReader) for reader in readers)
        _check_expanded_sizes(path, plan.selected(), where)
        row = 0
        for batch in _batches(path, schema, plan, cache_dir):
            if row + batch.num_rows > metadata.num_rows:
                break
            for reader in readers:
                reader.add(batch, row)
            if labels is not None:
                labels.add(batch, row)
            row += batch.num_rows
        if row != metadata.num_rows:
            raise InvalidDataset(
                f"{where}: the file declares {metadata.num_rows:,} rows but holds another number.",
                param=where.part,
                suggestion="Write the file again.",
            )
    found = None if labels is None else labels.finish()
    return Loaded(Dataset(tuple(reader.finish() for reader in readers), found), images, plan.warnings)


def check_declared_sizes(metadata: pq.FileMetaData, where: Source) -> None:
    if metadata.num_rows == 0:
        raise InvalidDataset(f"{where}: the file has no rows.", param=where.part, suggestion="Give at least one row and its label.")
    limits = (
        ("rows", metadata.num_rows, MAX_ROWS),
        ("columns", metadata.num_columns, MAX_COLUMNS),
        ("row groups", metadata.num_row_groups, MAX_ROW_GROUPS),
    )
    for what, value, limit in limits:
        if value > limit:
            raise DatasetTooLarge(
                f"{where}: the file declares {value:,} {what}, more than {limit:,}.", param=where.part, suggestion="Give a smaller file."
            )
    for index in range(metadata.num_row_groups):
        group = metadata.row_group(index)
        if group.total_byte_size > MAX_ROW_GROUP_BYTES:
            raise DatasetTooLarge(
                f"{where}: row group {index} declares {group.total_byte_size:,} bytes, more than {MAX_ROW_GROUP_BYTES:,}.",
                param=where.part,
                suggestion="Write the file with smaller row groups.",
            )


def _check_declared_media(schema: pa.Schema, label_column: str, where: Source) -> None:
    """A column of paths that the file itself calls images gets the error that says so, not the one for text columns."""
    try:
        features = _metadata(schema, b"huggingface", where)["info"]["features"]
        media = [name for name, feature in features.items() if feature.get("_type") in ("Image", "Audio", "Video")]
    except (KeyError, TypeError, AttributeError):
        return
    for name in media:
        if name in schema.names and name != label_column and pa.types.is_string(schema.field(name).type):
            raise external_reference(where, name, 0)


def _index_columns(schema: pa.Schema, where: Source) -> set[str]:
    """The columns that are pandas' index, which counts the rows or names them: no feature that a model was trained on."""
    try:
        # An index that is a mere range of numbers is no column and stands here as an object.
        declared = {name for name in _metadata(schema, b"pandas", where)["index_columns"] if isinstance(name, str)}
    except (KeyError, TypeError):
        declared = set()
    return declared | {name for name in schema.names if re.fullmatch(r"__index_level_\d+__", name)}


def _metadata(schema: pa.Schema, key: bytes, where: Source) -> Any:
    """What the file declares under `key`; None where that is no JSON."""
    declared = (schema.metadata or {}).get(key, b"")
    if len(declared) > MAX_METADATA_BYTES:
        raise DatasetTooLarge(
            f"{where}: the metadata {key.decode()!r} take more than {MAX_METADATA_BYTES:,} bytes.",
            param=where.part,
            suggestion="Write the file without them.",
        )
    try:
        return json.loads(declared)
    except (ValueError, RecursionError):
        return None


def _plan(schema: pa.Schema, index: set[str], inputs: Sequence[InputSpec], label_column: str, required: bool, where: Source) -> _Plan:
    if len(set(schema.names)) != len(schema.names):
        twice = Counter(schema.names).most_common(1)[0][0]
        raise InvalidDataset(f"{where}: two columns have the same name.", param=twice[:60], suggestion="Rename one of them.")
    labelled = label_column in schema.names
    if required and not labelled:
        raise missing_labels(where, label_column, schema.names)
    features = [name for name in schema.names if name != label_column]
    if len(inputs) == 1:
        columns: tuple[tuple[str, ...], ...] = (_columns_of_one_input(schema, [name for name in features if name not in index], where),)
    else:
        absent = [spec.name for spec in inputs if spec.name not in features]
        if absent:
            raise ShapeMismatch(
                f"{where}: the model's inputs {to_names(absent)} have no column of their name. Found: {to_names(features)}.",
                param=absent[0],
                suggestion="Name one column after each input of the model.",
            )
        columns = tuple((spec.name,) for spec in inputs)
    used = {name for names in columns for name in names}
    for name in sorted(used):
        if not (is_image(schema.field(name).type) or is_number(schema.field(name).type)):
            raise InvalidDataset(
                f"{where}: the column {name[:60]!r} holds {str(schema.field(name).type)[:60]}, neither numbers nor encoded images.",
                param=name[:60],
                suggestion="Encode it as numbers, or drop it.",
            )
    ignored = [name for name in features if name not in used]
    warnings = (f"{where}: these columns are not used: {to_names(ignored)}.",) if ignored else ()
    return _Plan(columns, label_column if labelled else None, warnings)


def _columns_of_one_input(schema: pa.Schema, features: list[str], where: Source) -> tuple[str, ...]:
    images = [name for name in features if is_image(schema.field(name).type)]
    if len(images) > 1:
        raise InvalidDataset(
            f"{where}: several image columns, but the model has one input: {to_names(images)}.",
            param=images[1][:60],
            suggestion="Keep one of them.",
        )
    if not images and not features:
        raise InvalidDataset(
            f"{where}: there is no column beside the labels.", param=where.part, suggestion="Add an image or numeric columns."
        )
    return tuple(images or features)


def _check_expanded_sizes(path: Path, columns: list[str], where: Source) -> None:
    """Reads the columns once in small batches and counts what they take in memory.

    `datasets` decodes whole row groups, however small a batch it is asked for, and no size in the file bounds what a row group of
    cells that a dictionary repeats takes then: 700 bytes can stand for 160 GB.
    """
    with pq.ParquetFile(path) as file:
        rows = batch_rows(file.metadata)
        for index in range(file.metadata.num_row_groups):
            expanded = 0
            for batch in file.iter_batches(batch_size=rows, row_groups=[index], columns=columns):
                expanded += batch.nbytes
                if expanded > MAX_ROW_GROUP_BYTES:
                    raise DatasetTooLarge(
                        f"{where}: row group {index} takes more than {MAX_ROW_GROUP_BYTES:,} bytes in memory.",
                        param=where.part,
                        suggestion="Write the file with smaller row groups, and images at the size of the model's input.",
                    )


def batch_rows(metadata: pq.FileMetaData) -> int:
    """Rows per batch, so that a batch stays small even where every row is the largest cell that its row group can hold.

    The sizes of single columns would be a closer bound, but pyarrow 26 ends the process, instead of raising, where it reads the metadata
    of a column chunk that is damaged.
    """
    largest: int = max(metadata.row_group(index).total_byte_size for index in range(metadata.num_row_groups))
    return max(1, min(MAX_BATCH_ROWS, MAX_BATCH_BYTES // max(largest, 1)))


def _reader(
    spec: InputSpec, names: tuple[str, ...], schema: pa.Schema, num_rows: int, where: Source, size: ExpandedSize
) -> "ImageReader | NumberReader":
    if is_image(schema.field(names[0]).type):
        if takes_integers(spec):
            raise ShapeMismatch(
                f"{where}: {names[0]!r} is an image, but input {spec.name!r} takes integers.",
                param=names[0],
                suggestion="Give numbers, or a model that takes floats.",
            )
        return ImageReader(spec, names[0], num_rows, where, size)
    return NumberReader(spec, names, num_rows, where, size)


def _batches(path: Path, schema: pa.Schema, plan: _Plan, cache_dir: Path) -> Iterator[pa.Table]:
    # Imported here because it takes seconds, and only parquet files need it.
    import datasets

    from compressor.data.offline import offline

    plain = pa.schema([schema.field(name) for name in plan.selected()])
    features = datasets.Features.from_arrow_schema(plain)
    for names in plan.columns:
        if is_image(schema.field(names[0]).type):
            features[names[0]] = datasets.Image(decode=False)
    # `datasets` takes the path for a glob and for a chained URL, and finds no rows where it holds [, * or ::, hence the plain name.
    with tempfile.TemporaryDirectory(prefix="rows-") as folder, tempfile.TemporaryDirectory(dir=cache_dir) as cache, offline():
        link = Path(folder, "rows.parquet")
        link.symlink_to(path.resolve())
        rows: Any = datasets.load_dataset(
            "parquet",
            data_files=[str(link)],
            split="train",
            streaming=True,
            features=features,
            columns=plan.selected(),
            batch_size=MAX_BATCH_ROWS,
            cache_dir=cache,
        )
        yield from rows.with_format("arrow").iter(batch_size=MAX_BATCH_ROWS)
