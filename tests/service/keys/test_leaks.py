"""Keys are found wherever they stand in a text, parts of them too; nothing else is taken for one."""

from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.jobs.job import new_job_id
from service.keys.key import draw_key
from service.keys.leaks import LeakFinder

ADMIN_KEY = "Adm1n/+=" * 5


@given(st.text(max_size=40), st.text(max_size=40), st.integers(21, 84))
def test_a_key_is_found_anywhere_and_from_the_first_digit_of_its_secret_on(before: str, after: str, length: int) -> None:
    key = draw_key().reveal()
    for finder in (LeakFinder(None), LeakFinder(ADMIN_KEY)):
        assert finder.is_in(f"{before}{key[:length]}{after}")
        assert finder.is_in(f"{before}{key.upper()}{after}")
    assert LeakFinder(ADMIN_KEY).is_in(f"{before}{ADMIN_KEY}{after}")
    assert not LeakFinder(None).is_in(ADMIN_KEY)


@given(st.text(max_size=20), st.booleans(), st.booleans())
def test_a_key_is_found_in_an_address_however_it_is_written(around: str, encoded: bool, own: bool) -> None:
    key = draw_key().reveal() if own else ADMIN_KEY
    written = quote(key, safe="") if encoded else key
    for address in (f"/{quote(around)}{written}/{quote(around)}", f"a={quote_plus(around)}&k={written}&b={quote_plus(around)}"):
        assert LeakFinder(ADMIN_KEY).is_in_address(address)


@given(st.text())
def test_no_other_text_is_taken_for_one(text: str) -> None:
    assert not LeakFinder(ADMIN_KEY).is_in(text)


ORDINARY = ["", "/v1/jobs", f"/v1/jobs/{new_job_id()}/artifacts/model.onnx", draw_key().id, ADMIN_KEY[:-1]]


@pytest.mark.parametrize("text", ORDINARY, ids=["nothing", "path", "path of a job", "id of a key", "part of a key"])
def test_ordinary_addresses_have_none(text: str) -> None:
    assert not LeakFinder(ADMIN_KEY).is_in(text)
