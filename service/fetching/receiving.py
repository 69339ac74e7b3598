"""`Receiver`: takes the bytes of one file that is fetched, and checks them as if they had been sent."""

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from service.data_roots import MODEL_REF
from service.digests import DigestMismatch
from service.fetching.errors import ReferenceTooLarge
from service.framing.tally import Tally


@dataclass(frozen=True)
class Wanted:
    """A file to fetch: for which part of the request, from where in words, how large it may be, which sha256 it must have."""

    param: str
    shown: str
    max_bytes: int
    sha256: str | None = None


@dataclass(frozen=True)
class Fetched:
    """What came: `suffix` says what kind of file it is."""

    bytes: int
    sha256: str
    suffix: str


class Receiver:
    """Writes the chunks of a file to `path`, and knows what has come."""

    def __init__(self, wanted: Wanted, path: Path) -> None:
        self.wanted = wanted
        self._file = path.open("wb")
        self.restart()

    def restart(self) -> None:
        """What has come is forgotten."""
        self._file.seek(0)
        self._file.truncate()
        self._tally = Tally(self.wanted.param)

    @property
    def num_bytes(self) -> int:
        return self._tally.num_bytes

    def check_size(self, num_bytes: int) -> None:
        """Raises: ReferenceTooLarge."""
        if num_bytes > self.wanted.max_bytes:
            variable = f"BAYESPRESS_MAX_{'MODEL' if self.wanted.param == MODEL_REF else 'UPLOAD'}_BYTES"
            raise ReferenceTooLarge(
                f"{self.wanted.shown} has more than {self.wanted.max_bytes:,} bytes.",
                param=self.wanted.param,
                suggestion=f"Name a smaller file, or let the service be started with a larger {variable}.",
            )

    def take(self, chunk: bytes) -> None:
        """Raises: ReferenceTooLarge, or InvalidModel or InvalidDataset as soon as the bytes show it."""
        self.check_size(self.num_bytes + len(chunk))
        self._tally.take(chunk)
        self._file.write(chunk)

    def finish(self) -> Fetched:
        """Raises: DigestMismatch, InvalidModel, InvalidDataset."""
        self._file.flush()
        digest, wanted = self._tally.sha256, self.wanted
        if wanted.sha256 not in {None, digest}:
            raise DigestMismatch(
                f"{wanted.shown} has the sha256 {digest}; the reference asks for {wanted.sha256}.",
                param=wanted.param,
                suggestion="Name the version that you mean, or leave #sha256= out.",
            )
        self._tally.finish()
        return Fetched(self.num_bytes, digest, self._tally.suffix or "")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None) -> None:
        self._file.close()
