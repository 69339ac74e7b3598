"""`metadata`: what a client notes about its job, to find it again by."""

import json
import re

from service.api.problems import InvalidMetadata

METADATA = "metadata"
MAX_PAIRS = 16
MAX_VALUE_CHARACTERS = 512
# A key also stands in a query, and in the databases' paths into JSON.
KEY = re.compile(r"[A-Za-z0-9_.:/-]{1,64}")
RULE = (
    f"At most {MAX_PAIRS} pairs of texts: keys of 1 to 64 letters, digits and _ . : / -, values of at most {MAX_VALUE_CHARACTERS} "
    "printable characters."
)


def parse_metadata(text: str) -> dict[str, str]:
    """The pairs of a JSON object. Raises InvalidMetadata."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _refusal(f"The metadata are not valid JSON: {error}.", METADATA) from None
    if not isinstance(values, dict):
        raise _refusal("The metadata are not a JSON object.", METADATA)
    if len(values) > MAX_PAIRS:
        raise _refusal(f"The metadata have {len(values)} pairs.", METADATA)
    for key, value in values.items():
        if not KEY.fullmatch(key):
            raise _refusal(f"{key[:80]!a} cannot be a key of metadata.", METADATA)
        if not isinstance(value, str) or len(value) > MAX_VALUE_CHARACTERS or not value.isprintable():
            raise _refusal(
                f"The value of {key!r} is not a text of at most {MAX_VALUE_CHARACTERS} printable characters.", f"{METADATA}.{key}"
            )
    return values


def _refusal(detail: str, param: str) -> InvalidMetadata:
    return InvalidMetadata(detail, param=param, suggestion=f'{RULE} For example {{"project": "demo"}}.')
