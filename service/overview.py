"""What `bayespress inspect` shows: the model, its weights, what stays out, and what a run would take."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table

from compressor.inspection import Estimate, Inspection, OutputTensor, Shape
from service.summary import plain

MAX_ROWS = 100
GIB = 1024**3


def print_inspection(found: Inspection, path: Path, console: Console) -> None:
    file = found.file
    console.print(plain(f"{path.name}: {file.bytes:,} B, opset {file.opset}, {file.producer or 'producer unknown'}"), soft_wrap=True)
    console.print(plain(found.verdict), soft_wrap=True)
    console.print(_interface(found))
    rows = [(weight.name, _shape(weight.shape), f"{weight.numel:,}", " and ".join(weight.treatments)) for weight in found.weights]
    _print_table(console, "variational weights", "how noise is drawn", rows)
    others = [
        (tensor.name, _shape(tensor.shape), f"{tensor.numel:,}", _reason(tensor.trained, tensor.reason)) for tensor in found.not_covered
    ]
    if others:
        _print_table(console, "of two or more dimensions, and not variational", "why", others)
    console.print(plain("operators: " + ", ".join(f"{name} {count}" for name, count in file.operators.items())), soft_wrap=True)
    if found.estimate is not None:
        console.print(plain(_cost(found.estimate)), soft_wrap=True)
    for warning in found.warnings:
        console.print(plain(f"warning: {warning}"), soft_wrap=True)


def _interface(found: Inspection) -> Table:
    table = Table("", _folding("name"), "type", "shape", "", title=f"inputs and outputs; batch: {found.batch}")
    for spec in found.inputs:
        table.add_row("input", plain(spec.name), plain(spec.dtype), _shape(spec.shape))
    for output in found.outputs:
        shape = "" if output.shape is None else _shape(output.shape)
        table.add_row("output", plain(output.name), plain(output.dtype), shape, _role(output, found))
    return table


def _role(output: OutputTensor, found: Inspection) -> str:
    if output.taken:
        if found.tasks == ["regression"]:
            return "taken: regression"
        return f"taken: {found.head}, {'?' if found.num_classes is None else found.num_classes} classes"
    return "may be named with --output" if output.selectable else ""


def _print_table(console: Console, title: str, last: str, rows: Sequence[tuple[str, str, str, str]]) -> None:
    table = Table(_folding("name"), "shape", Column("elements", justify="right"), last, title=title)
    for name, shape, numel, text in rows[:MAX_ROWS]:
        table.add_row(plain(name), shape, numel, plain(text))
    console.print(table)
    if len(rows) > MAX_ROWS:
        console.print(f"and {len(rows) - MAX_ROWS:,} more: --json has them all")


def _reason(trained: bool, reason: str) -> str:
    return f"{reason}; it trains without noise" if trained else f"{reason}; it stays as it is"


def _cost(estimate: Estimate) -> str:
    memory = f"{estimate.training_bytes / GIB:.2f} GiB of memory (at most {estimate.largest_batch_size:,} rows a batch fit here)"
    parts = [
        f"estimate, batch {estimate.batch_size}: {memory}",
        f"{estimate.flops_per_row:.2g} flops for a row, forwards with noise",
    ]
    if estimate.seconds_per_1000_rows is not None:
        threads = "1 thread" if estimate.num_threads == 1 else f"{estimate.num_threads} threads"
        parts.append(f"{estimate.seconds_per_1000_rows:.2g} s for 1,000 rows, once through, on {threads}")
    return "; ".join(parts)


def _shape(shape: Shape) -> str:
    return f"[{', '.join('?' if size is None else str(size) for size in shape)}]"


def _folding(name: str) -> Column:
    return Column(name, overflow="fold")
