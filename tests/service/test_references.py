"""References as text: what is parsed, what is shown of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.references import REMOTE, SCHEMES, Reference, parse, to_shown

DIGEST = "0123456789abcdef" * 4


@given(
    st.sampled_from([*SCHEMES, *REMOTE]), st.text(max_size=50).filter(lambda rest: "#sha256=" not in rest), st.sampled_from([None, DIGEST])
)
def test_every_reference_comes_apart_as_it_was_put_together(scheme: str, rest: str, sha256: str | None) -> None:
    suffix = f"#sha256={sha256}" if sha256 else ""
    assert parse(f"{scheme}:{rest}{suffix}") == Reference(scheme, rest, sha256)
    assert parse(f"{scheme.upper()}:{rest}{suffix}").text == f"{scheme}:{rest}"


@given(st.text(max_size=200))
def test_any_text_is_a_reference_or_refused_with_a_sentence(text: str) -> None:
    try:
        reference = parse(text)
    except ValueError as error:
        refusal = str(error)
    else:
        refusal = "."
        assert text.lower().startswith(f"{reference.scheme}:")
    assert refusal.endswith(".")


@pytest.mark.parametrize("text", ["", "model.onnx", f"file:/a#sha256={DIGEST[1:]}", f"file:/a#sha256={DIGEST}0",
                                  f"file:/a#sha256={DIGEST}\n", "file:/a#sha256=" + "g" * 64, "x:" + "a" * 5000])  # fmt: skip
def test_what_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\.$"):
        parse(text)


def test_a_digest_is_read_in_either_case_and_only_the_last_mark_counts() -> None:
    assert parse(f"https://h/a#sha256={DIGEST.upper()}").sha256 == DIGEST
    assert parse(f"file:/a#b#sha256={DIGEST}") == Reference("file", "/a#b", DIGEST)
    assert parse("file:/a#b") == Reference("file", "/a#b")


def test_queries_of_urls_are_not_shown() -> None:
    assert to_shown("https://h/a?X-Amz-Signature=secret") == "https://h/a?…"
    assert to_shown("https://h/a") == "https://h/a"
    assert to_shown("s3://bucket/what?") == "s3://bucket/what?"
