"""The layout of keys in the object store.

    jobs/<job>/inputs/<name><suffix>                what the client sent: model, dataset, validation, test; a retry has copies of its own
    jobs/<job>/inputs/<name>.<fence><suffix>        what an attempt has fetched for a reference; it counts once the job's row names it
    jobs/<job>/<fence>/checkpoint.safetensors       what an attempt saves; a later attempt resumes from the highest fence
    jobs/<job>/<fence>/artifacts/<name>             what an attempt delivers
    uploads/<receipt>/<part><suffix>                a model or a part of a dataset, as a request brought it; jobs have their own copies

An attempt writes under its own fence only, so one that has lost its lease can overwrite nothing.
"""

import re

_SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


def _segment(text: str) -> str:
    """`text`, if it is one plain path segment: keys are also file names."""
    if not _SEGMENT.fullmatch(text):
        raise ValueError(f"{text!r} cannot be part of a key")
    return text


JOBS = "jobs"
UPLOADS = "uploads"
INPUTS = "inputs"


def job_prefix(job_id: str) -> str:
    return f"{JOBS}/{_segment(job_id)}"


def attempt_prefix(job_id: str, fence: int) -> str:
    return f"{job_prefix(job_id)}/{fence:d}"


def input_prefix(job_id: str) -> str:
    return f"{job_prefix(job_id)}/{INPUTS}"


def input_key(job_id: str, name: str, suffix: str) -> str:
    return f"{input_prefix(job_id)}/{_segment(name + suffix)}"


def fetched_key(job_id: str, fence: int, name: str, suffix: str) -> str:
    return input_key(job_id, f"{name}.{fence:d}", suffix)


def checkpoint_key(job_id: str, fence: int) -> str:
    return f"{attempt_prefix(job_id, fence)}/checkpoint.safetensors"


def artifact_key(job_id: str, fence: int, name: str) -> str:
    return f"{attempt_prefix(job_id, fence)}/artifacts/{_segment(name)}"


def upload_prefix(receipt: str) -> str:
    return f"{UPLOADS}/{_segment(receipt)}"


def upload_key(receipt: str, part: str, suffix: str) -> str:
    return f"{upload_prefix(receipt)}/{_segment(part + suffix)}"
