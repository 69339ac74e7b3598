"""What the arrays of one file take in memory together, counted before each of them is made."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from compressor.data.limits import MAX_EXPANDED_BYTES
from compressor.data.source import Source
from compressor.errors import DatasetTooLarge


class ExpandedSize:
    """The arrays of the file `where`, in the types in which they are kept: a byte in a file may become four or eight."""

    def __init__(self, where: Source) -> None:
        self._where = where
        self._total = 0

    def add(self, name: str, shape: Sequence[int], dtype: npt.DTypeLike) -> None:
        """Counts an array that is about to be made.

        Raises: DatasetTooLarge where all arrays together would take more than MAX_EXPANDED_BYTES.
        """
        self._total += math.prod(shape) * np.dtype(dtype).itemsize
        if self._total > MAX_EXPANDED_BYTES:
            raise DatasetTooLarge(
                f"{self._where}: with {name[:60]!r}, {list(shape)} as {np.dtype(dtype)}, the arrays take {self._total:,} bytes in memory, "
                f"more than {MAX_EXPANDED_BYTES:,}.",
                param=name[:60],
                suggestion="Give fewer rows.",
            )
