"""`bayespress serve` as a real process on a free port."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

BAYESPRESS = str(Path(sys.executable).with_name("bayespress"))


@dataclass(frozen=True)
class Served:
    process: subprocess.Popen[str]
    client: httpx.Client
    home: Path

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout=20)

    def log(self) -> str:
        """What it has written to stderr."""
        return self.home.with_name(f"{self.home.name}.log").read_text()

    def files(self) -> list[str]:
        """All files under the store's folder, those of unfinished uploads included."""
        return [f"{folder}/{name}" for folder, _, names in os.walk(self.home / "store") for name in names]


def to_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """The environment of this process without the service's own variables, and with these."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("BAYESPRESS_")}
    return own | {"OMP_NUM_THREADS": "1"} | dict(variables)


@contextmanager
def served(home: Path, *options: str, variables: Mapping[str, str] | None = None, script: str = BAYESPRESS) -> Iterator[Served]:
    """A running service; it is killed at the end where the test has not stopped it."""
    command = [script, "serve", "--home", str(home), "--port", "0", *options]
    log = home.with_name(f"{home.name}.log")
    with log.open("a") as stderr:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=to_environment(variables or {}))
    with process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            match = re.fullmatch(r"Bayespress listens on http://[0-9.]+:(\d+)\n", line)
            assert match, f"{line!r}; {log.read_text()}"
            with httpx.Client(base_url=f"http://127.0.0.1:{match[1]}", timeout=30) as client:
                yield Served(process, client, home)
        finally:
            process.kill()
