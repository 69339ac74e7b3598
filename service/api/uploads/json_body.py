"""An `application/json` body as the events of a form with the same parts, so that both are checked by the same code."""

import json
from collections.abc import Iterator

from service.api.problems import InvalidJson, InvalidRequest, UnknownPart
from service.api.uploads.multipart import Event, PartEnd, PartStart

MEDIA_TYPE = "application/json"
MAX_BODY_BYTES = 256 * 1024
# Parts that are objects; all others are texts.
OBJECTS = ("config", "metadata")
FILES = ("model", "dataset", "validation", "test")
_SUGGESTION = 'For example {"model_ref": "file:/data/model.onnx", "dataset_ref": "builtin:digits"}.'


def to_events(body: bytes) -> Iterator[Event]:
    """A member that is null counts as absent. Raises InvalidJson, InvalidRequest or UnknownPart."""
    for name, value in _parse(body).items():
        if value is None:
            continue
        if name in FILES:
            detail = f"A JSON body carries no file, and {name!r} is one."
            raise UnknownPart(detail, param=name, suggestion=f"Name it with {name}_ref, or send a form (multipart/form-data).")
        yield PartStart(name, None)
        yield _to_text(name, value)
        yield PartEnd()


def _parse(body: bytes) -> dict[str, object]:
    try:
        members = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidJson(f"The body is not valid JSON: {error}.", param="body", suggestion=_SUGGESTION) from None
    if not isinstance(members, dict):
        raise InvalidJson("The body is not a JSON object.", param="body", suggestion=_SUGGESTION)
    return members


def _to_text(name: str, value: object) -> bytes:
    if name in OBJECTS:
        return json.dumps(value).encode()
    if not isinstance(value, str):
        raise _no_text(name)
    try:
        return value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        raise _no_text(name) from None


def _no_text(name: str) -> InvalidRequest:
    return InvalidRequest(f"{name[:80]!a} is not a text.", param=name[:80], suggestion=_SUGGESTION)
