"""`parent_id`: the finished job whose model and curve a selection takes. They stay its own objects: with a result, nothing removes them."""

from compressor.protocol import CURVE
from service.api.caller import Caller
from service.api.problems import ArtifactNotFound, JobNotFinished, ParentNotFound
from service.jobs.job import JobInput
from service.jobs.repository import JobRepository

PARENT = "parent_id"


def inputs_of(parent_id: str, jobs: JobRepository, caller: Caller) -> dict[str, JobInput]:
    """The model of the job `parent_id` and its curve. What is another's is not there.

    Raises: ParentNotFound, JobNotFinished, or ArtifactNotFound where it has no curve.
    """
    parent = jobs.get(parent_id, caller.sees)
    if parent is None:
        raise ParentNotFound(f"There is no job {parent_id[:80]!r}.", param=PARENT, suggestion="GET /v1/jobs lists the jobs.")
    if not parent.finished:
        detail = f"The job {parent.id} is {parent.status.value}; it has no curve yet."
        suggestion = f"Ask GET /v1/jobs/{parent.id} until finished_at is set."
        raise JobNotFinished(detail, param=PARENT, suggestion=suggestion, headers={"Retry-After": "2"})
    for artifact in parent.artifacts:
        if artifact.name == CURVE:
            curve = JobInput(key=artifact.key, filename=CURVE, bytes=artifact.bytes, sha256=artifact.sha256)
            return {"model": parent.inputs["model"], "curve": curve}
    raise ArtifactNotFound(
        f"The job {parent.id}, of kind {parent.kind}, is {parent.status.value} and has no {CURVE}.",
        param=PARENT,
        suggestion="Name a job of kind compress that came to its end.",
    )
