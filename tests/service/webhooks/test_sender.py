"""The sender against a real receiver: retries over restarts, refusals, patience, fairness, shutdown, two at once."""

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from service.fetching.client import guarded_client
from service.webhooks.attempt import attempt
from service.webhooks.deliveries.delivery import Claim, Outcome
from service.webhooks.deliveries.repository import DeliveryRepository
from service.webhooks.endpoint import FAILING_AFTER, ROTATION, Endpoint
from service.webhooks.schedule import JITTER, SCHEDULE_S
from service.webhooks.sender import AT_ONCE_PER_WEBHOOK, LEASE_S, Sender
from tests.service.webhooks.receiver import Answer, Received, Receiver
from tests.service.webhooks.scene import Scene
from tests.service.worker.workplace import wait_until


def is_signed(received: Received, secret: str) -> bool:
    """The package's own check asks the real clock how old a message is, so where ours runs ahead its signature is compared."""
    sent_at = datetime.fromtimestamp(int(received.headers["webhook-timestamp"]), UTC)
    return Webhook(secret).sign(received.id, sent_at, received.body.decode()) in received.headers["webhook-signature"].split(" ")


def secret_of(endpoint: Endpoint) -> str:
    return endpoint.secret.get_secret_value()


def test_five_failures_each_with_a_restart_then_one_delivery(timed: Scene, receiver: Receiver) -> None:
    receiver.answer = lambda received: Answer(500 if received.times <= 5 else 204)
    endpoint = timed.endpoint(receiver.url, ("job.queued",))
    job = timed.job()
    sent_at = []
    for failed in range(1, 6):
        sent_at.append(int(timed.now.timestamp()))
        timed.send_due([receiver.host])
        (delivery,) = timed.pages(endpoint)
        assert (delivery.status, delivery.attempts, delivery.last_status) == ("pending", failed, 500)
        assert delivery.next_attempt_at is not None
        delay_s = (delivery.next_attempt_at - timed.now).total_seconds()
        assert JITTER[0] <= delay_s / SCHEDULE_S[failed - 1] <= JITTER[1]
        # A restart draws no other time, and sends nothing before it.
        timed.now = delivery.next_attempt_at - timedelta(microseconds=1)
        timed.send_due([receiver.host])
        assert timed.pages(endpoint) == [delivery]
        timed.wait(1e-6)
    sent_at.append(int(timed.now.timestamp()))
    timed.send_due([receiver.host])
    timed.wait(10 * 86400)
    timed.send_due([receiver.host])
    (delivery,) = timed.pages(endpoint)
    assert (delivery.status, delivery.attempts, delivery.last_status) == ("delivered", 6, 204)
    assert receiver.taken == [delivery.id]
    assert {received.id for received in receiver.received} == {delivery.id}
    assert len({received.body for received in receiver.received}) == 1
    assert [int(received.headers["webhook-timestamp"]) for received in receiver.received] == sent_at
    assert all(is_signed(received, secret_of(endpoint)) for received in receiver.received)
    first = receiver.received[0]
    message = Webhook(secret_of(endpoint)).verify(first.body, dict(first.headers))
    assert (message["type"], message["data"]["id"]) == ("job.queued", job.id)
    assert first.headers["content-type"] == "application/json"
    assert timed.read(endpoint).failing_since is None


def test_after_the_last_attempt_it_is_given_up(timed: Scene, receiver: Receiver) -> None:
    receiver.answer = lambda _: Answer(500)
    endpoint = timed.endpoint(receiver.url, ("job.queued",))
    timed.job()
    for _ in range(len(SCHEDULE_S) + 3):
        timed.send_due([receiver.host])
        timed.wait(1.2 * max(SCHEDULE_S) if timed.read(endpoint).enabled else 0)
        timed.endpoints.change("local", endpoint.id, {"url": receiver.url})  # so that five days of failure do not end it first
    (delivery,) = timed.pages(endpoint)
    assert (delivery.status, delivery.attempts, delivery.last_status, delivery.next_attempt_at) == ("failed", 10, 500, None)
    assert len(receiver.received) == 10


def test_410_ends_it_for_good(timed: Scene, receiver: Receiver) -> None:
    receiver.answer = lambda _: Answer(410)
    endpoint = timed.endpoint(receiver.url, ("job.queued",))
    timed.job()
    timed.send_due([receiver.host])
    timed.job()
    timed.wait(86400)
    timed.send_due([receiver.host])
    assert len(receiver.received) == 1
    assert (timed.read(endpoint).enabled, timed.read(endpoint).disabled_reason) == (False, "gone")
    assert [(page.status, page.last_status) for page in timed.pages(endpoint)] == [("failed", 410)]


def test_five_days_of_failure_end_it_too(timed: Scene, receiver: Receiver) -> None:
    receiver.answer = lambda _: Answer(500)
    endpoint = timed.endpoint(receiver.url, ("job.queued",))
    timed.job()
    timed.send_due([receiver.host])
    timed.wait(FAILING_AFTER.total_seconds())
    timed.send_due([receiver.host])
    assert timed.read(endpoint).disabled_reason == "failing"


@pytest.mark.parametrize(
    ("status", "asked_s", "at_least_s", "at_most_s"),
    [(429, 3600, 3600, 3600), (503, 3600, 3600, 3600), (503, 1, 4.5, 5.5), (503, 10**7, 86400, 86400), (500, 3600, 4.5, 5.5)],
)
@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after_is_obeyed(
    timed: Scene, receiver: Receiver, status: int, asked_s: int, at_least_s: float, at_most_s: float, as_date: bool
) -> None:
    timed.now = timed.now.replace(microsecond=0)
    endpoint = timed.endpoint(receiver.url, ("job.queued",))
    timed.deliveries.queue_sample(endpoint)
    value = format_datetime(timed.now + timedelta(seconds=asked_s), usegmt=True) if as_date else str(asked_s)
    receiver.answer = lambda _: Answer(status, {"Retry-After": value})
    timed.send_due([receiver.host])
    (delivery,) = timed.pages(endpoint)
    assert delivery.next_attempt_at is not None
    assert at_least_s <= (delivery.next_attempt_at - timed.now).total_seconds() <= at_most_s


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_a_failure_and_never_followed(timed: Scene, receiver: Receiver, status: int) -> None:
    receiver.answer = lambda _: Answer(status, {"Location": f"http://{receiver.host}/elsewhere"})
    endpoint = timed.endpoint(receiver.url, ("job.queued",))
    timed.job()
    timed.send_due([receiver.host])
    assert [received.path for received in receiver.received] == ["/hook"]
    assert [(page.status, page.last_status) for page in timed.pages(endpoint)] == [("pending", status)]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_loopback_is_refused_before_anything_is_sent(timed: Scene, receiver: Receiver, host: str, scheme: str) -> None:
    endpoint = timed.endpoint(f"{scheme}://{host}:{receiver.port}/hook", ("job.queued",))
    timed.job()
    timed.send_due([])
    timed.wait(86400)
    timed.send_due([])
    assert receiver.received == []
    assert [(page.status, page.attempts, page.last_status, page.last_error) for page in timed.pages(endpoint)] == [
        ("failed", 1, None, "refused")
    ]


def test_nobody_there(timed: Scene) -> None:
    endpoint = timed.endpoint("http://127.0.0.1:9/hook", ("job.queued",))
    timed.job()
    timed.send_due(["127.0.0.1"])
    assert [(page.status, page.last_error) for page in timed.pages(endpoint)] == [("pending", "connection_failed")]


def test_both_secrets_verify_while_one_is_exchanged(timed: Scene, receiver: Receiver) -> None:
    endpoint = timed.endpoint(receiver.url, ("job.queued",))
    timed.job()
    rotated = timed.endpoints.rotate("local", endpoint.id)
    assert rotated is not None
    timed.send_due([receiver.host])
    timed.wait(ROTATION.total_seconds() + 1)
    timed.job()
    timed.send_due([receiver.host])
    during, after = receiver.received
    for secret in (secret_of(endpoint), secret_of(rotated)):
        Webhook(secret).verify(during.body, dict(during.headers))
    assert (is_signed(after, secret_of(rotated)), is_signed(after, secret_of(endpoint))) == (True, False)
    with pytest.raises(WebhookVerificationError):
        Webhook(secret_of(endpoint)).verify(after.body, dict(after.headers))


def test_two_senders_at_once_deliver_once(scene: Scene, receiver: Receiver) -> None:
    """On both databases; each sender in an event loop of its own."""
    endpoints = [scene.endpoint(receiver.url, ("job.queued", "job.cancelled")) for _ in range(4)]
    for _ in range(10):
        scene.cancel(scene.job())
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: scene.send_due([receiver.host]), range(2)))
    scene.send_due([receiver.host])
    assert Counter(receiver.taken) == {page.id: 1 for endpoint in endpoints for page in scene.pages(endpoint)}
    assert len(receiver.taken) == 80


def sending_once(scene: Scene, receiver: Receiver, timeout_s: float = 15.0) -> tuple[Claim, Outcome]:
    """Only the attempt, as if the service died before it could note the outcome."""
    claim = scene.deliveries.claim_next(LEASE_S)
    assert claim is not None

    async def send() -> Outcome:
        async with guarded_client([receiver.host]) as client:
            return await attempt(client, claim, scene.now, timeout_s)

    return claim, asyncio.run(send())


def test_a_crash_between_sending_and_noting_it_sends_the_same_id_again(timed: Scene, receiver: Receiver) -> None:
    endpoint = timed.endpoint(receiver.url, ("job.queued",))
    timed.job()
    claim, outcome = sending_once(timed, receiver)
    assert outcome == Outcome(status=204)
    timed.send_due([receiver.host])
    assert len(receiver.received) == 1
    timed.wait(LEASE_S + 1)
    timed.send_due([receiver.host])
    assert receiver.taken == [claim.delivery.id] * 2
    assert [(page.status, page.attempts) for page in timed.pages(endpoint)] == [("delivered", 1)]


def test_an_answer_that_does_not_come(timed: Scene, receiver: Receiver) -> None:
    release = threading.Event()
    receiver.answer = lambda _: Answer(204 if release.wait(30) else 500)
    timed.endpoint(receiver.url, ("job.queued",))
    timed.job()
    _, outcome = sending_once(timed, receiver, timeout_s=0.3)
    release.set()
    assert outcome == Outcome(error="timeout")


def test_what_was_answered_counts_though_the_rest_never_comes(timed: Scene, receiver: Receiver) -> None:
    release = threading.Event()

    def trickle() -> Iterator[bytes]:
        yield b"thanks"
        release.wait(30)

    receiver.answer = lambda _: Answer(200, body=trickle())
    timed.endpoint(receiver.url, ("job.queued",))
    timed.job()
    _, outcome = sending_once(timed, receiver, timeout_s=0.3)
    release.set()
    assert outcome == Outcome(status=200)


def test_a_response_without_end_is_not_read(timed: Scene, receiver: Receiver) -> None:
    sent, ended = 0, threading.Event()

    def flood() -> Iterator[bytes]:
        nonlocal sent
        try:
            while True:
                sent += 65536
                yield bytes(65536)
        finally:
            ended.set()

    receiver.answer = lambda _: Answer(200, body=flood())
    timed.endpoint(receiver.url, ("job.queued",))
    timed.job()
    _, outcome = sending_once(timed, receiver)
    assert outcome == Outcome(status=200)
    assert ended.wait(30)
    # What the buffers of two sockets hold.
    assert sent < 20_000_000


def test_a_slow_receiver_holds_up_nobody_else(timed: Scene, receiver: Receiver) -> None:
    release, under_way = threading.Event(), Counter[str]()
    most = 0

    def answer(received: Received) -> Answer:
        nonlocal most
        if received.path == "/slow":
            under_way["slow"] += 1
            most = max(most, under_way["slow"])
            release.wait(30)
            under_way["slow"] -= 1
        elif len([path for path in paths() if path == "/hook"]) == 10:
            release.set()
        return Answer()

    def paths() -> list[str]:
        return [received.path for received in receiver.received]

    receiver.answer = answer
    slow = timed.endpoint(f"http://{receiver.host}/slow", ("job.queued",))
    for _ in range(10):
        timed.deliveries.queue_sample(slow)
    fast = timed.endpoint(receiver.url, ("job.queued",))
    for _ in range(10):
        timed.deliveries.queue_sample(fast)
    timed.send_due([receiver.host])
    assert release.is_set()
    # All of the fast one's came while the slow one's first two had no answer.
    assert paths()[:12].count("/hook") == 10
    assert most == AT_ONCE_PER_WEBHOOK
    assert Counter(paths()) == {"/slow": 10, "/hook": 10}


def test_never_more_at_once_than_there_may_be(timed: Scene, receiver: Receiver) -> None:
    lock, here, most = threading.Lock(), 0, 0
    both = threading.Barrier(3)

    def answer(_: Received) -> Answer:
        nonlocal here, most
        with lock:
            here += 1
            most = max(most, here)
        both.wait(30)
        with lock:
            here -= 1
        return Answer()

    receiver.answer = answer
    for _ in range(6):
        timed.endpoint(receiver.url, ("job.queued",))
    timed.job()
    timed.send_due([receiver.host], at_once=3)
    assert (len(receiver.taken), most) == (6, 3)


def test_a_shutdown_gives_back_what_is_under_way(timed: Scene, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.webhooks.sender.GRACE_S", 0.1)
    release = threading.Event()
    receiver.answer = lambda _: Answer(204 if release.wait(30) else 500)
    endpoint = timed.endpoint(receiver.url, ("job.queued",))
    timed.job()

    async def run() -> None:
        stop = asyncio.Event()
        async with guarded_client([receiver.host]) as client:
            running = asyncio.create_task(Sender(timed.deliveries, client, clock=timed.clock).run(stop))
            await asyncio.to_thread(wait_until, lambda: receiver.received)
            stop.set()
            await running

    asyncio.run(run())
    release.set()
    (delivery,) = timed.pages(endpoint)
    assert (delivery.status, delivery.attempts, delivery.claimed_until) == ("pending", 0, None)
    timed.send_due([receiver.host])
    assert [received.times for received in receiver.received] == [1, 2]


def test_a_database_that_is_away_ends_nothing(timed: Scene, receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    endpoint = timed.endpoint(receiver.url, ("job.queued",))
    timed.job()

    class Failing(DeliveryRepository):
        failed = 0

        def claim_next(self, *args: object) -> Claim | None:
            Failing.failed += 1
            if Failing.failed == 1:
                raise RuntimeError("a bad row")
            return super().claim_next(*args)  # type: ignore[arg-type]

    async def run() -> None:
        stop = asyncio.Event()
        async with guarded_client([receiver.host]) as client:
            running = asyncio.create_task(Sender(Failing(timed.engine, timed.clock), client, clock=timed.clock).run(stop))
            await asyncio.to_thread(wait_until, lambda: timed.pages(endpoint)[0].status == "delivered")
            stop.set()
            await running

    asyncio.run(run())
    assert any("a step of the webhooks' sender failed" in record.getMessage() for record in caplog.records)


def test_what_nobody_expected_counts_as_a_failure(timed: Scene, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("not foreseen")

    monkeypatch.setattr("service.webhooks.attempt._to_outcome", fail)
    endpoint = timed.endpoint(receiver.url, ("job.queued",))
    timed.job()
    timed.send_due([receiver.host])
    assert [(page.status, page.attempts, page.last_error) for page in timed.pages(endpoint)] == [("pending", 1, "connection_failed")]


def test_every_attempt_has_a_connection_of_its_own(timed: Scene, receiver: Receiver) -> None:
    timed.endpoint(receiver.url, ("job.queued",))
    timed.job()
    timed.send_due([receiver.host])
    assert receiver.received[0].headers["connection"] == "close"


def test_no_secret_and_no_address_in_the_log(timed: Scene, receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "service")
    receiver.answer = lambda _: Answer(500)
    endpoint = timed.endpoint(f"{receiver.url}?token=of-the-client", ("job.queued",))
    timed.job()
    timed.send_due([receiver.host])
    lines = [record.getMessage() for record in caplog.records]
    assert any(endpoint.id in line and "500" in line for line in lines)
    assert not any(secret_of(endpoint)[:12] in line or "of-the-client" in line for line in lines)
