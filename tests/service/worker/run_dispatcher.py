"""A dispatcher as a process of its own, with the fake trainer: python -m tests.service.worker.run_dispatcher [TRAINER COMMAND...]."""

import asyncio
import logging
import signal
import sys

from service.jobs.engine import create_engine
from service.jobs.migrate import upgrade
from service.settings import Settings
from service.worker.dispatcher import run_dispatcher
from service.worker.trainer_process import TRAINER_COMMAND


async def main() -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    settings = Settings()
    upgrade(create_engine(settings.database))
    await run_dispatcher(settings, stop, trainer_command=sys.argv[1:] or TRAINER_COMMAND)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    asyncio.run(main())
