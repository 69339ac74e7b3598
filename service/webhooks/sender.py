"""`Sender`: delivers what is due, beside the dispatcher. Keeps no state that a restart could lose; several share one database.

At least once: where the service dies between an answer and its note of it, the message is sent again, with the same `webhook-id`.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

import httpx
from sqlalchemy.exc import OperationalError

from service.fetching.client import guarded_client
from service.jobs.clock import utc_now
from service.jobs.engine import create_engine
from service.settings import Settings
from service.webhooks.attempt import attempt
from service.webhooks.deliveries.delivery import Claim, Outcome
from service.webhooks.deliveries.repository import DeliveryRepository
from service.webhooks.schedule import SCHEDULE_S, next_delay_s

POLL_S = 1.0
# Longer than an attempt may take.
LEASE_S = 60.0
# Of one process; a slow receiver must not hold up the others.
AT_ONCE_PER_WEBHOOK = 2
SWEEP_S = 3600.0
# What is under way at a shutdown may take so long to end.
GRACE_S = 3.0
logger = logging.getLogger(__name__)


async def run_sender(settings: Settings, stop: asyncio.Event) -> None:
    """Runs until `stop` is set. With no senders it only waits."""
    if settings.webhook_senders == 0:
        await stop.wait()
        return
    engine = create_engine(settings.database)
    try:
        async with guarded_client(settings.reference_hosts) as client:
            sender = Sender(DeliveryRepository(engine), client, settings.webhook_schedule_s, at_once=settings.webhook_senders)
            await sender.run(stop)
    finally:
        engine.dispose()


class Sender:
    def __init__(
        self,
        repository: DeliveryRepository,
        client: httpx.AsyncClient,
        schedule_s: Sequence[float] = SCHEDULE_S,
        *,
        at_once: int = 8,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._repository = repository
        self._client = client
        self._schedule_s = schedule_s
        self._at_once = at_once
        self._clock = clock
        self._under_way: dict[asyncio.Task[None], Claim] = {}

    async def run(self, stop: asyncio.Event) -> None:
        stopped = asyncio.create_task(stop.wait(), name="stop")
        next_sweep = 0.0
        while not stop.is_set():
            with _surviving():
                await self._fill()
                if (now := asyncio.get_running_loop().time()) >= next_sweep:
                    next_sweep = now + SWEEP_S
                    await asyncio.to_thread(self._repository.sweep)
            await asyncio.wait({stopped, *self._under_way}, timeout=POLL_S, return_when=asyncio.FIRST_COMPLETED)
        await self._shut_down()

    async def send_due(self) -> None:
        """Delivers until nothing is due."""
        while await self._fill() or self._under_way:
            if self._under_way:
                await asyncio.wait(self._under_way, return_when=asyncio.FIRST_COMPLETED)

    async def _fill(self) -> int:
        """How many deliveries it has begun."""
        begun = 0
        while len(self._under_way) < self._at_once:
            count = Counter(claim.endpoint.id for claim in self._under_way.values())
            busy = [webhook_id for webhook_id, under_way in count.items() if under_way >= AT_ONCE_PER_WEBHOOK]
            claim = await asyncio.to_thread(self._repository.claim_next, LEASE_S, busy)
            if claim is None:
                break
            task = asyncio.create_task(self._deliver(claim), name=f"webhook {claim.delivery.id}")
            self._under_way[task] = claim
            task.add_done_callback(self._under_way.pop)
            begun += 1
        return begun

    async def _deliver(self, claim: Claim) -> None:
        with _surviving():
            outcome = await self._attempt(claim)
            retry_in_s = self._retry_in_s(claim, outcome)
            if await asyncio.to_thread(self._repository.settle, claim, outcome, retry_in_s) and not outcome.delivered:
                came = outcome.status or outcome.error
                then = "given up" if retry_in_s is None else f"again in {retry_in_s:.0f} s"
                logger.info("%s to %s, attempt %d: %s, %s", claim.delivery.id, claim.endpoint.id, claim.delivery.attempts + 1, came, then)

    async def _attempt(self, claim: Claim) -> Outcome:
        try:
            return await attempt(self._client, claim, self._clock())
        except Exception:
            # Counted like any other failure, or it would be tried for ever.
            logger.exception("%s to %s could not be sent", claim.delivery.id, claim.endpoint.id)
            return Outcome(error="connection_failed")

    def _retry_in_s(self, claim: Claim, outcome: Outcome) -> float | None:
        # What leads to a private address today does so tomorrow; and a client is not to learn by trying when it changes.
        if outcome.status == 410 or outcome.error == "refused":
            return None
        return next_delay_s(self._schedule_s, claim.delivery.attempts + 1, outcome.retry_after_s)

    async def _shut_down(self) -> None:
        if not self._under_way:
            return
        _, late = await asyncio.wait(self._under_way, timeout=GRACE_S)
        claims = [self._under_way[task] for task in late]
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        for claim in claims:
            with _surviving():
                await asyncio.to_thread(self._repository.release, claim)


@contextmanager
def _surviving() -> Iterator[None]:
    """A database that is away, or one bad row, must not end the sending. What was claimed is sent when its lease has ended."""
    try:
        yield
    except OperationalError as error:
        logger.warning("the database does not answer: %s", error)
    except Exception:
        logger.exception("a step of the webhooks' sender failed")
