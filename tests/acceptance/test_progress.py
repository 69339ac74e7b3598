"""Phase, percent and time left of real jobs, as a client sees them."""

import json
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from tests.acceptance.digits_model import digits_model
from tests.acceptance.served import Served, served

QUICK = {"epochs": 2, "second_round_epochs": 4, "fine_tune_epochs": 2, "max_branches": 1}
ORDER = ("validate", "load", "evaluate", "probe", "fit", "sweep", "control", "write", "verify", "test")
ASK_EVERY_S = 0.3


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("progress") / "home") as running:
        yield running


def watch(service: Served, config: dict[str, Any]) -> list[tuple[float, dict[str, Any]]]:
    """Runs a job on the digits. Returns: when it was asked for, and how it stood then."""
    files = {"model": ("m", digits_model()), "dataset_ref": (None, "builtin:digits"), "config": (None, json.dumps(config))}
    job = service.client.post("/v1/jobs", files=files).json()
    seen = []
    while not job["finished_at"]:
        time.sleep(ASK_EVERY_S)
        job = service.client.get(job["links"]["self"]).json()
        seen.append((time.time(), job))
    assert job["status"] == "succeeded", job["error"]
    return seen


def check_course(seen: list[tuple[float, dict[str, Any]]]) -> None:
    """Percent never falls and says 1 only where the job has finished; the phases come in their order."""
    progress = [job["progress"] for _, job in seen]
    assert progress == sorted(progress)
    assert max(progress[:-1]) < 1.0
    assert progress[-1] == 1.0
    phases = [ORDER.index(job["phase"]) for _, job in seen if job["phase"]]
    assert phases == sorted(phases)


def test_percent_never_falls_and_phases_come_in_their_order(service: Served) -> None:
    seen = watch(service, QUICK | {"epochs": 40})
    check_course(seen)
    assert any(job["eta_s"] and job["estimated_finish"] for _, job in seen)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_at_half_of_a_default_run_the_time_left_is_right_within_30_percent(service: Served) -> None:
    seen = watch(service, {})
    check_course(seen)
    last = seen[-1][1]
    started, finished = (datetime.fromisoformat(last[name]).timestamp() for name in ("started_at", "finished_at"))
    half = (finished - started) / 2
    asked, job = min(seen, key=lambda one: abs(one[0] - started - half))
    print(f"{2 * half:.1f} s; at half, {job['eta_s']:.1f} s were said to be left")
    assert job["eta_s"] == pytest.approx(finished - asked, rel=0.3)
    assert abs(datetime.fromisoformat(job["estimated_finish"]).timestamp() - finished) < 0.3 * half
