"""A trainer in the foreground of this terminal: what `bayespress compress`, `inspect` and `select` share, from options to exit codes."""

import asyncio
import json
import signal
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

import typer
from rich.console import Console

from compressor.config import CompressionConfig
from compressor.errors import ClientError, CompressionError, InvalidConfig, InvalidModel, Problem, error_classes
from compressor.protocol import ARTIFACTS, TRAINER_INPUT, ExitCode, OnProgress, Progress, TrainerInput
from service.framing.model_kinds import ModelFileSkimmer
from service.summary import ProgressDisplay, print_problem
from service.worker.trainer_process import Limits, Outcome, TrainerProcess

Echo = Callable[[str], None]

# 128 + SIGINT, as shells have it.
INTERRUPTED = 130
REPORT = "report.json"
_CHUNK_BYTES = 2**20
TEXT_OPTIONS = {name for name, field in CompressionConfig.model_fields.items() if field.annotation == str | None}


@contextmanager
def exits(console: Console, echo: Echo | None = None) -> Iterator[None]:
    """What goes wrong inside becomes three lines and an exit code; `echo` gets it as JSON."""
    try:
        yield
    except CompressionError as error:
        exit_with(error.to_problem(), console, echo)
    except (KeyboardInterrupt, asyncio.CancelledError):
        console.print("interrupted; nothing was written")
        raise typer.Exit(INTERRUPTED) from None
    except OSError as error:
        exit_with(CompressionError(str(error), suggestion="Check the folder's permissions and free space.").to_problem(), console, echo)


def exit_with(problem: Problem, console: Console, echo: Echo | None = None) -> NoReturn:
    if echo is not None:
        echo(problem.model_dump_json(indent=2))
    print_problem(problem, console)
    raise typer.Exit(exit_code(problem)) from None


def exit_code(problem: Problem) -> ExitCode:
    classes = {cls.code: cls for cls in error_classes()}
    cls = classes.get(problem.code, CompressionError)
    if problem.code == "gate_not_met":
        return ExitCode.GATE_NOT_MET
    return ExitCode.CLIENT_ERROR if issubclass(cls, ClientError) else ExitCode.FAILED


def read_config(path: Path | None, settings: list[str]) -> CompressionConfig:
    """The options of the file, then those of --set, whose values are JSON where they can be read as such and the option is no text."""
    values = _read_config_file(path) if path else {}
    for setting in settings:
        key, separator, text = setting.partition("=")
        if not separator:
            raise InvalidConfig(f"{setting!r} is not KEY=VALUE.", param="--set", suggestion="Write for example --set seed=1.")
        values[key.strip()] = _read_value(key.strip(), text)
    return CompressionConfig.parse(values)


def _read_value(key: str, text: str) -> Any:
    if key in TEXT_OPTIONS and text != "null":
        return text  # torch's older exporter calls an output 374
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _read_config_file(path: Path) -> dict[str, Any]:
    parse: Callable[[str], Any] = json.loads if path.suffix.lower() == ".json" else tomllib.loads
    try:
        values = parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidConfig(f"{path}: {error}", param="config", suggestion="Give a JSON file (.json) or a TOML file.") from None
    if not isinstance(values, dict):
        raise InvalidConfig(f"{path} holds no object.", param="config", suggestion='Write options as {"seed": 1}.')
    return values


def check_installation() -> None:
    if find_spec("torch") is None:
        raise CompressionError("The trainer needs PyTorch, which is not installed.", suggestion="pip install 'bayespress[worker]'")


def existing(path: Path, error: type[ClientError], param: str) -> Path:
    if not path.is_file():
        raise error(f"{path} is not a file.", param=param, suggestion="Check the path.")
    return path.absolute()


def existing_model(path: Path) -> Path:
    """A file that is framed as a model, by the same look at its bytes as an upload gets."""
    found = existing(path, InvalidModel, "model")
    skimmer = ModelFileSkimmer()
    with found.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            skimmer.feed(chunk)
    skimmer.finish()
    return found


def run_trainer(workdir: Path, trainer_input: TrainerInput, on_progress: OnProgress) -> Outcome:
    """Runs the same child process that the service starts, in `workdir`, to its end."""
    (workdir / TRAINER_INPUT).write_text(trainer_input.model_dump_json())
    return asyncio.run(_run_trainer(workdir, on_progress))


def check_target(target: Path, force: bool) -> None:
    if target.exists() and not target.is_dir():
        raise ClientError(f"{target} is not a folder.", param="out", suggestion="Name another folder with --out.")
    if target.is_dir() and any(target.iterdir()) and not force:
        raise ClientError(f"{target} is not empty.", param="out", suggestion="Name another folder with --out, or add --force.")


def run_into(target: Path, trainer_input: TrainerInput, console: Console, report: str) -> Outcome:
    """Runs in a hidden folder, from which `target` gets the artifacts when they are complete, `report` last, or nothing."""
    # Inside `target` where that exists: it may be a mount, and the folder around it closed to us.
    around = next(folder for folder in (target, *target.parents) if folder.is_dir())
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=around, ignore_cleanup_errors=True) as name:
        workdir = Path(name)
        with ProgressDisplay(console) as display:
            outcome = run_trainer(workdir, trainer_input, display.show)
        if outcome.result is not None:
            _move_artifacts(workdir / ARTIFACTS, target, report)
    return outcome


def problem_of(outcome: Outcome) -> Problem | None:
    """Why there is no result, or what is the matter with it."""
    return outcome.problem if outcome.result is None else outcome.result.problem


def _move_artifacts(source: Path, target: Path, report: str) -> None:
    files = [path for path in source.iterdir() if path.is_file() and not path.name.startswith(".")]
    target.mkdir(parents=True, exist_ok=True)
    # The report last: where it is, everything is.
    for path in sorted(files, key=lambda path: path.name == report):
        path.replace(target / path.name)


async def _run_trainer(workdir: Path, on_progress: OnProgress) -> Outcome:
    task = asyncio.current_task()
    assert task is not None  # noqa: S101  we are inside it
    # As Ctrl-C does: leave the block below, which ends the trainer.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    async with TrainerProcess(workdir, Limits()) as trainer:
        async for line in trainer.lines():
            if isinstance(line, Progress):
                on_progress(line)
        return await trainer.outcome()
