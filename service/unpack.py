"""`bayespress unpack`: a packed model as plain ONNX; the trainer, which trusts no file, is the child process of all runs."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from compressor.config import CompressionConfig
from compressor.errors import ClientError, InvalidArtifact
from compressor.protocol import ARTIFACTS, UNPACKED, TrainerInput
from service.foreground import check_installation, existing, exit_with, exits, problem_of, run_trainer
from service.summary import ProgressDisplay, plain


def unpack(
    file: Annotated[Path, typer.Argument(help="A model.bp or a model.packed.onnx.")],
    out: Annotated[Path, typer.Option(help="The ONNX file to write.")],
    force: Annotated[bool, typer.Option("--force", help="Replace OUT where it exists.")] = False,
) -> None:
    """Write FILE as plain ONNX with dense tensors. Exit code 0: done; 1: this failed; 2: mend the request."""
    console = Console(stderr=True)
    with exits(console):
        check_installation()
        trainer_input = TrainerInput(kind="unpack", model=existing(file, InvalidArtifact, "file"), config=CompressionConfig())
        target = out.absolute()
        if target.is_dir() or (target.exists() and not force):
            raise ClientError(f"{target} exists.", param="out", suggestion="Name another file with --out, or add --force.")
        if not target.parent.is_dir():
            raise ClientError(f"{target.parent} is not a folder.", param="out", suggestion="Make it first, or name another file.")
        with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent, ignore_cleanup_errors=True) as name:
            with ProgressDisplay(console) as display:
                outcome = run_trainer(Path(name), trainer_input, display.show)
            problem = problem_of(outcome)
            if problem is not None:
                exit_with(problem, console)
            (Path(name) / ARTIFACTS / UNPACKED).replace(target)
        Console().print(plain(f"written to {target}"), soft_wrap=True)
