"""Reads an untrusted .npz: zip and array headers are checked before an array is allocated, and no pickle is ever loaded."""

import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from compressor.data.dataset import Array, Dataset, InputSpec, Loaded, takes_integers, to_names
from compressor.data.expanded import ExpandedSize
from compressor.data.images import channel_axis
from compressor.data.labels import Targets, check_label_array, missing_labels, not_integers
from compressor.data.limits import MAX_ARCHIVE_ENTRIES, MAX_EXPANDED_BYTES, MAX_ROWS
from compressor.data.numeric import input_type, reshape_rows, to_input_type
from compressor.data.source import Source
from compressor.data.unreadable import invalid_if_unreadable, regular_file
from compressor.errors import DatasetTooLarge, InvalidDataset, ShapeMismatch

_KIND = ".npz"
LABELS = "y"


@dataclass(frozen=True)
class _Header:
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]


def read_npz(path: Path, where: Source, inputs: Sequence[InputSpec], targets: Targets) -> Loaded:
    """The arrays x (or one named after each input, where the model has several) and y.

    uint8 arrays of rank 3 and more are images, whose scaling is still to be chosen; everything else is taken as it is.

    Args:
        path: a local file.
        where: how messages name it.
        inputs: the model's inputs.
        targets: what the labels may be, and whether there must be any.
    Raises: DatasetError, by the subclass that says what is wrong.
    """
    with invalid_if_unreadable(where, _KIND), zipfile.ZipFile(regular_file(path, where)) as archive:
        entries = _entries(archive, where)
        labelled = LABELS in entries
        if targets.required and not labelled:
            raise missing_labels(where, LABELS, list(entries))
        names = [_name_of(spec, inputs, entries, where) for spec in inputs]
        headers = {name: _header(archive, entries[name], where, name) for name in ((LABELS, *names) if labelled else names)}
        _check_rows(headers, where)
        size = ExpandedSize(where)
        if labelled:
            size.add(LABELS, headers[LABELS].shape, np.int64)
        for spec, name in zip(inputs, names, strict=True):
            size.add(name, headers[name].shape, np.uint8 if _holds_images(headers[name], spec) else input_type(spec))
        # One after the other, so that what is stored of one is gone before the next is read.
        fitted = tuple(_read(archive, entries[name], headers[name], spec, where, name) for spec, name in zip(inputs, names, strict=True))
        labels = check_label_array(_read_array(archive, entries[LABELS]), targets, where, LABELS) if labelled else None
    return Loaded(Dataset(fitted, labels), images=any(array.dtype == np.uint8 for array in fitted))


def _entries(archive: zipfile.ZipFile, where: Source) -> dict[str, zipfile.ZipInfo]:
    infos = archive.infolist()
    if len(infos) > MAX_ARCHIVE_ENTRIES:
        raise DatasetTooLarge(
            f"{where}: the archive has {len(infos):,} entries, more than {MAX_ARCHIVE_ENTRIES:,}.",
            param=where.part,
            suggestion="Save only the arrays that the model takes, and y.",
        )
    expanded = sum(info.file_size for info in infos)
    if expanded > MAX_EXPANDED_BYTES:
        raise DatasetTooLarge(
            f"{where}: the arrays take {expanded:,} bytes, more than {MAX_EXPANDED_BYTES:,}.",
            param=where.part,
            suggestion="Give fewer rows.",
        )
    return {info.filename.removesuffix(".npy"): info for info in infos if info.filename.endswith(".npy")}


def _name_of(spec: InputSpec, inputs: Sequence[InputSpec], entries: dict[str, zipfile.ZipInfo], where: Source) -> str:
    name = "x" if len(inputs) == 1 else spec.name
    if name not in entries:
        raise InvalidDataset(
            f"{where}: there is no array {name!r}. Found: {to_names(list(entries))}.",
            param=name,
            suggestion="Save with numpy.savez(file, x=..., y=...), or with an array named after each input of the model and y.",
        )
    return name


def _header(archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: Source, name: str) -> _Header:
    """What the array declares of itself, once that is known to be numbers and no more than the entry holds."""
    with archive.open(info) as file:
        header = _read_header(file)
        if name == LABELS and header.dtype.kind in "SU":
            raise not_integers(where, name, "text")
        if header.dtype.kind not in "biuf" or header.dtype.itemsize > 8:
            raise InvalidDataset(
                f"{where}: {name!r} holds {str(header.dtype)[:60]}; objects are never unpickled, only numbers are read.",
                param=name,
                suggestion="Save plain arrays of integers or floats.",
            )
        if header.shape and header.shape[0] > MAX_ROWS:
            raise DatasetTooLarge(
                f"{where}: {name!r} declares {header.shape[0]:,} rows, more than {MAX_ROWS:,}.", param=name, suggestion="Give fewer rows."
            )
        declared = math.prod(header.shape) * header.dtype.itemsize
        if declared > info.file_size:
            raise InvalidDataset(
                f"{where}: {name!r} declares {declared:,} bytes but holds {info.file_size:,}.",
                param=name,
                suggestion="Write the file again with numpy.savez.",
            )
    return header


def _check_rows(headers: Mapping[str, _Header], where: Source) -> None:
    first = next(iter(headers))
    rows = headers[first].shape[:1]
    if rows in ((), (0,)):
        raise InvalidDataset(f"{where}: the file has no rows.", param=where.part, suggestion="Give at least one row and its label.")
    for name, header in headers.items():
        if header.shape[:1] != rows:
            raise InvalidDataset(
                f"{where}: {name!r} has shape {list(header.shape)} but {first!r} has {rows[0]} rows.",
                param=name,
                suggestion="Give all arrays, and the labels, as many rows.",
            )


def _read_header(file: IO[bytes]) -> _Header:
    version = npy.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = npy.read_array_header_1_0(file)
    else:
        shape, _, dtype = npy.read_array_header_2_0(file)
    return _Header(shape, dtype)


def _read_array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Array:
    with archive.open(info) as file:
        return np.asarray(npy.read_array(file, allow_pickle=False))


def _holds_images(header: _Header, spec: InputSpec) -> bool:
    return header.dtype == np.uint8 and len(header.shape) >= 3 and not takes_integers(spec)


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo, header: _Header, spec: InputSpec, where: Source, name: str) -> Array:
    """The array in the type and the shape of its input."""
    values = _read_array(archive, info)
    if _holds_images(header, spec):
        return _fit_images(values, spec, where, name)
    return reshape_rows(to_input_type(values, spec, where, name), spec, where, name)


def _fit_images(values: Array, spec: InputSpec, where: Source, name: str) -> Array:
    """Pixels [N, H, W], [N, H, W, C] or [N, C, H, W] in the input's layout."""
    wanted = spec.shape[1:]
    if values.ndim == 4 and len(wanted) == 3:
        have, want = channel_axis(values.shape[1:]), channel_axis(wanted)
        if have == 2 and want == 0:
            values = values.transpose(0, 3, 1, 2)
        elif have == 0 and want == 2:
            values = values.transpose(0, 2, 3, 1)
    elif values.ndim > 4:
        raise ShapeMismatch(
            f"{where}: {name!r} is uint8 of rank {values.ndim}, more than images have.",
            param=name,
            suggestion="Give images as [N, H, W], [N, H, W, C] or [N, C, H, W], or numbers as floats.",
        )
    return np.ascontiguousarray(reshape_rows(values, spec, where, name))
