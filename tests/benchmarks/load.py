"""A service under load: 200 clients that poll a job, 100 that follow its events, 20 uploads of 200 MB at once.

    .venv/bin/python -m tests.benchmarks.load --json FILE

The latency of `GET /v1/jobs/{id}` of each client as it sees it, first of one client alone. The service, its clients and the running job
that they watch, which writes progress and an event every half second, share the machine's cores.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from compressor.protocol import Progress
from service.jobs.engine import create_engine
from service.jobs.events.event import NewEvent
from service.jobs.job import JobInput, new_job
from service.jobs.repository import JobRepository
from service.jobs.states import Status
from tests.acceptance.served import Served, served
from tests.benchmarks.load_clients import UPLOAD_BYTES
from tests.benchmarks.results import Line, check, write_json

POLLING, FOLLOWING, UPLOADING = 200, 100, 20
IDLE_RATE = 20
REPORT_S = 0.5
MAX_RSS_MB, MAX_SLOWER = 400, 20
VARIABLES = {"BAYESPRESS_WORKERS": "0", "OMP_NUM_THREADS": "1"}


class RunningJob:
    """A job as its runner writes it, in this process."""

    def __init__(self, home: Path) -> None:
        self._engine = create_engine(f"sqlite:///{home / 'bayespress.sqlite3'}")
        self._jobs = JobRepository(self._engine)
        self._jobs.insert(new_job(config={}, inputs={"dataset": JobInput(ref="builtin:digits")}))
        job = self._jobs.claim_next(3600, home="load", process="load")
        assert job is not None
        self.id, self._fence = job.id, job.fence
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write)
        self._thread.start()

    def _write(self) -> None:
        for epoch in range(1_000_000):
            metrics = {"epoch": float(epoch), "loss": 0.1}
            event = NewEvent(type="metrics", message=f"epoch {epoch}", data=metrics)
            self._jobs.update_progress(self.id, self._fence, Progress(phase="fit", progress=0.5, eta_s=60, metrics=metrics), "", [event])
            if self._stop.wait(REPORT_S):
                return

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def finish(self) -> None:
        self.stop()
        self._jobs.finish(self.id, self._fence, Status.SUCCEEDED, verdict="done")


def peak_rss_mb(service: Served) -> float:
    status = Path(f"/proc/{service.process.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


@contextmanager
def running_job(home: Path) -> Iterator[RunningJob]:
    job = RunningJob(home)
    try:
        yield job
    finally:
        job.stop()


class Clients:
    """A process of clients of one kind."""

    def __init__(self, kind: str, port: int, job_id: str, count: int) -> None:
        command = [sys.executable, "-m", "tests.benchmarks.load_clients", kind, str(port), job_id, str(count)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def result(self, timeout_s: float = 900) -> dict[str, Any]:
        """What they have seen. Those that follow or upload come to an end of their own, those that poll stop now."""
        out, _ = self._process.communicate(timeout=timeout_s)
        return dict(json.loads(out))


def polling(name: str, clients: Clients, seconds: float) -> dict[str, Any]:
    """A row of the table: what polling clients see in so many seconds."""
    time.sleep(seconds)
    return to_row(name, clients.result())


def to_row(name: str, seen: dict[str, Any]) -> dict[str, Any]:
    seconds = seen["seconds"] or [math.inf, math.inf]
    p50, p99 = (float(quantile) for quantile in 1000 * np.quantile(seconds, (0.5, 0.99)))
    found = {"stage": name, "requests": len(seen["seconds"]), "p50_ms": p50, "p99_ms": p99, "max_ms": 1000 * max(seconds)}
    print(f"{name:44} {found['requests']:6} {p50:8.1f} {p99:8.1f} {found['max_ms']:8.1f}  {seen['errors'] or ''}", flush=True)
    return {**found, "errors": seen["errors"]}


def measure(service: Served, job: RunningJob, seconds: float) -> dict[str, Any]:
    """The stages one after the other, each with the load of those before it."""
    port = service.client.base_url.port
    assert port is not None

    def start(kind: str, count: int) -> Clients:
        return Clients(kind, port, job.id, count)

    print(f"{'GET /v1/jobs/{id}':44} {'number':>6} {'p50 ms':>8} {'p99 ms':>8} {'max ms':>8}  errors", flush=True)
    rows = [polling("one client, nothing else", start("idle", IDLE_RATE), seconds)]
    rows.append(polling(f"{POLLING} clients", start("poll", POLLING), seconds))
    following = start("follow", FOLLOWING)
    rows.append(polling(f"and {FOLLOWING} event streams", start("poll", POLLING), seconds))
    clients = start("poll", POLLING)
    uploads = start("upload", UPLOADING)
    uploaded = uploads.result()
    rows.append(to_row(f"and {UPLOADING} uploads of {UPLOAD_BYTES / 1e6:.0f} MB", clients.result()))
    rows.append(polling("after the uploads", start("poll", POLLING), seconds))
    job.finish()
    followed = following.result()
    rows.append(to_row(f"(each upload of {UPLOAD_BYTES / 1e6:.0f} MB)", uploaded))
    return {"stages": rows, "streams": {"events": followed["events"], "errors": followed["errors"]}, "peak_rss_mb": peak_rss_mb(service)}


def to_lines(found: dict[str, Any]) -> list[Line]:
    stages = {row["stage"]: row for row in found["stages"]}
    idle, *_ = found["stages"]
    loaded = stages[f"and {UPLOADING} uploads of {UPLOAD_BYTES / 1e6:.0f} MB"]
    errors = sum(sum(row["errors"].values()) for row in [*found["stages"], found["streams"]])
    return [
        Line("errors", errors, "at most", 0),
        Line("events seen by a stream", found["streams"]["events"] / FOLLOWING, "at least", 1),
        Line("peak memory of the service, MB", found["peak_rss_mb"], "at most", MAX_RSS_MB),
        Line("p99 under load / p99 alone", loaded["p99_ms"] / idle["p99_ms"], "at most", MAX_SLOWER),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="file for all figures")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each stage; the one with uploads takes as long as they take")
    parser.add_argument("--folder", type=Path, help="where the service keeps its files for the time: 5 GB")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(dir=options.folder) as folder,
        served(Path(folder) / "home", variables=VARIABLES) as service,
        running_job(service.home) as job,
    ):
        found = measure(service, job, options.seconds)
    lines = to_lines(found)
    write_json(options.json, {**found, "lines": [{**asdict(line), "met": line.met} for line in lines]})
    return check(lines)


if __name__ == "__main__":
    sys.exit(main())
