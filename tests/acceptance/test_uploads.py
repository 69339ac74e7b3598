"""The README's lines on uploads, run as they stand there against a real service, to the end of the job; memory; expected digests."""

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from tests.acceptance.digits_model import digits_model
from tests.acceptance.served import Served, served
from tests.acceptance.test_http import NO_WORKER, peak_rss_mb
from tests.acceptance.test_readme import ENDED, curl, readme_lines
from tests.debian import require_debian
from tests.service.worker.workplace import wait_until

QUICK = {"epochs": 4, "second_round_epochs": 4, "fine_tune_epochs": 1, "batch_size": 64, "thresholds": [0, 2, 4], "max_branches": 1}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """digits in the place of MNIST, as numbers."""
    folder = tmp_path / "user"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(digits_model())
    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    for name, rows in (("mnist-train.parquet", order[:1400]), ("mnist-test.parquet", order[1400:])):
        with (folder / name).open("wb") as file:
            np.savez(file, x=(pixels[rows] / 16).astype(np.float32), y=labels[rows].astype(np.int64))
    return folder


def ended(service: Served, job: dict[str, Any]) -> dict[str, Any]:
    path = job["links"]["self"]
    wait_until(lambda: service.client.get(path).json()["status"] in ENDED, timeout_s=120)
    found: dict[str, Any] = service.client.get(path).json()
    return found


def test_the_lines_do_what_the_readme_says(folder: Path, tmp_path: Path) -> None:
    require_debian("curl", "curl")
    send_model, send_dataset, send_job = readme_lines("uploads")
    with served(tmp_path / "home") as service:
        port = service.client.base_url.port
        assert port is not None
        model = json.loads(curl(send_model, folder, port))
        dataset = json.loads(curl(send_dataset, folder, port))
        assert model["sha256"] == hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
        line = send_job.replace("MODEL", model["id"]).replace("DATASET", dataset["id"])
        assert '"max_metric_drop": 0.01' in line
        job = json.loads(curl(line.replace('{"max_metric_drop": 0.01}', json.dumps(QUICK)), folder, port))
        # It has what it needs.
        for upload in (model, dataset):
            assert service.client.delete(upload["links"]["self"]).status_code == 204
        done = ended(service, job)
        assert done["status"] == "succeeded", done
        assert {name: given["ref"] for name, given in done["inputs"].items()} == {
            "model": f"id:{model['id']}",
            "dataset": f"id:{dataset['id']}",
            "test": f"id:{dataset['id']}",
        }
        report = service.client.get(done["links"]["report"]).json()
        assert report["bytes"]["artifacts"]["model.onnx"] < model["bytes"]
        assert not any("/uploads/" in file for file in service.files())
        assert service.client.delete(done["links"]["self"]).status_code == 204
        assert service.files() == []


def test_a_file_that_has_become_another_ends_the_job(folder: Path, tmp_path: Path) -> None:
    rows = folder / "rows.npz"
    (folder / "mnist-train.parquet").rename(rows)
    digest = hashlib.sha256(rows.read_bytes()).hexdigest()
    with served(tmp_path / "home", "--data-root", str(folder)) as service:
        body = {"model_ref": f"file:{folder}/model.onnx", "dataset_ref": f"file:{rows}#sha256={'0' * 64}"}
        job = ended(service, service.client.post("/v1/jobs", json=body).json())
        assert (job["status"], job["error"]["code"], job["error"]["param"], job["attempts"]) == (
            "failed",
            "digest_mismatch",
            "dataset_ref",
            1,
        )
        assert digest in job["error"]["detail"]


@pytest.mark.parametrize("as_form", [False, True])
def test_a_large_upload_does_not_grow_the_process(tmp_path: Path, as_form: bool) -> None:
    with served(tmp_path / "home", variables=NO_WORKER) as service:
        service.client.post("/v1/datasets", content=b"PAR1small rowsPAR1")
        before = peak_rss_mb(service)
        rows = io.BytesIO(b"PAR1" + bytes(200_000_000) + b"PAR1")
        sent: dict[str, Any] = {"files": {"train": ("d", rows)}} if as_form else {"content": rows}
        assert service.client.post("/v1/datasets", **sent).status_code == 201
        assert peak_rss_mb(service) - before < 40


def test_uploads_are_there_again_after_a_restart(folder: Path, tmp_path: Path) -> None:
    with served(tmp_path / "home") as service:
        model = service.client.post("/v1/models", content=(folder / "model.onnx").read_bytes()).json()
        assert service.stop() == 0
    with served(tmp_path / "home") as service:
        assert service.client.get(model["links"]["self"]).json() == model
        body = {"kind": "inspect", "model_ref": f"id:{model['id']}#sha256={model['sha256']}"}
        assert ended(service, service.client.post("/v1/jobs", json=body).json())["status"] == "succeeded"
