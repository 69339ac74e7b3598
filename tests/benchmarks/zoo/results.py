"""What came out, file by file: the table, the part that passes, the exit code."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tests.benchmarks.zoo.columns import COLUMNS, Column

PASS_RATE = 0.95


@dataclass(frozen=True)
class FileResult:
    """The columns of one file as far as they were reached; `reason` is the process's own end where it did not end well."""

    name: str
    columns: Sequence[Column]
    seconds: float
    reason: str = ""

    @property
    def passed(self) -> bool:
        return not self.reason and [column.name for column in self.columns if column.passed] == list(COLUMNS)

    @property
    def reasons(self) -> list[str]:
        return [*(column.reason for column in self.columns if not column.passed), *([self.reason] if self.reason else [])]


@dataclass(frozen=True)
class NotExported:
    """An export that gave no file; it counts neither way."""

    name: str
    reason: str


def pass_rate(results: Sequence[FileResult]) -> float:
    return sum(result.passed for result in results) / len(results) if results else 0.0


def without_a_file(names: Iterable[str], results: Sequence[FileResult]) -> list[str]:
    """Architectures of which no export could be looked at: they must not go missing from the rate in silence."""
    seen = {result.name.partition(".")[0] for result in results}
    return [name for name in names if name not in seen]


def exit_code(names: Iterable[str], results: Sequence[FileResult]) -> int:
    """1 where too few files pass, or an architecture has none."""
    return 1 if pass_rate(results) < PASS_RATE or without_a_file(names, results) else 0


def header() -> str:
    return f"{'file':34} {'import':>6} {'parity':>8} {'coverage':>8} {'loss':>16} {'pruned':>7} {'written':>7} {'parity':>8} {'s':>4}"


def row(result: FileResult) -> str:
    """One line; '!' behind what did not pass, '-' for what was not reached."""
    found = {column.name: (column.value or "fails") + ("" if column.passed else "!") for column in result.columns}
    cells = [found.get(name, "-") for name in COLUMNS]
    widths = (6, 8, 8, 16, 7, 7, 8)
    return " ".join(
        [f"{result.name:34}", *(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True)), f"{result.seconds:4.0f}"]
    )


def summary(names: Sequence[str], results: Sequence[FileResult], not_exported: Sequence[NotExported]) -> str:
    passed = sum(result.passed for result in results)
    lines = [
        f"{len(names)} architectures, {len(results)} files; {passed} pass every column ({pass_rate(results):.1%}; {PASS_RATE:.0%} are due)"
    ]
    lines += [f"  {result.name}: {'; '.join(result.reasons)}" for result in results if not result.passed]
    if not_exported:
        lines += ["not exported, so not counted:", *(f"  {item.name}: {item.reason}" for item in not_exported)]
    lines += [f"no file of {name}" for name in without_a_file(names, results)]
    return "\n".join(lines)
