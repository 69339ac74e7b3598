"""What a client expects the bytes to be that it sends or refers to. Asked when they pass, and of a file: reference when it is used."""

from typing import ClassVar

from compressor.errors import ClientError


class DigestMismatch(ClientError):
    code: ClassVar[str] = "digest_mismatch"
    title: ClassVar[str] = "The file is another than was expected"
    status: ClassVar[int] = 422


def check_digest(found: str, expected: str | None, param: str) -> None:
    """Raises DigestMismatch where another sha256 was expected; hexadecimal, lower case."""
    if expected is not None and found != expected:
        raise DigestMismatch(
            f"The sha256 of the file is {found}; {expected} was expected.",
            param=param,
            suggestion="Compare the file with the original, and correct the one that is wrong.",
        )
