"""`bayespress compress`: one run in this terminal, without a service; the trainer is the same child process that the service starts."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from compressor.errors import ClientError, InvalidDataset, Problem
from compressor.protocol import ARTIFACTS, DataReference, TrainerInput
from compressor.report import Report
from service.foreground import check_installation, existing, existing_model, exit_with, exits, read_config, run_trainer
from service.summary import ProgressDisplay, print_summary

BUILTIN = "builtin:"
REPORT = "report.json"


def compress(
    model: Annotated[Path, typer.Argument(help="ONNX file of a trained classifier; or a .safetensors file, with --set architecture=NAME.")],
    dataset: Annotated[str, typer.Argument(help="Training rows: a .parquet or .npz file, or builtin:digits.")],
    validation: Annotated[str | None, typer.Option(help="Rows that choose the point; carved from DATASET where absent.")] = None,
    test: Annotated[str | None, typer.Option(help="Rows that measure the result; carved from DATASET where absent.")] = None,
    config: Annotated[Path | None, typer.Option(help="JSON or TOML file of options.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="One option; wins over the file. Repeatable.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the artifacts.", show_default="MODEL-compressed")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Write into OUT even where it holds files; those of the same name are replaced.")
    ] = False,
) -> None:
    """Compress MODEL with the rows of DATASET. Exit code 0: done; 1: the run failed; 2: mend the request; 3: the budget was not met."""
    console = Console(stderr=True)
    with exits(console):
        check_installation()
        trainer_input = TrainerInput(
            model=existing_model(model),
            data=DataReference(
                train=_source(dataset, "dataset"),
                validation=_source(validation, "validation") if validation else None,
                test=_source(test, "test") if test else None,
            ),
            config=read_config(config, set_ or []),
        )
        target = (out or Path(f"{model.stem}-compressed")).absolute()
        _check_target(target, force)
        problem = _run_into(target, trainer_input, console)
        if problem is not None:
            exit_with(problem, console)


def _source(text: str, param: str) -> str:
    return text if text.startswith(BUILTIN) else str(existing(Path(text), InvalidDataset, param))


def _check_target(target: Path, force: bool) -> None:
    if target.exists() and not target.is_dir():
        raise ClientError(f"{target} is not a folder.", param="out", suggestion="Name another folder with --out.")
    if target.is_dir() and any(target.iterdir()) and not force:
        raise ClientError(f"{target} is not empty.", param="out", suggestion="Name another folder with --out, or add --force.")


def _run_into(target: Path, trainer_input: TrainerInput, console: Console) -> Problem | None:
    """Runs in a hidden folder, from which `target` gets the artifacts when they are complete, or nothing."""
    # Inside `target` where that exists: it may be a mount, and the folder around it closed to us.
    around = next(folder for folder in (target, *target.parents) if folder.is_dir())
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=around, ignore_cleanup_errors=True) as name:
        workdir = Path(name)
        with ProgressDisplay(console) as display:
            outcome = run_trainer(workdir, trainer_input, display.show)
        if outcome.result is None:
            return outcome.problem
        report = Report.model_validate_json((workdir / ARTIFACTS / REPORT).read_bytes())
        _move_artifacts(workdir / ARTIFACTS, target)
    print_summary(report, target, Console())
    return outcome.result.problem


def _move_artifacts(source: Path, target: Path) -> None:
    files = [path for path in source.iterdir() if path.is_file() and not path.name.startswith(".")]
    target.mkdir(parents=True, exist_ok=True)
    # The report last: where it is, everything is.
    for path in sorted(files, key=lambda path: path.name == REPORT):
        path.replace(target / path.name)
