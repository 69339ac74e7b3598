"""Expected digests as clients write them: behind a reference, and in the fields of RFC 9530."""

import base64
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api.problems import ApiError, InvalidDatasetRef, InvalidModelRef, InvalidRequest
from service.api.uploads.digests import read_digest_field, split_digest


@given(reference=st.text(max_size=60), digest=st.binary(min_size=32, max_size=32), upper=st.booleans())
def test_what_is_written_behind_a_reference_is_read(reference: str, digest: bytes, upper: bool) -> None:
    written = digest.hex().upper() if upper else digest.hex()
    assert split_digest(f"{reference}#sha256={written}", "dataset_ref") == (reference, digest.hex())


@given(text=st.text(max_size=200))
def test_any_text_is_a_reference_or_refused(text: str) -> None:
    if "#sha256=" not in text:
        assert split_digest(text, "model_ref") == (text, None)
        return
    with pytest.raises(InvalidModelRef):
        split_digest(text, "model_ref")


@pytest.mark.parametrize("end", ["#sha256=", "#sha256=ab", f"#sha256={'g' * 64}", f"#sha256={'0' * 65}", f"#sha256={'0' * 64} "])
@pytest.mark.parametrize(("param", "refusal"), [("model_ref", InvalidModelRef), ("test_ref", InvalidDatasetRef)])
def test_what_is_no_digest_is_refused(end: str, param: str, refusal: type[ApiError]) -> None:
    with pytest.raises(refusal) as refused:
        split_digest(f"file:/a{end}", param)
    assert refused.value.param == param


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
