"""What parsers raise on a damaged file, as one error of ours."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from compressor.data.source import Source
from compressor.errors import CompressionError, InvalidDataset


@contextmanager
def invalid_if_unreadable(where: Source, kind: str) -> Iterator[None]:
    """Turns whatever a parser raises on a damaged or hostile file into InvalidDataset; running out of memory stays what it is.

    Catching everything is right here and only here: the parsers under it have no common base class, and the file is the one
    thing that differs between a run that works and one that does not.
    """
    try:
        yield
    except (CompressionError, MemoryError):
        raise
    except Exception as error:
        # The type alone: messages of parsers carry paths of this machine.
        raise InvalidDataset(
            f"{where}: cannot be read as {kind} ({type(error).__name__}).",
            param=where.part,
            suggestion=f"Check that the file is complete and was written as {kind}.",
        ) from error


def regular_file(path: Path, where: Source) -> Path:
    """`path`, or InvalidDataset where it is no regular file."""
    if not path.is_file():
        raise InvalidDataset(f"{where}: no such file.", param=where.part, suggestion="Check the path.")
    return path
