"""`bayespress inspect`: what a run would make of a model, in this terminal and in seconds; the trainer is the child process of all runs."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from compressor.errors import ClientError, CompressionError, Problem
from compressor.inspection import Inspection
from compressor.protocol import ARTIFACTS, INSPECTION, TrainerInput
from service.foreground import check_installation, existing_model, exit_with, exits, read_config, run_trainer
from service.overview import print_inspection


def inspect(
    model: Annotated[Path, typer.Argument(help="ONNX file of a trained classifier; or a .safetensors file, with --set architecture=NAME.")],
    output: Annotated[
        str | None, typer.Option(help="Name of the output with the class scores.", show_default="the first float output")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="JSON or TOML file of options.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="One option; wins over the file. Repeatable.")
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print JSON and no tables: what inspection.json holds, or the problem."),
    ] = False,
    out: Annotated[Path | None, typer.Option(help="File to write the JSON to.", metavar="FILE")] = None,
) -> None:
    """Say what `compress` would do with MODEL, without training. Exit code 0: it would be taken; 2: mend the model; 1: this failed."""
    console = Console(stderr=True)
    with exits(console, typer.echo if as_json else None):
        check_installation()
        path = existing_model(model)
        settings = [*(set_ or []), *([f"output={output}"] if output is not None else [])]
        trainer_input = TrainerInput(kind="inspect", model=path, config=read_config(config, settings))
        if out is not None:
            _check_target(out, path)
        with console.status("inspecting"):
            found = _run(trainer_input)
        if isinstance(found, Problem):
            exit_with(found, console, typer.echo if as_json else None)
        if out is not None:
            out.write_bytes(found)
        if as_json:
            typer.echo(found.decode(), nl=False)
        else:
            print_inspection(Inspection.model_validate_json(found), model, Console())


def _check_target(out: Path, model: Path) -> None:
    if out.is_dir() or not out.absolute().parent.is_dir():
        raise ClientError(
            f"{out} cannot be written to: it is no file in a folder.", param="out", suggestion="Name another file with --out."
        )
    if out.exists() and out.samefile(model):
        raise ClientError(f"{out} is the model itself.", param="out", suggestion="Name another file with --out.")


def _run(trainer_input: TrainerInput) -> bytes | Problem:
    """inspection.json, or why there is none."""
    with tempfile.TemporaryDirectory(prefix="bayespress-", ignore_cleanup_errors=True) as name:
        workdir = Path(name)
        outcome = run_trainer(workdir, trainer_input, lambda _: None)
        if outcome.result is not None:
            return (workdir / ARTIFACTS / INSPECTION).read_bytes()
    return outcome.problem or CompressionError("The trainer gave no result.", suggestion="Try again; report it if it stays.").to_problem()
