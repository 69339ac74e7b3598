"""`bayespress serve`: API and worker in one process and one event loop, over one home folder."""

import asyncio
import ipaddress
import logging
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
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
from service.settings import ENV_PREFIX, Settings
from service.storage.store import ObjectStore
from service.worker.dispatcher import run_dispatcher
from service.worker.home import HomeInUse

# Open downloads and uploads get this long to end at a shutdown.
GRACE_S = 5
logger = logging.getLogger(__name__)


class CannotServe(Exception):
    """The service cannot start; the text says why and what to do."""


def serve(
    home: Annotated[Path | None, typer.Option(help="Folder of the database and of all files.", show_default="~/.bayespress")] = None,
    host: Annotated[str | None, typer.Option(help="Loopback address to listen on.", show_default="127.0.0.1")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.", show_default="8000")] = None,
    data_root: Annotated[list[Path] | None, typer.Option(help="Folder whose files a request may name as file:PATH; repeatable.")] = None,
) -> None:
    """Run the service: HTTP interface and worker in one. Each option is also a variable, BAYESPRESS_HOME and so on."""
    options = {"home": home, "host": host, "port": port, "data_roots": tuple(data_root) if data_root else None}
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    # What these say at their own level is said by a problem or by a line of ours.
    for name, level in {"uvicorn": logging.WARNING, "alembic": logging.WARNING, "python_multipart": logging.ERROR}.items():
        logging.getLogger(name).setLevel(level)
    try:
        settings = read_settings({name: value for name, value in options.items() if value is not None})
        raise typer.Exit(run(settings))
    except CannotServe as error:
        typer.echo(f"bayespress serve: {error}", err=True)
        raise typer.Exit(1) from None


def run(settings: Settings) -> int:
    """Serves until SIGTERM or SIGINT; the exit code. Raises CannotServe."""
    _check_loopback(settings.host)
    _make_home(settings.home)
    with _noted_signals() as signals, _listening(settings) as listener:
        engine = create_engine(settings.database)
        try:
            upgrade(engine)
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

    def check_dispatcher() -> None:
        if dispatcher.done():
            raise RuntimeError("the dispatcher has ended")

    app = create_app(settings, jobs, ObjectStore(settings.store_root), {"dispatcher": check_dispatcher})
    server = _Server(app, stop, signals)
    dispatcher.add_done_callback(lambda _: server.stop())
    await server.serve(sockets=[listener])
    stop.set()
    await asyncio.wait([dispatcher])
    logger.info("stopped")
    if dispatcher.exception() is not None:
        logger.error("The dispatcher failed.", exc_info=dispatcher.exception())
        return 1
    return 0


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


def _check_loopback(host: str) -> None:
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise CannotServe(
            f"{host} is not a loopback address. There are no keys yet, so the service listens on this machine only; use 127.0.0.1."
        )


def _make_home(home: Path) -> None:
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
