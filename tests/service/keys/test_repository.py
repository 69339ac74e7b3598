"""The keys' table on both databases."""

from datetime import timedelta

import pytest
from sqlalchemy import Engine, select, text

from service.jobs.clock import utc_now
from service.jobs.quotas.quota import Quotas
from service.jobs.tables import api_keys
from service.keys.key import ApiKey, Scope, draw_key
from service.keys.repository import KeyRepository

DAY = timedelta(days=1)


@pytest.fixture
def keys(engine: Engine) -> KeyRepository:
    return KeyRepository(engine)


def a_key(**values: object) -> ApiKey:
    drawn = draw_key()
    given = {"id": drawn.id, "owner": "alice", "name": "ci", "scope": Scope.SUBMIT, "secret_sha256": drawn.digest, "created_at": utc_now()}
    return ApiKey(**given | values)  # type: ignore[arg-type]


def test_a_key_comes_back_as_it_went_in(keys: KeyRepository) -> None:
    plain, full = a_key(), a_key(quotas=Quotas(0, 1, 2**40, 2**41), expires_at=utc_now() + DAY, scope=Scope.ADMIN, owner="bob")
    for key in (plain, full):
        keys.insert(key)
    assert [keys.find(plain.id), keys.find(full.id), keys.find("x")] == [plain, full, None]
    assert keys.list_all() == [plain, full]


def test_the_secret_is_in_no_column(engine: Engine, keys: KeyRepository) -> None:
    drawn = draw_key()
    keys.insert(a_key(id=drawn.id, secret_sha256=drawn.digest))
    with engine.connect() as connection:
        row = str(connection.execute(select(api_keys)).one())
    assert drawn.digest in row
    assert drawn.secret not in row


def test_a_key_is_revoked_once(keys: KeyRepository) -> None:
    key = a_key()
    keys.insert(key)
    first = keys.revoke(key.id)
    assert first is not None
    assert first.revoked_at is not None
    assert first.state(utc_now()) == "revoked"
    assert keys.revoke(key.id) == first
    assert keys.revoke("x") is None


def test_only_a_key_that_lets_somebody_in_is_a_valid_one(engine: Engine, keys: KeyRepository) -> None:
    assert not keys.has_valid()
    expired, revoked = a_key(expires_at=utc_now() - DAY), a_key(revoked_at=utc_now())
    for key in (expired, revoked):
        keys.insert(key)
    assert not keys.has_valid()
    valid = [a_key(), a_key(expires_at=utc_now() + DAY)]
    for key in valid:
        keys.insert(key)
        assert keys.has_valid()
        keys.revoke(key.id)
    assert not keys.has_valid()
    with engine.begin() as connection:
        assert connection.execute(text("SELECT count(*) FROM api_keys")).scalar_one() == 4
