"""Jobs, webhooks and senders over one database, with a clock that can be moved where the database has none of its own."""

import asyncio
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Engine

from service.fetching.client import guarded_client
from service.jobs.clock import utc_now
from service.jobs.job import Job, new_job
from service.jobs.repository import JobRepository
from service.webhooks.deliveries.delivery import Delivery
from service.webhooks.deliveries.repository import DeliveryRepository
from service.webhooks.endpoint import EVENT_NAMES, Endpoint, EventName, new_endpoint
from service.webhooks.repository import EndpointRepository
from service.webhooks.sender import Sender

OWNER = "local"


class Scene:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.now = utc_now()
        self.jobs = JobRepository(engine)
        self.endpoints = EndpointRepository(engine, self.clock)
        self.deliveries = DeliveryRepository(engine, self.clock)

    def clock(self) -> datetime:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def endpoint(self, url: str, events: tuple[EventName, ...] = EVENT_NAMES, owner: str = OWNER) -> Endpoint:
        endpoint = new_endpoint(owner, url, events, None, self.now)
        assert self.endpoints.insert(endpoint)
        return endpoint

    def job(self) -> Job:
        """A queued one, of which `job.queued` tells; due by our clock too."""
        job = new_job(config={}, inputs={})
        self.jobs.insert(job)
        self._catch_up()
        return job

    def cancel(self, job: Job) -> None:
        """Of which `job.cancelled` tells."""
        self.jobs.request_cancel(job.id)
        self._catch_up()

    def _catch_up(self) -> None:
        self.now = max(self.now, utc_now())

    def pages(self, endpoint: Endpoint) -> list[Delivery]:
        """All deliveries, the newest first."""
        return self.deliveries.page(endpoint.id, 1000)

    def read(self, endpoint: Endpoint) -> Endpoint:
        found = self.endpoints.get(endpoint.owner, endpoint.id)
        assert found is not None
        return found

    def send_due(self, hosts: Collection[str], *schedule_s: float, **options: Any) -> None:
        """What a service that has just been started does: nothing but the database is left of the one before."""

        async def send() -> None:
            async with guarded_client(hosts) as client:
                schedule = (schedule_s,) if schedule_s else ()
                await Sender(DeliveryRepository(self.engine, self.clock), client, *schedule, clock=self.clock, **options).send_due()

        asyncio.run(send())
