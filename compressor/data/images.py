"""Encoded images of an untrusted file -> uint8 arrays in the layout of a model input. Only bytes are decoded, no path is ever opened."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from compressor.data.dataset import Array, InputSpec, to_text
from compressor.data.expanded import ExpandedSize
from compressor.data.limits import MAX_CELL_BYTES, MAX_PIXELS
from compressor.data.source import Source
from compressor.errors import DatasetTooLarge, ExternalReference, InvalidDataset, ShapeMismatch

# What classification sets use; each further format is one more parser that reads bytes of a stranger.
FORMATS = ("PNG", "JPEG", "BMP", "WEBP")

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_GREY_MODES = ("1", "L", "LA")
# More than 8 bits a channel: converting to "L" would clip instead of scale.
_DEEP_MODES = ("I", "F")


def channel_axis(row_shape: Sequence[int | None]) -> int | None:
    """Where the channels are in one row [C, H, W] or [H, W, C] (0 or 2); None for grey or flat rows.

    The last axis only where it alone can be channels (1, 3 or 4 of them): ONNX's own convention is channels first.
    """
    if len(row_shape) != 3:
        return None
    first, last = row_shape[0] in _MODES, row_shape[2] in _MODES
    return 2 if last and not first else 0


@dataclass(frozen=True)
class _Geometry:
    mode: str
    size: tuple[int, int]  # width, height, as in PIL
    row_shape: tuple[int, ...]
    channels_first: bool


def _geometry(spec: InputSpec, size: tuple[int, int], is_grey: bool) -> _Geometry | None:
    """How an image of `size` becomes one row of the input, or None where it does not fit."""
    width, height = size
    wanted = spec.shape[1:]
    axis = channel_axis(wanted)
    if axis is not None:
        channels = wanted[axis] or (1 if is_grey else 3)
        if channels not in _MODES:
            return None
        row_shape: tuple[int, ...] = (channels, height, width) if axis == 0 else (height, width, channels)
    elif len(wanted) == 2:
        channels, row_shape = 1, (height, width)
    elif len(wanted) == 1:
        channels, row_shape = 1, (height * width,)
    else:
        return None
    if any(want not in (None, have) for want, have in zip(wanted, row_shape, strict=True)):
        return None
    return _Geometry(_MODES[channels], size, row_shape, channels_first=axis == 0 and channels > 1)


class ImageColumn:
    """Collects the images of one column, batch by batch, into one uint8 array [N, *row_shape]."""

    def __init__(self, spec: InputSpec, name: str, num_rows: int, where: Source, size: ExpandedSize) -> None:
        self._spec = spec
        self._size = size
        self._name = name
        self._num_rows = num_rows
        self._where = where
        self._geometry: _Geometry | None = None
        self._rows: npt.NDArray[np.uint8] = np.empty((0,), dtype=np.uint8)

    def add(self, data: Sequence[bytes | None], paths: Sequence[str | None], first_row: int) -> None:
        """Decodes a batch.

        Raises: ExternalReference, InvalidDataset, DatasetTooLarge, ShapeMismatch, each naming the row.
        """
        with warnings.catch_warnings():
            # Our own limit on pixels is checked instead, and says which row.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            # Odd but readable metadata (EXIF, transparency of a palette) is no concern of the pixels.
            warnings.simplefilter("ignore", UserWarning)
            for row, (encoded, path) in enumerate(zip(data, paths, strict=True), start=first_row):
                self._add_one(self._checked(encoded, path, row), row)

    def finish(self) -> Array:
        return self._rows

    def _checked(self, encoded: bytes | None, path: str | None, row: int) -> bytes:
        if not encoded:
            if path:
                raise external_reference(self._where, self._name, row)
            raise InvalidDataset(
                f"{self._where}, row {row}: the image {self._name!r} is empty.", param=self._name, suggestion="Fill or drop the row."
            )
        if len(encoded) > MAX_CELL_BYTES:
            raise DatasetTooLarge(
                f"{self._where}, row {row}: the image {self._name!r} has {len(encoded):,} bytes, more than {MAX_CELL_BYTES:,}.",
                param=self._name,
                suggestion="Store the images at the size of the model's input.",
            )
        return encoded

    def _add_one(self, encoded: bytes, row: int) -> None:
        try:
            with Image.open(BytesIO(encoded), formats=FORMATS) as image:
                geometry = self._check_size(image, row)
                pixels = image if image.mode == geometry.mode else image.convert(geometry.mode)
                values = np.asarray(pixels)
        except Image.DecompressionBombError:
            raise self._too_many_pixels(row) from None
        except (OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError, ZeroDivisionError, AttributeError) as error:
            # PIL's parsers raise all of these on damaged bytes.
            raise InvalidDataset(
                f"{self._where}, row {row}: the image {self._name!r} cannot be decoded ({type(error).__name__}).",
                param=self._name,
                suggestion=f"Store encoded images as {', '.join(FORMATS)}.",
            ) from None
        if geometry.channels_first:
            values = values.transpose(2, 0, 1)
        self._rows[row] = values.reshape(geometry.row_shape)

    def _check_size(self, image: Image.Image, row: int) -> _Geometry:
        if image.width * image.height > MAX_PIXELS:
            raise self._too_many_pixels(row)
        if image.mode.startswith(_DEEP_MODES):
            raise InvalidDataset(
                f"{self._where}, row {row}: the image {self._name!r} has more than 8 bits a channel.",
                param=self._name,
                suggestion="Convert the images to 8 bits a channel, or give the numbers as they are in a .npz file.",
            )
        if self._geometry is None:
            self._geometry = self._begin(image, row)
        if image.size != self._geometry.size:
            raise self._does_not_fit(image, row)
        return self._geometry

    def _begin(self, image: Image.Image, row: int) -> _Geometry:
        geometry = _geometry(self._spec, image.size, image.mode in _GREY_MODES)
        if geometry is None:
            raise self._does_not_fit(image, row)
        shape = (self._num_rows, *geometry.row_shape)
        self._size.add(self._name, shape, np.uint8)
        self._rows = np.empty(shape, dtype=np.uint8)
        return geometry

    def _too_many_pixels(self, row: int) -> DatasetTooLarge:
        return DatasetTooLarge(
            f"{self._where}, row {row}: the image {self._name!r} has more than {MAX_PIXELS:,} pixels.",
            param=self._name,
            suggestion="Store the images at the size of the model's input.",
        )

    def _does_not_fit(self, image: Image.Image, row: int) -> ShapeMismatch:
        kind = "grey" if image.mode in _GREY_MODES else "colour"
        return ShapeMismatch(
            f"{self._where}, row {row}: a {kind} image of {image.height}x{image.width} (height x width) does not fit "
            f"input {self._spec.name!r} of shape {to_text(self._spec.shape)}"
            + (f", which takes {self._geometry.size[1]}x{self._geometry.size[0]} as in the rows before." if self._geometry else "."),
            param=self._name,
            suggestion="Resize the images beforehand as in training (nothing is resized silently), or export the model for this size.",
        )


def external_reference(where: Source, name: str, row: int) -> ExternalReference:
    return ExternalReference(
        f"{where}, row {row}: the image {name!r} is a path without bytes; no file and no address outside the dataset is read.",
        param=name,
        suggestion="Store the encoded file in the field `bytes` of each image, as `datasets.Dataset.push_to_hub` does.",
    )
