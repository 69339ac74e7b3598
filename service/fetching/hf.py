"""`hf://ORG/NAME@REV/PATH` and `hf://datasets/ORG/NAME@REV/PATH`: files of the Hugging Face hub, or of a mirror that has its paths."""

import re
from urllib.parse import quote

import httpx

_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
# The hub's own branches (refs/convert/parquet, refs/pr/1) are the only revisions with a slash.
_LOCATION = re.compile(rf"//(datasets/)?({_NAME}/{_NAME})(?:@(refs/(?:convert|pr)/{_NAME}|{_NAME}))?/(.+)")
DEFAULT_REVISION = "main"
EXAMPLE = "For example hf://datasets/ylecun/mnist@main/mnist/train-00000-of-00001.parquet."


def to_url(rest: str, endpoint: str) -> httpx.URL:
    """Where the file lies. Raises ValueError."""
    match = _LOCATION.fullmatch(rest)
    if match is None:
        raise ValueError(f"An hf: reference names an owner, a repository and a file. {EXAMPLE}")
    datasets, repository, revision, path = match.groups()
    segments = path.split("/")
    if not all(map(is_plain_segment, segments)):
        raise ValueError("The path of an hf: reference has an empty segment, '.', '..' or a character that cannot be printed.")
    place = "/".join([quote(revision or DEFAULT_REVISION, safe=""), *(quote(segment, safe="") for segment in segments)])
    return httpx.URL(f"{endpoint.rstrip('/')}/{datasets or ''}{repository}/resolve/{place}")


def is_plain_segment(segment: str) -> bool:
    return segment not in {"", ".", ".."} and segment.isprintable()
