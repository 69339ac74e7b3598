"""Claims and finishes jobs until none is left, and prints their ids: one of several processes of test_repository."""

import sys

from compressor.protocol import Progress
from service.jobs.engine import create_engine
from service.jobs.repository import JobRepository
from service.jobs.states import Status


def main(url: str, process: str) -> None:
    repository = JobRepository(create_engine(url))
    while job := repository.claim_next(60, home="home", process=process):
        # Every tenth goes back once, so that requeueing takes part in the race.
        if job.attempts == 1 and job.fence == 1 and job.id.endswith("0"):
            assert repository.requeue(job.id, job.fence)
            continue
        assert repository.update_progress(job.id, job.fence, Progress(phase="fit", progress=0.5), "")
        assert repository.finish(job.id, job.fence, Status.SUCCEEDED, verdict=process)
        print(job.id)


if __name__ == "__main__":
    main(*sys.argv[1:])
