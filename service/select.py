"""`bayespress select`: another point of an earlier run's curve as a model; the trainer is the child process of all runs."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from compressor.config import check_choice
from compressor.errors import ClientError, InvalidArtifact
from compressor.protocol import CURVE, SELECTION, TrainerInput
from compressor.report import Selection
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
from service.summary import print_selection


def select(
    model: Annotated[Path, typer.Argument(help="The file that the run was given.")],
    curve: Annotated[Path, typer.Argument(help="The run's curve.safetensors, or the folder that holds it.")],
    out: Annotated[Path, typer.Option(help="Folder for the artifacts.")],
    point: Annotated[int | None, typer.Option(help="The point of this number, from 0.", show_default=False)] = None,
    ratio: Annotated[float | None, typer.Option(help="The point nearest to this compression ratio.", show_default=False)] = None,
    max_metric_drop: Annotated[
        float | None, typer.Option(help="The smallest point that loses no more of the validation metric.", show_default=False)
    ] = None,
    max_metric_drop_relative: Annotated[
        float | None, typer.Option(help="The same for an error, as a part of the uploaded model's.", show_default=False)
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Another option, weight_dtype for example. Repeatable.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Write into OUT even where it holds files; those of the same name are replaced.")
    ] = False,
) -> None:
    """Export a point of CURVE, by its number, ratio or budget. Exit code 0: done; 1: this failed; 2: mend the request."""
    console = Console(stderr=True)
    with exits(console):
        check_installation()
        choice = {
            "point": point,
            "target_ratio": ratio,
            "max_metric_drop": max_metric_drop,
            "max_metric_drop_relative": max_metric_drop_relative,
        }
        config = read_config(None, [*(settings or []), *(f"{key}={json.dumps(value)}" for key, value in choice.items())])
        check_choice(config, is_selection=True)
        file = existing(curve / CURVE if curve.is_dir() else curve, InvalidArtifact, "curve")
        trainer_input = TrainerInput(kind="select", model=existing_model(model), curve=file, config=config)
        target = out.absolute()
        check_target(target, force)
        if (target / REPORT).exists():
            raise ClientError(f"{target} holds a run and its report.", param="out", suggestion="Name another folder with --out.")
        problem = problem_of(run_into(target, trainer_input, console, SELECTION))
        if problem is not None:
            exit_with(problem, console)
        print_selection(Selection.model_validate_json((target / SELECTION).read_bytes()), target, Console())
