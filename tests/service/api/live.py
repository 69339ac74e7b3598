"""The application behind a real uvicorn on a free port, with a real store and database; no worker."""

import dataclasses
import hashlib
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from compressor.protocol import Kind
from service.app import create_app
from service.jobs.engine import create_engine
from service.jobs.events.event import Event
from service.jobs.events.repository import EventRepository
from service.jobs.job import LOCAL, Artifact, Job, JobInput, new_job
from service.jobs.migrate import upgrade
from service.jobs.quotas.quota import NO_QUOTAS, Quotas
from service.jobs.repository import JobRepository
from service.jobs.states import Status
from service.keys.key import ApiKey, Scope, draw_key
from service.keys.repository import KeyRepository
from service.settings import Settings
from service.storage.keys import artifact_key
from service.storage.store import ObjectStore
from tests.service.storage.objects import put_bytes


@dataclasses.dataclass(frozen=True)
class LiveService:
    url: str
    port: int
    client: httpx.Client
    jobs: JobRepository
    store: ObjectStore
    settings: Settings

    def left_behind(self) -> list[str]:
        """Everything under the store's folder that is a file, and the ids of all jobs."""
        # os.walk, because pathlib's walk breaks when a folder goes away under it.
        files = [f"{folder}/{name}" for folder, _, names in os.walk(self.settings.store_root) for name in names]
        return sorted(files) + [job.id for job in self.jobs.list_recent(100)]

    def events_of(self, job_id: str) -> list[Event]:
        return EventRepository(self.jobs.engine).page(job_id, 0, 1000)

    def make_key(self, owner: str, scope: Scope = Scope.SUBMIT, quotas: Quotas = NO_QUOTAS, **values: Any) -> str:
        """The text of a new key."""
        drawn = draw_key()
        key = ApiKey(drawn.id, owner, "", scope, drawn.digest, datetime.now(UTC), quotas)
        KeyRepository(self.jobs.engine).insert(dataclasses.replace(key, **values))
        return drawn.reveal()

    def insert_finished(self, status: Status, files: dict[str, bytes], kind: Kind = "compress", owner: str = LOCAL) -> Job:
        """A job that has ended with these artifacts."""
        queued = new_job(owner=owner, kind=kind, config={}, inputs={"model": JobInput(key="k"), "dataset": JobInput(ref="builtin:digits")})
        artifacts = []
        for name, data in files.items():
            key = artifact_key(queued.id, 1, name)
            put_bytes(self.store, key, data)
            digest = hashlib.sha256(data).hexdigest()
            artifacts.append(Artifact(name=name, key=key, bytes=len(data), sha256=digest, media_type="application/octet-stream"))
        job = queued.model_copy(update={"status": status, "artifacts": artifacts, "finished_at": datetime.now(UTC), "fence": 1})
        self.jobs.insert(job)
        return job


@contextmanager
def serving(settings: Settings) -> Iterator[LiveService]:
    settings.home.mkdir(parents=True, exist_ok=True)
    engine = create_engine(settings.database)
    upgrade(engine)
    jobs, store = JobRepository(engine), ObjectStore(settings.store_root)
    config = uvicorn.Config(create_app(settings, jobs, store), http="h11", ws="none", lifespan="off", log_config=None, access_log=False)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            url = f"http://127.0.0.1:{port}"
            with httpx.Client(base_url=url, timeout=30) as client:
                yield LiveService(url, port, client, jobs, store, settings)
        finally:
            server.should_exit = True
            thread.join()
            engine.dispose()


def service_settings(home: Path, data_roots: tuple[Path, ...] = ()) -> Settings:
    return Settings(home=home, data_roots=data_roots, max_upload_bytes=4_000_000, max_model_bytes=1_000_000)
