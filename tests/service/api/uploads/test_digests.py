"""Expected digests as clients write them in the fields of RFC 9530."""

import base64
from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from service.api.problems import InvalidRequest
from service.api.uploads.digests import read_digest_field


@given(
    digest=st.binary(min_size=32, max_size=32),
    before=st.sampled_from(["", "md5=:AAAA:, ", "sha-512=:a/b=:,"]),
    name=st.sampled_from(["sha-256", "SHA-256"]),
)
def test_a_field_with_a_sha256_gives_it(digest: bytes, before: str, name: str) -> None:
    field = f"{before}{name}=:{base64.b64encode(digest).decode()}:"
    assert read_digest_field("Repr-Digest", field) == digest.hex()
    assert read_digest_field("Repr-Digest", f"{field}, unixsum=:AA==:") == digest.hex()


@given(field=st.text(alphabet="sha-256=:,;AZaz09+/ ", max_size=80))
def test_any_field_is_read_or_refused(field: str) -> None:
    digest = None
    with suppress(InvalidRequest):
        digest = read_digest_field("Content-Digest", field)
    assert digest is None or len(digest) == 64


def test_a_digest_of_another_algorithm_is_not_asked_for() -> None:
    assert read_digest_field("Repr-Digest", "sha-512=:AAAA:") is None
    assert read_digest_field("Repr-Digest", "x-sha-256=:AAAA:") is None
    assert read_digest_field("Repr-Digest", "") is None
