"""`bayespress serve`: API and worker in one process and one event loop, over one home folder."""

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
import uvicorn
from fastapi import FastAPI
from pydantic import ValidationError

from service.api.dependencies import Services
from service.app import create_app
from service.jobs.engine import create_engine
from service.jobs.migrate import upgrade
from service.jobs.repository import JobRepository
from service.keys.repository import KeyRepository
from service.settings import ENV_PREFIX, Settings
from service.storage.store import ObjectStore
from service.webhooks.sender import run_sender
from service.worker.dispatcher import run_dispatcher
from service.worker.home import HomeInUse

# Open downloads and uploads get this long to end at a shutdown.
GRACE_S = 5
logger = logging.getLogger(__name__)


class CannotServe(Exception):
    """The service cannot start; the text says why and what to do."""


def serve(
    home: Annotated[Path | None, typer.Option(help="Folder of the database and of all files.", show_default="~/.bayespress")] = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; beyond loopback there must be a key.", show_default="127.0.0.1")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.", show_default="8000")] = None,
    data_root: Annotated[list[Path] | None, typer.Option(help="Folder whose files a request may name as file:PATH; repeatable.")] = None,
) -> None:
    """Run the service: HTTP interface and worker in one. Each option is also a variable, BAYESPRESS_HOME and so on."""
    options = {"home": home, "host": host, "port": port, "data_roots": tuple(data_root) if data_root else None}
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    # What these say at their own level is said by a problem or by a line of ours.
    # httpx would write whole addresses, which may hold what gives access to a client's own services.
    quiet = {"uvicorn": logging.WARNING, "alembic": logging.WARNING, "httpx": logging.WARNING, "python_multipart": logging.ERROR}
    for name, level in quiet.items():
        logging.getLogger(name).setLevel(level)
    try:
        settings = read_settings({name: value for name, value in options.items() if value is not None})
        raise typer.Exit(run(settings))
    except CannotServe as error:
        typer.echo(f"bayespress serve: {error}", err=True)
        raise typer.Exit(1) from None


def run(settings: Settings) -> int:
    """Serves until SIGTERM or SIGINT; the exit code. Raises CannotServe."""
    make_home(settings.home)
    with _noted_signals() as signals, _listening(settings) as listener:
        engine = create_engine(settings.database)
        try:
            upgrade(engine)
            _check_keys(settings, KeyRepository(engine))
            return asyncio.run(_run(settings, JobRepository(engine), listener, signals))
        finally:
            engine.dispose()


async def _run(settings: Settings, jobs: JobRepository, listener: socket.socket, signals: list[int]) -> int:
    stop = asyncio.Event()
    dispatcher = asyncio.create_task(run_dispatcher(settings, stop), name="dispatcher")
    # Its first step locks the home folder.
    await asyncio.sleep(0)
    if dispatcher.done() and isinstance(dispatcher.exception(), HomeInUse):
        raise CannotServe(f"{settings.home} is in use by another service. Stop it, or take another folder with --home.")

    tasks = [dispatcher, asyncio.create_task(run_sender(settings, stop), name="webhooks")]
    checks = {task.get_name(): partial(_check_running, task) for task in tasks}
    server = _Server(create_app(settings, jobs, ObjectStore(settings.store_root), checks), stop, signals)
    for task in tasks:
        task.add_done_callback(lambda _: server.stop())
    await server.serve(sockets=[listener])
    stop.set()
    await asyncio.wait(tasks)
    logger.info("stopped")
    failed = [task for task in tasks if task.exception() is not None]
    for task in failed:
        logger.error("The task %s failed.", task.get_name(), exc_info=task.exception())
    return 1 if failed else 0


def _check_running(task: asyncio.Task[None]) -> None:
    if task.done():
        raise RuntimeError(f"the task {task.get_name()} has ended")


class _Server(uvicorn.Server):
    """uvicorn, which says where it listens and tells the dispatcher of a signal at once."""

    def __init__(self, app: FastAPI, stop: asyncio.Event, signals: list[int]) -> None:
        services: Services = app.state.services
        config = uvicorn.Config(
            app,
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE_S,
        )
        super().__init__(config)
        self._stop = stop
        self._watcher = services.watcher
        self._early_signals = signals
        self._loop = asyncio.get_running_loop()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._early_signals:
            self.stop()
            return
        for listener in sockets or []:
            # Scripts wait for this line.
            typer.echo(f"Bayespress listens on {_to_url(listener)}")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        logger.info("%s: stopping", signal.Signals(sig).name)
        self._loop.call_soon_threadsafe(self._stop.set)
        # Who waits for a job would hold the service up for as long as its grace lasts.
        self._loop.call_soon_threadsafe(self._watcher.close)

    def stop(self) -> None:
        self.should_exit = True


def read_settings(options: dict[str, object]) -> Settings:
    """The settings, `options` before the environment. Raises CannotServe naming the option or the variable that is wrong."""
    try:
        return Settings.model_validate(options)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0]) if first["loc"] else "settings"
        source = f"--{name.removesuffix('s').replace('_', '-')}" if name in options else f"{ENV_PREFIX}{name.upper()}"
        raise CannotServe(f"{source}: {first['msg'].removeprefix('Value error, ')}.") from None


def _check_keys(settings: Settings, keys: KeyRepository) -> None:
    if settings.keys_required and settings.admin_key is None and not keys.has_valid():
        reason = "BAYESPRESS_REQUIRE_KEYS is set" if settings.require_keys else f"{settings.host or 'every address'} is not loopback"
        raise CannotServe(
            f"{reason}, so every request needs a key, and there is none. Make one with `bayespress keys create --owner NAME "
            f"--scope admin --home {settings.home}`, or set {ENV_PREFIX}ADMIN_KEY; or listen on 127.0.0.1."
        )


def make_home(home: Path) -> None:
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise CannotServe(f"{home} cannot be used as the home folder: {error.strerror}.") from None


@contextmanager
def _listening(settings: Settings) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        listener = socket.create_server((settings.host, settings.port), family=family)
    except OSError as error:
        raise CannotServe(f"{settings.host} port {settings.port} cannot be listened on: {error.strerror}.") from None
    with listener:
        # Its connections inherit it. asyncio itself leaves sockets out whose protocol is not named, as here; without it, the second part of
        # a response on a connection that is used again waits for the client's delayed acknowledgement, 40 ms.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield listener


@contextmanager
def _noted_signals() -> Iterator[list[int]]:
    """The signals to stop that nobody else handles: before uvicorn takes them over, and again when it raises them anew after its end.

    Not SIG_IGN, which the runners would inherit.
    """
    noted: list[int] = []
    handlers = {number: signal.signal(number, lambda number, _frame: noted.append(number)) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield noted
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _to_url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
