"""`LocalExecutor`: runners as child processes on this machine. They end with the process that started them."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Sequence

from service.settings import Settings
from service.worker.processes import kill_group, process_token
from service.worker.trainer_process import TRAINER_COMMAND

Attempt = tuple[str, int]


class LocalExecutor:
    """Call from the thread of the event loop only: for the kernel, a runner's parent is the thread that started it."""

    def __init__(self, settings: Settings, trainer_command: Sequence[str] = TRAINER_COMMAND) -> None:
        self._settings = settings
        self._trainer_command = trainer_command
        self._runners: dict[Attempt, asyncio.subprocess.Process] = {}

    @property
    def attempts(self) -> list[Attempt]:
        """What is running, as (job id, fence)."""
        return list(self._runners)

    async def start(self, job_id: str, fence: int) -> str:
        """Starts a runner and returns the token of its process."""
        runner = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "service.worker.runner", job_id, str(fence), "--parent", str(os.getpid())),
            *("--trainer", *self._trainer_command),
            stdin=asyncio.subprocess.DEVNULL,
            env=self._settings.child_environment(),
            # A Ctrl-C in the terminal is for the service, which then ends its runners in order.
            start_new_session=True,
        )
        self._runners[job_id, fence] = runner
        return process_token(runner.pid)

    def reap(self) -> list[tuple[Attempt, int]]:
        """The runners that have ended since the last call, with their exit codes."""
        ended = [(attempt, runner.returncode) for attempt, runner in self._runners.items() if runner.returncode is not None]
        for attempt, _ in ended:
            del self._runners[attempt]
        return ended

    def terminate_all(self) -> None:
        for runner in self._runners.values():
            with contextlib.suppress(ProcessLookupError):
                runner.send_signal(signal.SIGTERM)

    def kill(self, attempt: Attempt) -> None:
        """Ends a runner that does not react, frozen ones too; its trainer dies with it."""
        kill_group(self._runners[attempt].pid)
