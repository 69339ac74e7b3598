"""Schemathesis, which reads openapi.json and asks what it should not: every check on, with the keys of two owners, and without any.

The ids that it draws from are those of real rows in every state, of both owners: where it gets an answer that it may not have, it says so.
"""

import hashlib
import json
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

import service
from service.jobs.engine import create_engine
from service.jobs.job import Artifact, JobInput, new_job
from service.jobs.migrate import upgrade
from service.jobs.repository import JobRepository
from service.jobs.states import Status
from service.keys.key import ApiKey, Scope, draw_key
from service.keys.repository import KeyRepository
from service.settings import Settings
from service.storage.keys import artifact_key, input_key
from service.storage.store import ObjectStore
from tests.acceptance.digits_model import digits_model
from tests.acceptance.served import served
from tests.service.storage.objects import put_bytes

OWNERS = ("alice", "bob")
JOBS_PER_STATE = 8
# A job that another process runs would be taken over here after its lease; these states are entered by verbs alone.
STATES = (Status.QUEUED, Status.PAUSED, Status.SUCCEEDED, Status.FAILED, Status.FAILED_GATE, Status.CANCELLED)
SCHEMATHESIS = str(Path(sys.executable).with_name("schemathesis"))
DESCRIPTION = Path(service.__file__).with_name("openapi.json")
REQUESTS = 20_000
REFUSING = (
    *("POST /compress", "POST /v1/jobs", "POST /v1/models", "POST /v1/datasets"),
    *("POST /v1/webhooks", "PATCH /v1/webhooks/{webhook_id}"),
)


def _fill(home: Path) -> tuple[list[str], dict[str, str]]:
    """Jobs of both owners, and a key for each of the owners. Their ids and the keys."""
    settings = Settings(home=home)
    home.mkdir(parents=True)
    engine = create_engine(settings.database)
    upgrade(engine)
    jobs, store, keys = JobRepository(engine), ObjectStore(settings.store_root), KeyRepository(engine)
    ids, texts = [], {}
    for owner in OWNERS:
        key = draw_key()
        keys.insert(ApiKey(key.id, owner, "fuzz", Scope.SUBMIT, key.digest, datetime.now(UTC)))
        texts[owner] = key.reveal()
        for status in STATES * JOBS_PER_STATE:
            ids.append(_insert(jobs, store, owner, status))
    engine.dispose()
    return ids, texts


def _insert(jobs: JobRepository, store: ObjectStore, owner: str, status: Status) -> str:
    job = new_job(owner=owner, config={}, inputs={"dataset": JobInput(ref="builtin:digits")}, metadata={"owner": owner})
    model, report = digits_model(hidden=4), json.dumps({"owner": owner}).encode()
    inputs = job.inputs | {"model": JobInput(key=input_key(job.id, "model", ".onnx"), bytes=len(model))}
    put_bytes(store, inputs["model"].key or "", model)
    artifacts = []
    if status in {Status.SUCCEEDED, Status.FAILED_GATE}:
        key = artifact_key(job.id, 1, "model.onnx")
        put_bytes(store, key, report)
        digest = hashlib.sha256(report).hexdigest()
        artifacts = [Artifact(name="model.onnx", key=key, bytes=len(report), sha256=digest, media_type="application/octet-stream")]
    finished_at = None if status in {Status.QUEUED, Status.PAUSED} else datetime.now(UTC)
    jobs.insert(job.model_copy(update={"status": status, "inputs": inputs, "artifacts": artifacts, "finished_at": finished_at}))
    return job.id


def _configure(folder: Path, ids: list[str], keys: dict[str, str], data_root: Path) -> None:
    values = {
        "job_ids": ids,
        "models": [f"file:{data_root / 'model.onnx'}"],
        "datasets": ["builtin:digits"],
        "names": ["model.onnx"],
        "waits": [0, 1],
    }
    lines = [f"[dictionaries.{name}]\nvalues = {json.dumps(entries)}" for name, entries in values.items()]
    bindings = {
        "path.job_id": "job_ids",
        "path.name": "names",
        "query.wait": "waits",
        "body.model_ref": "models",
        "body.dataset_ref": "datasets",
        "body.parent_id": "job_ids",
    }
    lines.append("[parameters]")
    lines += [f'"{where}" = {{ dictionary = "{name}", probability = 0.7 }}' for where, name in bindings.items()]
    # What no schema can say: whether bytes are a model, whether there is such a job, whether a host may be asked.
    refused = json.dumps(["2xx", "403", "404", "409", "422", "429"])
    for operation in REFUSING:
        lines.append(f'[[operations]]\ninclude-name = "{operation}"\nchecks.positive_data_acceptance.expected-statuses = {refused}')
    # Unknown header fields are let pass by every server (RFC 9110, section 5.1).
    accepted = json.dumps(["200", "400", "401", "403", "404", "409", "422"])
    lines.append('[[operations]]\ninclude-name = "GET /v1/jobs/{job_id}/events"')
    lines.append(f"checks.negative_data_rejection.expected-statuses = {accepted}")
    if keys:
        users = [{"name": owner, "fixedHeaders": [{"name": "Authorization", "value": f"Bearer {key}"}]} for owner, key in keys.items()]
        (folder / "auth.json").write_text(json.dumps({"auth": users}))
        lines.append(f'[auth.wfc]\npath = "{folder / "auth.json"}"\nuser = "alice"\npeers = ["alice", "bob"]')
    (folder / "schemathesis.toml").write_text("\n".join(lines) + "\n")


def _run(url: str, folder: Path, examples: int, seed: int, *phases: str) -> int:
    """Number of requests that were made up. Fails with what schemathesis says where it found anything."""
    command = [SCHEMATHESIS, "--config-file", str(folder / "schemathesis.toml"), "run", str(DESCRIPTION), "--url", url]
    options = ["--checks", "all", "--max-examples", str(examples), "--seed", str(seed), "--continue-on-failure", "--no-color"]
    options += [
        "--request-timeout",
        "90",
        "--max-response-time",
        "90",
    ]  # GET /v1/jobs/{job_id} waits for up to a minute where it is asked to
    options += ["--phases", ",".join(phases)] if phases else []
    done = subprocess.run([*command, *options], cwd=folder, capture_output=True, text=True, timeout=3000, check=False)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]
    match = re.search(r"([\d,]+) generated", done.stdout)
    assert match, done.stdout[-2_000:]
    return int(match[1].replace(",", ""))


def _fuzz(folder: Path, *phases: str, with_keys: bool, examples: int, seed: int) -> int:
    data_root = folder / "data"
    data_root.mkdir()
    (data_root / "model.onnx").write_bytes(digits_model(hidden=4))
    ids, keys = _fill(folder / "home")
    _configure(folder, ids, keys if with_keys else {}, data_root)
    variables = {"BAYESPRESS_REQUIRE_KEYS": "true", "BAYESPRESS_WORKERS": "0", "BAYESPRESS_DATA_ROOTS": str(data_root)}
    with served(folder / "home", variables=variables) as service:
        requests = _run(str(service.client.base_url).rstrip("/"), folder, examples, seed, *phases)
        assert service.client.get("/livez").is_success
    log = (folder / "home.log").read_text()
    assert "Traceback" not in log
    assert not any(key in log for key in keys.values())
    return requests


def test_a_few_requests(tmp_path: Path) -> None:
    assert _fuzz(tmp_path, "examples", "fuzzing", with_keys=True, examples=2, seed=0) > 50


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_many_requests(tmp_path: Path) -> None:
    requests = 0
    for seed, with_keys in enumerate([True, False, True, True]):
        folder = tmp_path / str(seed)
        folder.mkdir()
        requests += _fuzz(folder, with_keys=with_keys, examples=250 if with_keys else 20, seed=seed)
    assert requests >= REQUESTS
