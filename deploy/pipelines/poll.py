#!/usr/bin/env python3
"""Create a job, ask until it has finished, download what it made: the loop that OpenAI's fine-tuning jobs are driven by.

Needs httpx and nothing of Bayespress. Where the service asks for a key, set BAYESPRESS_API_KEY.

    pip install httpx
    export BAYESPRESS_URL=http://127.0.0.1:8000
    python poll.py model.onnx train.parquet small/ '{"max_metric_drop": 0.01}'

In place of a file of rows a reference may stand, `builtin:digits` for one. Exits with 0 when the job has succeeded, 3 where a budget or a
gate was not met (its artifacts are downloaded all the same), 1 for everything else. BAYESPRESS_IDEMPOTENCY_KEY lets a program that is run
again, by CI for one, find the job of its first run.
"""

import hashlib
import os
import sys
import time
import uuid
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx

EXIT_CODES = {"succeeded": 0, "failed_gate": 3}
WAIT_S = 30
GIVE_UP_S = 120

Job = dict[str, Any]


class Failed(Exception):
    """The service has refused a request, or could not be reached for long."""


def connect() -> httpx.Client:
    key = os.environ.get("BAYESPRESS_API_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    url = os.environ.get("BAYESPRESS_URL", "http://127.0.0.1:8000")
    return httpx.Client(base_url=url, headers=headers, timeout=httpx.Timeout(60, read=300))


def create_job(client: httpx.Client, model: Path, rows: str, config: str, key: str) -> Job:
    """The job of this key: sent as often as it takes, it is one job."""
    with ExitStack() as files:
        parts: dict[str, Any] = {"model": (model.name, files.enter_context(model.open("rb"))), "config": (None, config)}
        if Path(rows).is_file():
            parts["dataset"] = (Path(rows).name, files.enter_context(Path(rows).open("rb")))
        else:
            parts["dataset_ref"] = (None, rows)
        return request(client, "POST", "/v1/jobs", files=parts, headers={"Idempotency-Key": key})


def get_job(client: httpx.Client, job_id: str, wait_s: int = 0) -> Job:
    """As it stands; with `wait_s` as soon as it has finished, at the latest after so many seconds."""
    return request(client, "GET", f"/v1/jobs/{job_id}", params={"wait": wait_s})


def wait_for(client: httpx.Client, job_id: str) -> Job:
    while not (job := get_job(client, job_id, WAIT_S))["finished_at"]:
        eta = "" if job["eta_s"] is None else f", about {job['eta_s']:.0f} s left"
        print(f"{job['status']} {job['phase'] or ''} {job['progress']:.0%}{eta}", file=sys.stderr)
    return job


def download(client: httpx.Client, job_id: str, folder: Path) -> None:
    """All artifacts, each under its name once its checksum is right."""
    folder.mkdir(parents=True, exist_ok=True)
    for artifact in request(client, "GET", f"/v1/jobs/{job_id}/artifacts")["data"]:
        part, digest = folder / f"{artifact['name']}.part", hashlib.sha256()
        with client.stream("GET", artifact["href"]) as response, part.open("wb") as file:
            response.raise_for_status()
            for chunk in response.iter_bytes():
                digest.update(chunk)
                file.write(chunk)
        if digest.hexdigest() != artifact["sha256"]:
            raise Failed(f"{artifact['name']} has another sha256 than the service says")
        part.replace(folder / artifact["name"])


def request(client: httpx.Client, method: str, path: str, **options: Any) -> dict[str, Any]:
    """The JSON of a response. Tried again where the connection fails, and where the service says that it may be."""
    give_up = time.monotonic() + GIVE_UP_S
    while True:
        try:
            response = client.request(method, path, **options)
            if response.is_success:
                return dict(response.json())
            # 409 with Retry-After: an earlier try with this Idempotency-Key is still being received.
            problem, pause_s = response.text, float(response.headers.get("Retry-After", 0))
        except httpx.TransportError as error:
            problem, pause_s = repr(error), 1.0
        if not pause_s or time.monotonic() > give_up:
            raise Failed(f"{method} {path}: {problem}")
        print(f"{method} {path}: {problem}; once more in {pause_s:.0f} s", file=sys.stderr)
        time.sleep(pause_s)


def main(model: str, rows: str, folder: str, config: str = "{}") -> int:
    key = os.environ.get("BAYESPRESS_IDEMPOTENCY_KEY") or str(uuid.uuid4())
    with connect() as client:
        job = create_job(client, Path(model), rows, config, key)
        print(f"{job['id']} {job['status']}", file=sys.stderr)
        job = wait_for(client, job["id"])
        if job["status"] in EXIT_CODES:
            download(client, job["id"], Path(folder))
    print(job["verdict"] or job["error"] or job["status"])
    return EXIT_CODES.get(job["status"], 1)


if __name__ == "__main__":
    if not 4 <= len(sys.argv) <= 5:
        sys.exit(__doc__)
    try:
        sys.exit(main(*sys.argv[1:]))
    except Failed as error:
        sys.exit(str(error))
