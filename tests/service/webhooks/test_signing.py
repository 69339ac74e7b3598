"""Signatures against the package `standardwebhooks`, and against the specification's own example."""

import base64
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from standardwebhooks import Webhook, WebhookVerificationError

from service.jobs.clock import utc_now
from service.webhooks.endpoint import ROTATION, Endpoint, new_endpoint
from service.webhooks.signing import PREFIX, new_secret, sign, signed_headers

SECRETS = st.binary(min_size=24, max_size=64).map(lambda key: PREFIX + base64.b64encode(key).decode())
IDS = st.text(st.characters(codec="ascii", categories=["L", "N"], include_characters="_-"), min_size=1)


@given(SECRETS, IDS, st.text(st.characters(codec="utf-8")))
def test_the_package_verifies_what_we_sign(secret: str, message_id: str, body: str) -> None:
    now = utc_now()
    headers = signed_headers([secret], message_id, now, body.encode())
    Webhook(secret).verify(body.encode(), headers, json_parse=False)
    assert headers["webhook-signature"] == Webhook(secret).sign(message_id, now, body)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(body.encode() + b" ", headers, json_parse=False)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(body.encode(), headers | {"webhook-id": message_id + "0"}, json_parse=False)


@given(st.lists(SECRETS, min_size=2, max_size=2, unique=True), st.binary().map(lambda raw: raw.hex()))
def test_each_of_two_secrets_verifies(secrets: list[str], body: str) -> None:
    headers = signed_headers(secrets, "msg_1", utc_now(), body.encode())
    for secret in secrets:
        Webhook(secret).verify(body, headers, json_parse=False)
    with pytest.raises(WebhookVerificationError):
        Webhook(new_secret()).verify(body, headers, json_parse=False)


def test_the_example_of_the_specification() -> None:
    # spec/standard-webhooks.md of version 1.0.0, "Verifying signatures".
    secret, body = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", b'{"test": 2432232314}'
    assert sign(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body) == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_secrets_have_the_length_that_the_specification_asks_for_and_never_repeat() -> None:
    secrets = {new_secret() for _ in range(100)}
    assert len(secrets) == 100
    for secret in secrets:
        assert 24 <= len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) <= 64


def test_the_old_secret_signs_until_its_end() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    endpoint = new_endpoint("local", "https://example.org", ("job.failed",), None, now)
    rotated = Endpoint.model_validate({**dict(endpoint), "old_secret": SecretStr("whsec_b2xk"), "old_secret_until": now + ROTATION})
    new = endpoint.secret.get_secret_value()
    assert rotated.signing_secrets(now) == [new, "whsec_b2xk"]
    assert rotated.signing_secrets(now + ROTATION - timedelta(seconds=1)) == [new, "whsec_b2xk"]
    assert rotated.signing_secrets(now + ROTATION) == [new]
    assert "b2xk" not in repr(rotated)
    assert new not in repr(rotated)
