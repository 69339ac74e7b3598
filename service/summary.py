"""What `bayespress compress` and `select` show: progress while they run, the table at the end, or the problem."""

from pathlib import Path
from types import TracebackType
from typing import Self

from rich import progress as bars
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from compressor.errors import Problem
from compressor.protocol import Progress
from compressor.report import LoadCost, Report, Selection

# Without a terminal a line per phase, and per this part of the run.
LINE_STEP = 0.1


class ProgressDisplay:
    """A bar with phase, percent and time left; plain lines where nobody looks at a terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = bars.Progress(
            bars.TextColumn("{task.description:<10}"),
            bars.BarColumn(),
            bars.TaskProgressColumn(),
            bars.TimeElapsedColumn(),
            bars.TextColumn("{task.fields[left]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("starting", total=1.0, left="")
        self._last: Progress | None = None

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._bar.stop()

    def show(self, progress: Progress) -> None:
        left = "" if progress.eta_s is None else f"{_duration(progress.eta_s)} left"
        if self._console.is_terminal:
            self._bar.update(self._task, description=progress.phase, completed=progress.progress, left=left)
        elif self._last is None or progress.phase != self._last.phase or progress.progress - self._last.progress >= LINE_STEP:
            self._console.print(f"{progress.phase:<10} {progress.progress:4.0%}  {left}".rstrip(), highlight=False)
            self._last = progress


def print_problem(problem: Problem, console: Console) -> None:
    """Three lines: what, where, what to do."""
    console.print(plain(f"error: {problem.title} ({problem.code}): {problem.detail}"), soft_wrap=True)
    console.print(plain(f"where: {problem.param or '-'}"), soft_wrap=True)
    console.print(plain(f"do:    {problem.suggestion or '-'}"), soft_wrap=True)


def print_summary(report: Report, folder: Path, console: Console) -> None:
    console.print(plain(report.verdict), soft_wrap=True)
    console.print(_table(report))
    console.print(_files(report))
    for file in report.files:
        console.print(plain(f"{file.name}: {file.purpose}{f' {file.advice}' if file.advice else ''}"), soft_wrap=True)
    for warning in report.warnings:
        console.print(plain(f"warning: {warning}"), soft_wrap=True)
    console.print(plain(f"written to {folder}"), soft_wrap=True)


def print_selection(selection: Selection, folder: Path, console: Console) -> None:
    weights, size, point = selection.weights, selection.bytes, selection.point
    table = Table("", *(Column(name, justify="right") for name in ("dense", f"point {selection.number}")))
    table.add_row(f"{selection.metric}, validation", f"{selection.dense_metric:.4f}", f"{point.metric:.4f}")
    table.add_row("weights", f"{weights.numel:,}", f"{weights.nnz:,}")
    table.add_row("compression ratio", "", f"{weights.compression_ratio:.1f}")
    table.add_row("size ratio", "", f"{size.size_ratio:.1f}")
    for name, value in size.artifacts.items():
        table.add_row(name, _bytes(size.dense) if name == "model.onnx" else "", _bytes(value))
    console.print(plain(selection.verdict), soft_wrap=True)
    console.print(table)
    console.print(plain(f"written to {folder}"), soft_wrap=True)


def plain(text: str) -> Text:
    """Names are the file's, whoever made it: no markup, and nothing that a terminal would take for a command."""
    return Text("".join(character if character.isprintable() or character == "\n" else "\ufffd" for character in text))


def _table(report: Report) -> Table:
    metric, weights, size, latency = report.metric, report.weights, report.bytes, report.latency
    measured = (metric.dense, metric.compressed, metric.control)
    title = f"{metric.name} on {metric.dense.num_examples:,} {metric.dense.split} rows; latency in ONNX Runtime, batch {latency.batch_size}"
    table = Table("", *(Column(name, justify="right") for name in ("dense", "compressed", "by magnitude")), title=title)
    table.add_row(metric.name, *(f"{value.value:.4f}" for value in measured))
    table.add_row("95 % interval", *(f"{value.interval[0]:.4f}-{value.interval[1]:.4f}" for value in measured))
    difference = report.difference
    table.add_row("difference, paired", "", f"{difference.value:+.4f}")
    table.add_row("95 % interval", "", f"{difference.interval[0]:+.4f} to {difference.interval[1]:+.4f}")
    if difference.num_changed is not None:
        table.add_row("rows of another class", "", f"{difference.num_changed:,}")
    if report.calibration is not None:
        values = (report.calibration.dense, report.calibration.compressed)
        for label, name in (("calibration error", "ece"), ("log-likelihood, negative", "nll"), ("Brier score", "brier")):
            table.add_row(label, *(f"{getattr(value, name):.4f}" for value in values))
    if report.classes:
        worst = min(report.classes, key=lambda one: one.compressed - one.dense)
        table.add_row(f"class {worst.label}, which lost most", f"{worst.dense:.4f}", f"{worst.compressed:.4f}")
    table.add_row("weights", f"{weights.numel:,}", f"{weights.nnz:,}", f"{weights.nnz:,}")
    table.add_row("compression ratio", "", f"{weights.compression_ratio:.1f}")
    if report.redundancy.num_constant:
        table.add_row("without constant inputs", "", f"{report.redundancy.ratio:.1f}")
    table.add_row("model.onnx", _bytes(size.dense), _bytes(size.artifacts["model.onnx"]))
    table.add_row("size ratio", "", f"{size.size_ratio:.1f}")
    for label, quantile in (("latency, median", "median_ms"), ("latency, 5 %", "p05_ms"), ("latency, 95 %", "p95_ms")):
        table.add_row(label, *(f"{getattr(value, quantile):.3f} ms" for value in (latency.dense, latency.delivered)))
    return table


def _files(report: Report) -> Table:
    """Sizes, and what loading and running the forms of the model costs beside the upload."""
    size = report.bytes
    columns = ("bytes", "times smaller", "load", "peak memory", "faster, batch 1", "faster, batch 64")
    table = Table("", *(Column(name, justify="right") for name in columns), title="files; loading and latency in ONNX Runtime, one thread")
    upload = report.upload_load
    table.add_row("upload", f"{size.dense:,}", "", *_load_cells(upload), "", "")
    for name, value in (("upload, gzip", size.dense_gzip), ("upload, zstd -19", size.dense_zstd)):
        table.add_row(name, f"{value:,}", f"{size.dense / value:.1f}")
    for file in report.files:
        faster = [f"{one.dense.median_ms / one.delivered.median_ms:.2f}" for one in file.latency]
        table.add_row(file.name, f"{file.bytes:,}", f"{file.size_ratio:.1f}", *_load_cells(file.load), *faster, *[""] * (2 - len(faster)))
    table.add_row("bound of its entropy", f"{size.entropy_bound:,}", f"{size.dense / max(1, size.entropy_bound):.1f}")
    if report.quantisation is not None:
        table.caption = f"quantised values: test {report.metric.name} {report.quantisation.test.value:.4f}"
    return table


def _load_cells(load: LoadCost | None) -> tuple[str, str]:
    return ("", "") if load is None else (f"{load.median_ms:.1f} ms", f"{load.peak_bytes / 2**20:.0f} MiB")


def _bytes(value: int) -> str:
    return f"{value:,} B"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
