"""A trainer that speaks the protocol and does what its "model" tells it: the model file holds a JSON object.

steps, step_s        how many steps, how long each takes; a checkpoint after each
at                   {step: action}; an action is taken before the step, so a resumed run meets only the later ones
log                  a line for stderr at the start
validate_s           how long it stays in the phase "validate"; absent: it says nothing of leaving it before the first step
"""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from compressor.errors import GateNotMet, MissingLabels
from compressor.protocol import ARTIFACTS, CHECKPOINT, TRAINER_INPUT, CheckpointSaved, ExitCode, Failure, Progress, Result, TrainerInput

WORKDIR = Path(sys.argv[1])


def say(line: Progress | CheckpointSaved | Failure | Result) -> None:
    sys.stdout.write(line.model_dump_json() + "\n")
    sys.stdout.flush()


def exhaust_memory() -> None:
    hoard = []
    while True:
        hoard.append(bytearray(64 * 1024 * 1024))


def fail() -> None:
    say(Failure(problem=MissingLabels("No column 'label'.", param="label_column", suggestion="Name it.").to_problem()))
    sys.exit(ExitCode.CLIENT_ERROR)


def abort_like_cpp() -> None:
    sys.stderr.write("terminate called after throwing an instance of 'std::bad_alloc'\n")
    sys.stderr.flush()
    os.abort()


def crash() -> None:
    sys.stderr.write("something went wrong here\n")
    sys.exit(7)


def print_garbage() -> None:
    sys.stdout.buffer.write(b'\xff\xfe not json\n{"type": "other"}\n[1, 2]\n' + b"x" * 3_000_000 + b"\n")
    sys.stdout.buffer.write(b'{"type": "progress", "phase": "fit", "progress": 0.5, "metrics": {"loss": NaN}}\n')
    sys.stdout.flush()


def start_grandchildren() -> None:
    """One in our group, one in a session of its own; both keep our pipes open."""
    for own_session in (False, True):
        subprocess.Popen(["sleep", "1000"], start_new_session=own_session)


def connect() -> str:
    """What comes of a connection to an address that is nobody's (RFC 5737)."""
    with socket.socket() as attempt:
        attempt.settimeout(0.5)
        try:
            attempt.connect(("192.0.2.1", 80))
        except OSError as error:
            return type(error).__name__ if error.errno is None else os.strerror(error.errno)
        return "connected"


def burn() -> None:
    while True:
        pass


def report_surroundings() -> None:
    try:
        interfaces = [name for _, name in socket.if_nameindex()]
    except OSError:
        interfaces = []
    limits = {name: getattr(resource, name) for name in ("RLIMIT_CORE", "RLIMIT_CPU", "RLIMIT_FSIZE", "RLIMIT_NOFILE", "RLIMIT_AS")}
    found = {
        "environment": dict(os.environ),
        "cwd": [path.name for path in Path.cwd().iterdir()],
        "interfaces": interfaces,
        "limits": {name: resource.getrlimit(number)[0] for name, number in limits.items()},
        "connected": connect(),
    }
    (WORKDIR / "surroundings.json").write_text(json.dumps(found))


ACTIONS: dict[str, Callable[[], object]] = {
    "exhaust_memory": exhaust_memory,
    "fail": fail,
    "abort": abort_like_cpp,
    "crash": crash,
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "garbage": print_garbage,
    "grandchildren": start_grandchildren,
    "surroundings": report_surroundings,
    "ignore_sigterm": lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN),
    "burn": burn,
    "segfault": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "vanish": lambda: os._exit(0),
}


def main() -> None:
    trainer_input = TrainerInput.model_validate_json((WORKDIR / TRAINER_INPUT).read_bytes())
    script = json.loads((WORKDIR / trainer_input.model).read_bytes())
    checkpoint = WORKDIR / CHECKPOINT
    start = int(checkpoint.read_text()) if checkpoint.exists() else 0
    if "log" in script:
        sys.stderr.write(script["log"] + "\n")
    say(Progress(phase="validate", progress=0.0))
    if "validate_s" in script:
        time.sleep(script["validate_s"])
        say(Progress(phase="load", progress=0.0))
    steps = script.get("steps", 3)
    for step in range(start, steps):
        if action := script.get("at", {}).get(str(step)):
            ACTIONS[action]()
        time.sleep(script.get("step_s", 0.0))
        new = checkpoint.with_suffix(".new")
        new.write_text(str(step + 1))
        new.rename(checkpoint)
        say(Progress(phase="fit", progress=(step + 1) / (steps + 1), eta_s=1.0, metrics={"step": step + 1}))
        say(CheckpointSaved())
    artifacts = WORKDIR / ARTIFACTS
    artifacts.mkdir()
    (artifacts / "model.onnx").write_text(f"began at step {start}")
    (artifacts / "report.json").write_text("{}")
    (artifacts / ".cache").mkdir()
    (artifacts / "link").symlink_to("/etc/passwd")
    gate = GateNotMet("Nothing is inside the budget.").to_problem() if script.get("gate") else None
    say(Result(verdict="made smaller", problem=gate))
    sys.exit(ExitCode.GATE_NOT_MET if gate else ExitCode.DONE)


if __name__ == "__main__":
    main()
