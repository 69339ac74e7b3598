"""`bayespress compress`: one run in this terminal, without a service; the trainer is the same child process that the service starts."""

import asyncio
import json
import signal
import tempfile
import tomllib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from compressor.config import CompressionConfig
from compressor.errors import ClientError, CompressionError, InvalidConfig, InvalidDataset, InvalidModel, Problem, error_classes
from compressor.protocol import ARTIFACTS, TRAINER_INPUT, DataReference, ExitCode, Progress, TrainerInput
from compressor.report import Report
from service.summary import ProgressDisplay, print_problem, print_summary
from service.worker.trainer_process import Limits, Outcome, TrainerProcess

BUILTIN = "builtin:"
REPORT = "report.json"
# 128 + SIGINT, as shells have it.
INTERRUPTED = 130


def compress(
    model: Annotated[Path, typer.Argument(help="ONNX file of a trained classifier.")],
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
    try:
        _check_installation()
        trainer_input = TrainerInput(
            model=_existing(model, InvalidModel, "model"),
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
    except CompressionError as error:
        problem = error.to_problem()
    except (KeyboardInterrupt, asyncio.CancelledError):
        console.print("interrupted; nothing was written")
        raise typer.Exit(INTERRUPTED) from None
    except OSError as error:
        problem = CompressionError(str(error), suggestion="Check the folder's permissions and free space.").to_problem()
    if problem is not None:
        print_problem(problem, console)
        raise typer.Exit(exit_code(problem))


def exit_code(problem: Problem) -> ExitCode:
    classes = {cls.code: cls for cls in error_classes()}
    cls = classes.get(problem.code, CompressionError)
    if problem.code == "gate_not_met":
        return ExitCode.GATE_NOT_MET
    return ExitCode.CLIENT_ERROR if issubclass(cls, ClientError) else ExitCode.FAILED


def read_config(path: Path | None, settings: list[str]) -> CompressionConfig:
    """The options of the file, then those of --set, whose values are JSON where they can be read as such."""
    values = _read_config_file(path) if path else {}
    for setting in settings:
        key, separator, text = setting.partition("=")
        if not separator:
            raise InvalidConfig(f"{setting!r} is not KEY=VALUE.", param="--set", suggestion="Write for example --set seed=1.")
        try:
            values[key.strip()] = json.loads(text)
        except json.JSONDecodeError:
            values[key.strip()] = text
    return CompressionConfig.parse(values)


def _read_config_file(path: Path) -> dict[str, Any]:
    parse: Callable[[str], Any] = json.loads if path.suffix.lower() == ".json" else tomllib.loads
    try:
        values = parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidConfig(f"{path}: {error}", param="config", suggestion="Give a JSON file (.json) or a TOML file.") from None
    if not isinstance(values, dict):
        raise InvalidConfig(f"{path} holds no object.", param="config", suggestion='Write options as {"seed": 1}.')
    return values


def _check_installation() -> None:
    if find_spec("torch") is None:
        raise CompressionError("The trainer needs PyTorch, which is not installed.", suggestion="pip install 'bayespress[worker]'")


def _existing(path: Path, error: type[ClientError], param: str) -> Path:
    if not path.is_file():
        raise error(f"{path} is not a file.", param=param, suggestion="Check the path.")
    return path.absolute()


def _source(text: str, param: str) -> str:
    return text if text.startswith(BUILTIN) else str(_existing(Path(text), InvalidDataset, param))


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
        (workdir / TRAINER_INPUT).write_text(trainer_input.model_dump_json())
        outcome = asyncio.run(_train(workdir, console))
        if outcome.result is None:
            return outcome.problem
        report = Report.model_validate_json((workdir / ARTIFACTS / REPORT).read_bytes())
        _move_artifacts(workdir / ARTIFACTS, target)
    print_summary(report, target, Console())
    return outcome.result.problem


async def _train(workdir: Path, console: Console) -> Outcome:
    task = asyncio.current_task()
    assert task is not None  # noqa: S101  we are inside it
    # As Ctrl-C does: leave the block below, which ends the trainer.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with ProgressDisplay(console) as display:
        async with TrainerProcess(workdir, Limits()) as trainer:
            async for line in trainer.lines():
                if isinstance(line, Progress):
                    display.show(line)
            return await trainer.outcome()


def _move_artifacts(source: Path, target: Path) -> None:
    files = [path for path in source.iterdir() if path.is_file() and not path.name.startswith(".")]
    target.mkdir(parents=True, exist_ok=True)
    # The report last: where it is, everything is.
    for path in sorted(files, key=lambda path: path.name == REPORT):
        path.replace(target / path.name)
