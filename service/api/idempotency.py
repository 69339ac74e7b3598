"""`Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header-07): the same request sent twice is one job.

Requests are compared by what was parsed of them, never by their bytes: two forms of one client differ in their boundaries.
"""

import asyncio
import hashlib
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from service.api.problems import IdempotencyKeyInUse, IdempotencyKeyReused
from service.api.uploads.submission import Submission
from service.jobs.idempotency.repository import IdempotencyRepository, KeyRecord
from service.jobs.job import JobInput
from service.references import DIGEST_MARK
from service.settings import Settings

HEADER = "Idempotency-Key"
logger = logging.getLogger(__name__)


@asynccontextmanager
async def reserving(
    owner: str, key: str | None, job_id: str, keys: IdempotencyRepository, settings: Settings
) -> AsyncIterator[KeyRecord | None]:
    """Holds the owner's key while the request for `job_id` is received. Gives the request that came before, None where this is the first.

    Raises: IdempotencyKeyInUse where another is still being received.
    """
    if key is None:
        yield None
        return
    record = await run_in_threadpool(keys.reserve, owner, key, job_id, settings.lease_s)
    if record.job_id != job_id:
        if record.fingerprint is None:
            raise in_use()
        yield record
        return
    renewing = asyncio.create_task(_renew(owner, key, job_id, keys, settings))
    try:
        yield None
    except BaseException:
        await run_in_threadpool(keys.release, owner, key, job_id)
        raise
    finally:
        renewing.cancel()


async def _renew(owner: str, key: str, job_id: str, keys: IdempotencyRepository, settings: Settings) -> None:
    while True:
        await asyncio.sleep(settings.renew_s)
        try:
            await run_in_threadpool(keys.renew, owner, key, job_id, settings.lease_s)
        except SQLAlchemyError as error:
            logger.warning("the database does not answer: %s", error)


def fingerprint_of(submission: Submission) -> str:
    """A sha256 over kind, configuration, metadata, parent, references and the sha256 of each file. Names of files are not among them."""
    parts = {
        "kind": submission.kind,
        # Without defaults, so that a later version, which knows more of them, says the same of the same request.
        "config": submission.config.model_dump(mode="json", exclude_defaults=True),
        "metadata": submission.metadata,
        "parent_id": submission.parent_id,
        "inputs": {name: _content_of(given) for name, given in submission.inputs.items()},
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _content_of(given: JobInput) -> str | None:
    """Of a file its sha256, whether it was sent or is an upload's; of any other reference what it says and expects."""
    if given.key is not None:
        return given.sha256
    return given.ref if given.sha256 is None else f"{given.ref}{DIGEST_MARK}{given.sha256}"


def check_same(first: KeyRecord, fingerprint: str) -> None:
    """Raises: IdempotencyKeyReused."""
    if first.fingerprint != fingerprint:
        raise IdempotencyKeyReused(
            f"The key came before, with a request whose parts are others; its job is {first.job_id}.",
            param=HEADER,
            suggestion="Draw a new key for every new request, for example a UUID.",
        )


def in_use() -> IdempotencyKeyInUse:
    return IdempotencyKeyInUse(
        "A request with this key is still being received.",
        param=HEADER,
        suggestion="Send it again later; where the first one has come through, the answer is its job.",
        headers={"Retry-After": "2"},
    )
