"""Endpoints and deliveries in both databases: the outbox, claims, leases, fences, endings."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from pydantic import ValidationError
from sqlalchemy import event, inspect, text
from sqlalchemy.exc import IntegrityError

from compressor.errors import Diverged
from compressor.protocol import Progress
from service.jobs.clock import utc_now
from service.jobs.events.event import status_event
from service.jobs.states import Status
from service.webhooks.deliveries.delivery import Claim, Outcome
from service.webhooks.deliveries.repository import KEPT_S, queue_news
from service.webhooks.endpoint import DEFAULT_EVENTS, EVENT_NAMES, FAILING_AFTER, MAX_ENDPOINTS, ROTATION
from service.webhooks.message import JobNews, WebhookMessage, event_name
from tests.service.webhooks.scene import Scene

URL = "https://example.org/hook"
SERVER_ERROR = Outcome(status=500)
DELIVERED = Outcome(status=200)


def claim(scene: Scene, lease_s: float = 60.0) -> Claim:
    claimed = scene.deliveries.claim_next(lease_s)
    assert claimed is not None
    return claimed


def test_every_status_has_its_event_and_the_ends_are_the_default() -> None:
    assert {event_name(status) for status in Status} == set(EVENT_NAMES)
    assert set(DEFAULT_EVENTS) == {"job.succeeded", "job.failed", "job.failed_gate", "job.cancelled"}


def test_a_run_is_told_from_its_beginning_to_its_end(scene: Scene) -> None:
    every, ends = scene.endpoint(URL), scene.endpoint(URL, DEFAULT_EVENTS)
    job = scene.job()
    assert scene.jobs.claim_next(60, home="h", process="p") is not None
    progress = Progress(phase="fit", progress=0.5)
    assert scene.jobs.update_progress(job.id, 1, progress, "", [status_event(Status.RUNNING)])
    problem = Diverged("The loss is not finite.", suggestion="Lower the learning rate.").to_problem()
    assert scene.jobs.finish(job.id, 1, Status.FAILED, error=problem)
    told = [WebhookMessage.model_validate_json(delivery.body) for delivery in reversed(scene.pages(every))]
    assert [message.type for message in told] == ["job.queued", "job.validating", "job.running", "job.failed"]
    news = [message.data for message in told]
    assert all(isinstance(data, JobNews) for data in news)
    assert [data.event_id for data in news if isinstance(data, JobNews)] == [1, 2, 3, 4]
    (end,) = scene.pages(ends)
    assert (end.type, end.job_id, end.event_id, end.status, end.attempts) == ("job.failed", job.id, 4, "pending", 0)
    data = WebhookMessage.model_validate_json(end.body).data
    assert isinstance(data, JobNews)
    assert (data.id, data.kind, data.status, data.code, data.links.self) == (job.id, "compress", "failed", "diverged", f"/v1/jobs/{job.id}")
    assert len(end.body) < 1000
    assert len({delivery.id for delivery in [*scene.pages(every), end]}) == 5


def test_nobody_elses_and_nothing_disabled_is_told(scene: Scene) -> None:
    other, off = scene.endpoint(URL, owner="other"), scene.endpoint(URL)
    assert scene.endpoints.change("local", off.id, {"enabled": False}) is not None
    scene.cancel(scene.job())
    assert scene.pages(other) == scene.pages(off) == []


def test_a_job_and_its_message_are_written_both_or_neither(scene: Scene) -> None:
    endpoint = scene.endpoint(URL)
    job = scene.job()
    with pytest.raises(IntegrityError):
        scene.jobs.insert(job)
    assert len(scene.pages(endpoint)) == 1

    def fail(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if "webhook_deliveries" in statement and statement.startswith("INSERT"):
            raise RuntimeError("the disk is full")

    event.listen(scene.engine, "before_cursor_execute", fail)
    with pytest.raises(RuntimeError):
        scene.jobs.request_cancel(job.id)
    event.remove(scene.engine, "before_cursor_execute", fail)
    found = scene.jobs.get(job.id)
    assert found is not None
    assert found.status is Status.QUEUED


def test_a_delivery_is_claimed_once_and_by_who_comes_later_when_the_lease_has_ended(scene: Scene) -> None:
    endpoint = scene.endpoint(URL, ("job.queued",))
    scene.job()
    first = claim(scene, lease_s=-1)
    second = claim(scene)
    assert (second.delivery.id, second.delivery.fence, second.endpoint.id) == (first.delivery.id, 2, endpoint.id)
    assert scene.deliveries.claim_next(60) is None
    assert not scene.deliveries.settle(first, DELIVERED, None)
    assert not scene.deliveries.release(first)
    assert scene.deliveries.settle(second, DELIVERED, None)
    assert not scene.deliveries.settle(second, SERVER_ERROR, 5)
    assert scene.read(endpoint).failing_since is None
    (delivery,) = scene.pages(endpoint)
    assert (delivery.status, delivery.attempts, delivery.last_status, delivery.next_attempt_at) == ("delivered", 1, 200, None)
    assert delivery.finished_at is not None


def test_a_released_delivery_is_due_at_once_and_has_lost_nothing(scene: Scene) -> None:
    scene.endpoint(URL, ("job.queued",))
    scene.job()
    assert scene.deliveries.release(claim(scene))
    assert claim(scene).delivery.attempts == 0


def test_busy_webhooks_are_left_out(scene: Scene) -> None:
    slow, other = scene.endpoint(URL, ("job.queued",)), scene.endpoint(URL, ("job.cancelled",))
    scene.cancel(scene.job())
    found = scene.deliveries.claim_next(60, [slow.id])
    assert found is not None
    assert found.endpoint.id == other.id
    assert scene.deliveries.claim_next(60, [slow.id]) is None


def test_the_one_that_is_due_for_longest_comes_first(timed: Scene) -> None:
    timed.endpoint(URL, ("job.queued",))
    first, second = timed.job(), timed.job()
    claimed = claim(timed)
    assert claimed.delivery.job_id == first.id
    assert timed.deliveries.settle(claimed, SERVER_ERROR, 5)
    timed.wait(10)
    assert [claim(timed).delivery.job_id for _ in range(2)] == [second.id, first.id]


def test_what_is_disabled_ends_and_what_comes_later_is_not_sent(scene: Scene) -> None:
    endpoint = scene.endpoint(URL)
    job = scene.job()
    under_way = claim(scene)
    scene.jobs.request_cancel(job.id)
    changed = scene.endpoints.change("local", endpoint.id, {"enabled": False})
    assert changed is not None
    assert {(page.status, page.last_error) for page in scene.pages(endpoint)} == {("failed", "webhook_disabled")}
    assert not scene.deliveries.settle(under_way, SERVER_ERROR, 5)
    # One that was written in the moment in which the webhook was disabled.
    scene.deliveries.queue_sample(endpoint)
    assert scene.deliveries.claim_next(60) is None
    assert scene.pages(endpoint)[0].last_error == "webhook_disabled"
    assert scene.endpoints.change("local", endpoint.id, {"enabled": True}) is not None
    scene.job()
    assert claim(scene).delivery.type == "job.queued"


def test_410_disables_at_once(scene: Scene) -> None:
    endpoint = scene.endpoint(URL)
    scene.cancel(scene.job())
    assert scene.deliveries.settle(claim(scene), Outcome(status=410), None)
    disabled = scene.read(endpoint)
    assert (disabled.enabled, disabled.disabled_reason) == (False, "gone")
    assert [(page.status, page.last_status, page.last_error) for page in reversed(scene.pages(endpoint))] == [
        ("failed", 410, None),
        ("failed", None, "webhook_disabled"),
    ]


def test_five_days_without_success_disable(timed: Scene) -> None:
    endpoint = timed.endpoint(URL, ("job.queued",))

    def attempt(outcome: Outcome) -> None:
        timed.job()
        assert timed.deliveries.settle(claim(timed), outcome, None)

    attempt(SERVER_ERROR)
    assert timed.read(endpoint).failing_since == timed.now
    timed.wait(FAILING_AFTER.total_seconds() - 1)
    attempt(Outcome(error="timeout"))
    attempt(DELIVERED)
    assert timed.read(endpoint).failing_since is None
    attempt(SERVER_ERROR)
    timed.wait(FAILING_AFTER.total_seconds() - 1)
    attempt(SERVER_ERROR)
    assert timed.read(endpoint).enabled
    timed.wait(1)
    attempt(SERVER_ERROR)
    assert (timed.read(endpoint).enabled, timed.read(endpoint).disabled_reason) == (False, "failing")
    again = timed.endpoints.change("local", endpoint.id, {"enabled": True})
    assert again is not None
    assert (again.enabled, again.disabled_reason, again.failing_since) == (True, None, None)


def test_a_new_address_has_not_failed_yet(scene: Scene) -> None:
    endpoint = scene.endpoint(URL, ("job.queued",))
    scene.job()
    assert scene.deliveries.settle(claim(scene), SERVER_ERROR, 0)
    assert scene.read(endpoint).failing_since is not None
    changed = scene.endpoints.change("local", endpoint.id, {"url": "https://example.org/new"})
    assert changed is not None
    assert (changed.url, changed.failing_since) == ("https://example.org/new", None)
    assert claim(scene).endpoint.url == "https://example.org/new"


def test_rotation_keeps_the_secret_before(timed: Scene) -> None:
    endpoint = timed.endpoint(URL)
    rotated = timed.endpoints.rotate("local", endpoint.id)
    assert rotated is not None
    assert rotated.old_secret == endpoint.secret != rotated.secret
    assert rotated.old_secret_until == timed.now + ROTATION
    twice = timed.endpoints.rotate("local", endpoint.id)
    assert twice is not None
    assert twice.old_secret == rotated.secret


def test_anothers_webhook_is_none(scene: Scene) -> None:
    endpoint = scene.endpoint(URL)
    assert scene.endpoints.get("other", endpoint.id) is None
    assert scene.endpoints.change("other", endpoint.id, {"enabled": False}) is None
    assert scene.endpoints.rotate("other", endpoint.id) is None
    assert not scene.endpoints.delete("other", endpoint.id)
    assert scene.endpoints.list_all("other") == []
    assert scene.endpoints.list_all("local") == [endpoint] == [scene.read(endpoint)]


def test_deleted_with_all_that_was_to_be_sent(scene: Scene) -> None:
    endpoint = scene.endpoint(URL)
    scene.job()
    under_way = claim(scene)
    assert scene.endpoints.delete("local", endpoint.id)
    assert not scene.endpoints.delete("local", endpoint.id)
    assert scene.pages(endpoint) == []
    assert not scene.deliveries.settle(under_way, DELIVERED, None)
    # One that was written in the moment in which the webhook went away.
    scene.deliveries.queue_sample(endpoint)
    assert scene.deliveries.claim_next(60) is None


def test_an_owner_has_so_many_and_no_more(scene: Scene) -> None:
    for _ in range(MAX_ENDPOINTS):
        scene.endpoint(URL)
    extra = scene.read(scene.endpoints.list_all("local")[0]).model_copy(update={"id": "whk_extra"})
    assert not scene.endpoints.insert(extra)
    assert len(scene.endpoints.list_all("local")) == MAX_ENDPOINTS
    scene.endpoint(URL, owner="other")


def test_old_deliveries_are_swept_and_open_ones_never(timed: Scene) -> None:
    endpoint = timed.endpoint(URL, ("job.queued",))
    timed.job()
    assert timed.deliveries.settle(claim(timed), DELIVERED, None)
    timed.job()
    timed.wait(KEPT_S - 60)
    assert timed.deliveries.sweep() == 0
    timed.wait(61)
    assert timed.deliveries.sweep() == 1
    assert [page.status for page in timed.pages(endpoint)] == ["pending"]


def test_an_event_is_queued_once_for_each_webhook(scene: Scene) -> None:
    scene.endpoint(URL)
    job = scene.job()
    with pytest.raises(IntegrityError), scene.engine.begin() as connection:
        queue_news(connection, job.id, [(1, status_event(Status.QUEUED))])


def test_a_row_that_cannot_be_read_holds_up_no_other(scene: Scene) -> None:
    endpoint = scene.endpoint(URL, ("job.queued",))
    scene.job()
    with scene.engine.begin() as connection:
        connection.execute(text("UPDATE webhook_deliveries SET last_error = 'of a later version'"))
    good = scene.deliveries.queue_sample(endpoint)
    scene.now = utc_now()
    with pytest.raises(ValidationError):
        scene.deliveries.claim_next(60)
    assert claim(scene).delivery.id == good.id


def test_pages(scene: Scene) -> None:
    endpoint = scene.endpoint(URL, ("job.queued",))
    for _ in range(5):
        scene.job()
    every = scene.pages(endpoint)
    assert [page.id for page in every] == sorted((page.id for page in every), reverse=True)
    assert scene.deliveries.page(endpoint.id, 2) == every[:2]
    assert scene.deliveries.page(endpoint.id, 9, every[1].id) == every[2:]


def test_many_claim_at_once_and_each_delivery_is_claimed_once(scene: Scene) -> None:
    for _ in range(3):
        scene.endpoint(URL, ("job.queued",))
    for _ in range(20):
        scene.job()

    def take_all(_: int) -> list[str]:
        taken = []
        while claimed := scene.deliveries.claim_next(60):
            taken.append(claimed.delivery.id)
        return taken

    with ThreadPoolExecutor(4) as pool:
        ids = [message_id for taken in pool.map(take_all, range(4)) for message_id in taken]
    # Of PostgreSQL, who finds the one row locked goes away empty, and another takes the rest.
    assert len(ids) == len(set(ids)) == 60


def test_a_claim_reads_only_what_is_open(timed: Scene) -> None:
    statements: list[str] = []
    event.listen(timed.engine, "before_cursor_execute", lambda _c, _cursor, statement, *_: statements.append(statement))
    timed.endpoint(URL)
    timed.job()
    claim(timed)
    (update,) = [statement for statement in statements if statement.startswith("UPDATE")]
    with timed.engine.connect() as connection:
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {update}", tuple("x" for _ in range(update.count("?")))).all()
    assert any("ix_webhook_deliveries_pending" in row[3] for row in plan), plan
    assert not any("TEMP B-TREE" in row[3] for row in plan), plan


def test_no_error_of_the_database_shows_a_secret(scene: Scene) -> None:
    endpoint = scene.endpoint(URL)
    with pytest.raises(IntegrityError) as error:
        scene.endpoints.insert(endpoint)
    assert endpoint.secret.get_secret_value() not in f"{error.value} {error.value.orig}"
    with scene.engine.connect() as connection:
        stored = connection.execute(text("SELECT secret FROM webhooks")).scalar_one()
    assert stored == endpoint.secret.get_secret_value()


def test_every_row_has_an_owner(scene: Scene) -> None:
    columns = {
        table: {column["name"] for column in inspect(scene.engine).get_columns(table)} for table in ("webhooks", "webhook_deliveries")
    }
    assert all("owner" in names for names in columns.values())
    scene.endpoint(URL)
    scene.job()
    assert claim(scene).delivery.owner == "local"
