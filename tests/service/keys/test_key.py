"""Keys as texts and values: what is one, what it may, and that no representation of it has its secret."""

import hashlib
import re
from dataclasses import asdict
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.jobs.clock import utc_now
from service.jobs.quotas.quota import Quotas
from service.keys.key import ApiKey, Scope, draw_key, is_owner, parse_key

NOW = utc_now()
LIMITS = st.none() | st.integers(0, 10)
QUOTAS = st.builds(Quotas, LIMITS, LIMITS, LIMITS, LIMITS)


def test_a_key_is_read_as_it_was_shown() -> None:
    drawn = {draw_key() for _ in range(50)}
    assert len({key.secret for key in drawn}) == len({key.id for key in drawn}) == 50
    for key in drawn:
        assert re.fullmatch("bp_[0-9a-f]{16}_[0-9a-f]{64}", key.reveal())
        assert parse_key(key.reveal()) == key
        assert key.digest == hashlib.sha256(key.reveal()[-64:].encode()).hexdigest()


@given(st.text())
def test_nothing_else_is_a_key(text: str) -> None:
    key = draw_key().reveal()
    assert parse_key(text) is None
    for changed in (f"{key}{text}", f"{text}{key}", f"{key[:30]}{text}{key[30:]}"):
        assert (parse_key(changed) is None) == (changed != key)


@pytest.mark.parametrize("changed", [str.upper, lambda key: key[:-1], lambda key: f"{key}\n", lambda key: key.replace("a", "\u0661")])
def test_what_is_almost_one_is_none(changed: object) -> None:
    assert callable(changed)
    assert parse_key(changed("bp_" + "a" * 16 + "_" + "a" * 64)) is None


def test_no_representation_has_the_secret_or_its_digest() -> None:
    text = draw_key()
    key = ApiKey(text.id, "alice", "", Scope.READ, text.digest, NOW)
    for shown in (repr(text), str(text), repr(key), str(key)):
        assert text.id in shown
        assert text.secret not in shown
        assert text.digest not in shown


def test_each_scope_may_what_the_one_before_may() -> None:
    order = [Scope.READ, Scope.SUBMIT, Scope.ADMIN]
    assert list(Scope) == order
    assert [[scope.covers(needed) for needed in order] for scope in order] == [[True, False, False], [True, True, False], [True] * 3]


def test_a_key_ends_on_the_moment() -> None:
    key = ApiKey("a", "alice", "", Scope.READ, "", NOW)
    assert [key.state(NOW), ApiKey(**vars(key) | {"revoked_at": NOW}).state(NOW)] == ["valid", "revoked"]
    expiring = ApiKey(**vars(key) | {"expires_at": NOW})
    assert [expiring.state(NOW - timedelta(microseconds=1)), expiring.state(NOW)] == ["valid", "expired"]


@given(QUOTAS, QUOTAS)
def test_a_key_goes_before_the_defaults_but_no_upload_beyond_them(own: Quotas, defaults: Quotas) -> None:
    found = asdict(own.over(defaults))
    uploads = [size for size in (own.max_upload_bytes, defaults.max_upload_bytes) if size is not None]
    assert found.pop("max_upload_bytes") == min(uploads, default=None)
    assert found == {name: limit if (limit := getattr(own, name)) is not None else getattr(defaults, name) for name in found}


@pytest.mark.parametrize(("name", "expected"), [("alice", True), ("team-a.b@c_d", True), ("", False), ("a b", False), ("-a", False)])
def test_names_of_owners(name: str, expected: bool) -> None:
    assert is_owner(name) is expected
    assert not is_owner(f"{name}\n")
    assert not is_owner("a" * 65)
