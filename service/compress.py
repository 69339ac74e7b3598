"""`bayespress compress`: one run in this terminal, without a service; the trainer is the same child process that the service starts."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from compressor.errors import InvalidDataset
from compressor.protocol import DataReference, TrainerInput
from compressor.report import Report
from service.foreground import (
    REPORT,
    check_installation,
    check_target,
    existing,
    existing_model,
    exit_with,
    exits,
    problem_of,
    read_config,
    run_into,
)
from service.summary import print_summary

BUILTIN = "builtin:"


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
        check_target(target, force)
        outcome = run_into(target, trainer_input, console, REPORT)
        if outcome.result is not None:
            print_summary(Report.model_validate_json((target / REPORT).read_bytes()), target, Console())
        problem = problem_of(outcome)
        if problem is not None:
            exit_with(problem, console)


def _source(text: str, param: str) -> str:
    return text if text.startswith(BUILTIN) else str(existing(Path(text), InvalidDataset, param))
