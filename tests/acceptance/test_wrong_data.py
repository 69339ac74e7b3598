"""Rows that only the trainer can refuse: the same problem as the end of a job over HTTP and on the terminal, and nothing left behind."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.acceptance.digits_model import digits_model
from tests.acceptance.served import BAYESPRESS, Served, served, to_environment
from tests.service.worker.workplace import processes_of, wait_until

ROWS = 100
PIXELS = np.linspace(0, 1, ROWS * 64, dtype=np.float32).reshape(ROWS, 64)
CLASSES = np.arange(ROWS) % 10
MARKER = "marker.png"
QUICK = {"epochs": 1, "second_round_epochs": 1, "fine_tune_epochs": 0, "thresholds": [3.0], "max_branches": 1}
MEMBERS = {"type", "title", "status", "detail", "code", "param", "suggestion"}


def without_labels(folder: Path) -> Path:
    np.savez(folder / "dataset.npz", x=PIXELS)
    return folder / "dataset.npz"


def label_out_of_range(folder: Path) -> Path:
    labels = np.where(np.arange(ROWS) == 70, 10, CLASSES)
    pq.write_table(pa.table({"pixels": list(PIXELS), "label": labels}), folder / "dataset.parquet")
    return folder / "dataset.parquet"


def shape_that_does_not_fit(folder: Path) -> Path:
    np.savez(folder / "dataset.npz", x=PIXELS[:, :63], y=CLASSES)
    return folder / "dataset.npz"


def path_of_the_server(folder: Path) -> Path:
    """Every image is a file of the server; were it read, the rows would be in order."""
    picture = BytesIO()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(picture, format="PNG")
    (folder / MARKER).write_bytes(picture.getvalue())
    # Older than the last change, so that most file systems note the next read.
    os.utime(folder / MARKER, (1, 2))
    image = pa.array([{"bytes": None, "path": str(folder / MARKER)}] * ROWS, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    pq.write_table(pa.table({"image": image, "label": CLASSES}), folder / "dataset.parquet")
    return folder / "dataset.parquet"


@dataclass(frozen=True)
class Wrong:
    write: Callable[[Path], Path]
    code: str
    param: str
    detail: str


CASES = {
    "no labels": Wrong(without_labels, "missing_labels", "y", "Found: 'x'"),
    "label out of range": Wrong(label_out_of_range, "label_out_of_range", "label", "row 70: label 10 is not one of the model's 10 classes"),
    "shape": Wrong(shape_that_does_not_fit, "shape_mismatch", "x", "[N, 63], but input 'pixels' takes [N, 64]"),
    "path of the server": Wrong(path_of_the_server, "external_reference", "image", "row 0: the image 'image' is a path without bytes"),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """For each case a folder with model and dataset."""
    made = {case: tmp_path_factory.mktemp("case") for case in CASES}
    for case, folder in made.items():
        (folder / "model.onnx").write_bytes(digits_model())
        CASES[case].write(folder)
    return made


def dataset_of(folder: Path) -> Path:
    (path,) = folder.glob("dataset.*")
    return path


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("wrong") / "home", variables={"BAYESPRESS_WORKERS": "2"}) as running:
        yield running


def submit(service: Served, **form: Any) -> str:
    response = service.client.post("/compress", files={"model": ("model.onnx", digits_model())} | form)
    assert response.status_code == 202, response.text
    job_id: str = response.json()["id"]
    return job_id


def wait_for(service: Served, job_id: str) -> dict[str, Any]:
    def get() -> dict[str, Any]:
        job: dict[str, Any] = service.client.get(f"/v1/jobs/{job_id}").json()
        return job

    wait_until(lambda: get()["finished_at"], 120)
    return get()


@pytest.fixture(scope="module")
def jobs(service: Served, folders: dict[str, Path]) -> dict[str, dict[str, Any]]:
    """The four jobs, all sent before the first has ended."""
    ids = {case: submit(service, dataset=("rows", dataset_of(folder).read_bytes())) for case, folder in folders.items()}
    return {case: wait_for(service, job_id) for case, job_id in ids.items()}


@pytest.fixture(scope="module")
def runs(folders: dict[str, Path]) -> dict[str, subprocess.CompletedProcess[str]]:
    """The four commands, side by side."""

    def start(folder: Path) -> subprocess.Popen[str]:
        command = [BAYESPRESS, "compress", "model.onnx", dataset_of(folder).name, "--out", "new/out"]
        return subprocess.Popen(command, cwd=folder, env=to_environment({}), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    started = {case: start(folder) for case, folder in folders.items()}
    ended = {}
    for case, process in started.items():
        with process:
            stdout, stderr = process.communicate(timeout=120)
        ended[case] = subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)
    return ended


def seconds_of(job: dict[str, Any]) -> float:
    return (datetime.fromisoformat(job["finished_at"]) - datetime.fromisoformat(job["started_at"])).total_seconds()


@pytest.mark.parametrize("case", CASES)
def test_the_job_fails_soon_with_the_whole_problem(jobs: dict[str, dict[str, Any]], case: str) -> None:
    wrong, job = CASES[case], jobs[case]
    assert job["status"] == "failed", job
    assert seconds_of(job) < 30
    error = job["error"]
    assert set(error) == MEMBERS
    assert all(error.values()), error
    assert (error["type"], error["status"]) == (f"urn:bayespress:problem:{wrong.code}", 422)
    assert (error["code"], error["param"]) == (wrong.code, wrong.param)
    assert error["detail"].startswith("dataset (dataset.")
    assert wrong.detail in error["detail"]
    assert "/" not in error["detail"]


def test_the_jobs_leave_nothing_but_their_inputs_and_the_service_goes_on(
    service: Served, jobs: dict[str, dict[str, Any]], folders: dict[str, Path]
) -> None:
    for job in jobs.values():
        assert service.client.get(f"/v1/jobs/{job['id']}/artifacts").json()["data"] == []
        report = service.client.get(f"/v1/jobs/{job['id']}/report")
        assert (report.status_code, report.json()["code"]) == (404, "artifact_not_found")
    # A job's end is written before its files are removed.
    wait_until(lambda: all("/inputs/" in path for path in service.files()), 5)
    assert [service.client.delete(f"/v1/jobs/{job['id']}").status_code for job in jobs.values()] == [204] * len(jobs)
    assert service.files() == []
    wait_until(lambda: processes_of(service.home) == [] and list((service.home / "work").iterdir()) == [], 5)
    assert (folders["path of the server"] / MARKER).stat().st_atime == 1
    good = wait_for(service, submit(service, dataset_ref=(None, "builtin:digits"), config=(None, json.dumps(QUICK))))
    assert good["status"] == "succeeded", good
    assert service.client.get("/readyz").is_success


@pytest.mark.parametrize("case", CASES)
def test_the_terminal_says_what_the_job_says(
    runs: dict[str, subprocess.CompletedProcess[str]], jobs: dict[str, dict[str, Any]], folders: dict[str, Path], case: str
) -> None:
    run, error = runs[case], jobs[case]["error"]
    assert (run.returncode, run.stdout) == (2, "")
    *progress, what, where, remedy = run.stderr.splitlines()
    assert what == f"error: {error['title']} ({error['code']}): {error['detail']}"
    assert where == f"where: {error['param']}"
    assert remedy == f"do:    {error['suggestion']}"
    assert {line.split()[0] for line in progress} <= {"validate", "load"}
    folder = folders[case]
    assert {path.name for path in folder.iterdir()} - {MARKER} == {"model.onnx", dataset_of(folder).name}
    assert processes_of(folder) == []
