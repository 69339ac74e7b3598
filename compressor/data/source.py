"""Which part of the request a file is: what messages call it, and what errors about the file as a whole name as `param`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """`part` is the request's field: dataset, validation or test; `name` the file's name or `builtin:digits`."""

    part: str
    name: str

    def __str__(self) -> str:
        return f"{self.part} ({self.name[:60]})"
