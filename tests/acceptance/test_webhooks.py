"""The real service and a real receiver: failures with a kill -9 in between, and every message delivered once."""

from collections import Counter
from pathlib import Path
from typing import Any

from tests.acceptance.digits_model import digits_model
from tests.acceptance.served import Served, served
from tests.architecture.readme_tables import README, block
from tests.service.webhooks.receiver import Answer, Received, receiving
from tests.service.worker.workplace import wait_until

FAILURES = 5
# The third pause leaves time for a kill.
SCHEDULE = "0.1,0.1,4,0.1,0.1"


def deliveries(service: Served, webhook: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = service.client.get(f"{webhook}/deliveries").raise_for_status().json()["data"]
    return found


def test_five_failures_and_a_kill_in_between_then_each_message_once(tmp_path: Path) -> None:
    home = tmp_path / "home"
    verified: list[str] = []
    snippet = "\n".join(block(README.read_text(encoding="utf-8"), "webhook").splitlines()[1:-1])
    with receiving() as receiver:
        variables = {
            "BAYESPRESS_WORKERS": "0",
            "BAYESPRESS_WEBHOOK_SCHEDULE_S": SCHEDULE,
            "BAYESPRESS_REFERENCE_HOSTS": receiver.host,
        }
        with served(home, variables=variables) as service:
            asked = {"url": f"{receiver.url}?token=of-the-client", "events": ["job.queued", "job.cancelled"]}
            created = service.client.post("/v1/webhooks", json=asked)
            webhook, secret = created.headers["location"], created.json()["secret"]

            def answer(received: Received) -> Answer:
                came = {"secret": secret, "body": received.body, "headers": dict(received.headers)}
                exec(snippet, came | {"print": lambda *shown: verified.append(shown[1])})  # noqa: S102  # the README's own lines
                return Answer(503 if received.times <= FAILURES else 200)

            receiver.answer = answer
            parts = {"model": ("model.onnx", digits_model()), "dataset_ref": (None, b"builtin:digits")}
            job = service.client.post("/compress", files=parts).raise_for_status().json()
            assert service.client.post(job["links"]["cancel"]).is_success
            wait_until(lambda: [delivery["attempts"] for delivery in deliveries(service, webhook)] == [3, 3])
            service.process.kill()
        with served(home, variables=variables) as service:
            assert {delivery["status"] for delivery in deliveries(service, webhook)} == {"pending"}
            wait_until(lambda: {delivery["status"] for delivery in deliveries(service, webhook)} == {"delivered"})
            done = deliveries(service, webhook)
            assert service.stop() == 0
    assert [(delivery["type"], delivery["attempts"], delivery["last_status"]) for delivery in done] == [
        ("job.cancelled", FAILURES + 1, 200),
        ("job.queued", FAILURES + 1, 200),
    ]
    ids = {delivery["id"] for delivery in done}
    assert Counter(receiver.taken) == dict.fromkeys(ids, 1)
    assert Counter(received.id for received in receiver.received) == dict.fromkeys(ids, FAILURES + 1)
    assert verified == [job["id"]] * 2 * (FAILURES + 1)
    log = home.with_name("home.log").read_text()
    assert "503" in log
    assert "of-the-client" not in log
    assert "whsec_" not in log


def test_a_webhook_to_loopback_reaches_nobody(tmp_path: Path) -> None:
    with receiving() as receiver, served(tmp_path / "home", variables={"BAYESPRESS_WORKERS": "0"}) as service:
        for host in ("127.0.0.1", "localhost", "2130706433", "[::1]"):
            for scheme in ("http", "https"):
                response = service.client.post("/v1/webhooks", json={"url": f"{scheme}://{host}:{receiver.port}/hook"})
                assert (response.status_code, response.json()["code"]) == (422, "webhook_url_not_allowed")
        assert service.client.get("/v1/webhooks").json() == {"data": []}
        assert service.stop() == 0
    assert receiver.received == []
