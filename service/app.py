"""The HTTP face: routers, error shape and guards put together."""

from collections.abc import Callable, Mapping

from fastapi import FastAPI

from compressor import __version__
from service.api import (
    artifacts,
    compress,
    config,
    datasets,
    description,
    events,
    info,
    jobs,
    livez,
    models,
    pause,
    problems,
    readyz,
    report,
    retry,
    webhook_messages,
    webhooks,
)
from service.api.authentication import Authenticate
from service.api.dependencies import Services
from service.api.feed import EventFeed
from service.api.guard import EndUnreadBodies, GuardAddress, LogRequests
from service.api.watcher import JobWatcher
from service.jobs.events.repository import EventRepository
from service.jobs.idempotency.repository import IdempotencyRepository
from service.jobs.repository import JobRepository
from service.jobs.uploads.repository import UploadRepository
from service.keys.leaks import LeakFinder
from service.keys.repository import KeyRepository
from service.settings import Settings
from service.storage.store import ObjectStore
from service.webhooks.deliveries.repository import DeliveryRepository
from service.webhooks.repository import EndpointRepository

DESCRIPTION = "Makes trained neural networks smaller by sparse variational dropout. Every error is an RFC 9457 problem object."
ROUTERS = (compress, jobs, pause, retry, events, artifacts, report, models, datasets, webhooks, config, info, livez, readyz)


def describe_api() -> FastAPI:
    """The routes and what openapi.json says of them, with nothing behind them."""
    # The pages of FastAPI's own documentation load scripts from another host; /openapi.json is enough for any viewer.
    app = FastAPI(title="Bayespress", version=__version__, description=DESCRIPTION, docs_url=None, redoc_url=None, redirect_slashes=False)
    problems.install(app)
    for module in ROUTERS:
        app.include_router(module.router)
    app.webhooks.include_router(webhook_messages.router)
    description.install(app)
    return app


def create_app(
    settings: Settings, job_repository: JobRepository, store: ObjectStore, checks: Mapping[str, Callable[[], object]] | None = None
) -> FastAPI:
    """The application. `checks` are further ones of /readyz by name; each raises where its part of the service cannot work."""
    app = describe_api()
    own_checks = {"database": job_repository.counts, "store": store.check_writable}
    event_repository = EventRepository(job_repository.engine)
    app.state.services = Services(
        settings,
        job_repository,
        event_repository,
        store,
        IdempotencyRepository(job_repository.engine),
        UploadRepository(job_repository.engine),
        JobWatcher(job_repository.marks),
        EndpointRepository(job_repository.engine),
        DeliveryRepository(job_repository.engine),
        EventFeed(event_repository.page),
        {**own_checks, **(checks or {})},
    )
    leaks = LeakFinder(settings.admin_key.get_secret_value() if settings.admin_key else None)
    own_name = f"[{settings.host}]" if ":" in settings.host else settings.host
    app.add_middleware(Authenticate, settings=settings, keys=KeyRepository(job_repository.engine), leaks=leaks)
    app.add_middleware(GuardAddress, allowed_hosts=[*settings.allowed_hosts, own_name])
    app.add_middleware(LogRequests, leaks=leaks)
    app.add_middleware(EndUnreadBodies)
    return app
