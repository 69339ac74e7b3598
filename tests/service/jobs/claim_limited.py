"""Claims and finishes jobs until none is left, and prints how many of their owner were held meanwhile: one of several processes."""

import sys
import time

from sqlalchemy import text

from service.jobs.engine import create_engine
from service.jobs.repository import JobRepository
from service.jobs.states import Status

HELD = text("SELECT count(*) FROM jobs WHERE owner = :owner AND status = 'validating'")
OPEN = text("SELECT count(*) FROM jobs WHERE status IN ('queued', 'validating')")


def main(url: str) -> None:
    repository = JobRepository(create_engine(url))
    while True:
        job = repository.claim_next(60, home="home", process="p")
        with repository.engine.connect() as connection:
            if job is None:
                if connection.execute(OPEN).scalar_one() == 0:
                    return
                # Others hold the slots.
                time.sleep(0.001)
                continue
            print(connection.execute(HELD, {"owner": job.owner}).scalar_one())
        assert repository.finish(job.id, job.fence, Status.SUCCEEDED)


if __name__ == "__main__":
    main(*sys.argv[1:])
