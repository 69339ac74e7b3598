"""`bayespress select` as a real process and a job of kind select in a real service: any point of a curve, as the curve shows it."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from sklearn.datasets import load_digits

from compressor import Report, Selection
from tests.acceptance.digits_model import digits_model
from tests.acceptance.served import BAYESPRESS, Served, served, to_environment
from tests.service.worker.workplace import processes_of, wait_until

QUICK = {"epochs": 4, "second_round_epochs": 4, "fine_tune_epochs": 1, "batch_size": 64, "thresholds": [0, 2, 4], "max_branches": 1}
ENDED = {"succeeded", "failed", "failed_gate", "cancelled"}
SELECTED = ["model.dense.onnx", "model.onnx", "selection.json", "weights.safetensors"]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("select") / "home") as running:
        yield running


def ended(service: Served, **parts: Any) -> dict[str, Any]:
    files = {name: value if isinstance(value, tuple) else (None, value) for name, value in parts.items()}
    response = service.client.post("/v1/jobs", files=files)
    assert response.status_code == 202, response.text
    path = response.headers["location"]
    wait_until(lambda: service.client.get(path).json()["status"] in ENDED, timeout_s=120)
    job: dict[str, Any] = service.client.get(path).json()
    return job


def to_config(**options: Any) -> str:
    return json.dumps(options)


@pytest.fixture(scope="module")
def run(service: Served, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """A finished job, and its model and artifacts in a folder."""
    job = ended(service, model=("digits.onnx", digits_model()), dataset_ref="builtin:digits", config=to_config(**QUICK))
    assert job["status"] == "succeeded", job
    folder = tmp_path_factory.mktemp("run")
    (folder / "digits.onnx").write_bytes(digits_model())
    for artifact in service.client.get(job["links"]["artifacts"]).json()["data"]:
        (folder / artifact["name"]).write_bytes(service.client.get(artifact["href"]).content)
    return job, folder


def report_of(folder: Path) -> Report:
    return Report.model_validate_json((folder / "report.json").read_bytes())


def validation_accuracy(model: Path | bytes, folder: Path) -> float:
    """Of the rows that the run carved."""
    with np.load(folder / "split.npz") as split:
        rows = split["validation"]
    digits = load_digits()
    scores = onnxruntime.InferenceSession(model).run(None, {"pixels": (digits.data[rows] / 16).astype(np.float32)})[0]
    return float((scores.argmax(axis=1) == digits.target[rows]).mean())


def select(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [BAYESPRESS, "select", *arguments]
    environment = to_environment({"COLUMNS": "200"})
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_a_job_exports_every_point_with_the_metric_of_the_curve(service: Served, run: tuple[dict[str, Any], Path]) -> None:
    parent, folder = run
    curve = report_of(folder).curve
    assert len(curve) > 1
    for number, point in enumerate(curve):
        job = ended(service, kind="select", parent_id=parent["id"], config=to_config(point=number))
        assert (job["kind"], job["parent_id"], job["status"], job["error"]) == ("select", parent["id"], "succeeded", None)
        assert job["inputs"]["model"] == parent["inputs"]["model"]
        artifacts = service.client.get(job["links"]["artifacts"]).json()["data"]
        assert [artifact["name"] for artifact in artifacts] == SELECTED
        model = service.client.get(f"{job['links']['artifacts']}/model.onnx").content
        assert validation_accuracy(model, folder) == pytest.approx(point.metric, abs=1e-12)
        selection = Selection.model_validate_json(service.client.get(job["links"]["report"]).content)
        assert (selection.number, selection.point, selection.verdict) == (number, point, job["verdict"])
        hashes = {artifact["name"]: artifact["sha256"] for artifact in artifacts if artifact["name"] != "selection.json"}
        assert hashes == {name: selection.sha256[name] for name in SELECTED if name != "selection.json"}
    # The parent has lost nothing, and a selection is the parent of none.
    names = [artifact["name"] for artifact in service.client.get(parent["links"]["artifacts"]).json()["data"]]
    assert names == ["curve.safetensors", "model.dense.onnx", "model.onnx", "report.json", "split.npz", "weights.safetensors"]
    parts = {"kind": (None, "select"), "parent_id": (None, job["id"]), "config": (None, to_config(point=0))}
    refused = service.client.post("/v1/jobs", files=parts)
    assert (refused.status_code, refused.json()["code"], refused.json()["param"]) == (404, "artifact_not_found", "parent_id")


def test_a_point_that_is_not_there_ends_the_job_and_leaves_its_parent_alone(service: Served, run: tuple[dict[str, Any], Path]) -> None:
    parent, folder = run
    job = ended(service, kind="select", parent_id=parent["id"], config=to_config(point=len(report_of(folder).curve)))
    assert (job["status"], job["error"]["code"], job["error"]["param"]) == ("failed", "invalid_config", "point")
    curve = service.client.get(f"{parent['links']['artifacts']}/curve.safetensors")
    assert curve.content == (folder / "curve.safetensors").read_bytes()
    assert ended(service, kind="select", parent_id=parent["id"], config=to_config(point=0))["status"] == "succeeded"


@pytest.mark.parametrize("curve", [".", "curve.safetensors"])
def test_the_command_exports_what_the_job_does(run: tuple[dict[str, Any], Path], tmp_path: Path, curve: str) -> None:
    _, folder = run
    points = report_of(folder).curve
    smallest = min(points, key=lambda point: point.nnz)
    out = tmp_path / "out"
    done = select(folder, "digits.onnx", curve, "--ratio", str(smallest.compression_ratio), "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in out.iterdir()) == SELECTED
    selection = Selection.model_validate_json((out / "selection.json").read_bytes())
    assert selection.point == smallest
    assert selection.verdict in done.stdout
    assert validation_accuracy(out / "model.onnx", folder) == pytest.approx(smallest.metric, abs=1e-12)
    assert select(folder, "digits.onnx", curve, "--point", "0", "--out", str(out)).returncode == 2
    assert Selection.model_validate_json((out / "selection.json").read_bytes()) == selection
    again = select(folder, "digits.onnx", curve, "--max-metric-drop", "0.99", "--out", str(out), "--force")
    assert again.returncode == 0, again.stderr
    assert Selection.model_validate_json((out / "selection.json").read_bytes()).point.nnz == smallest.nnz
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert processes_of(tmp_path) == []


def test_a_refusal_is_three_lines_with_its_code(run: tuple[dict[str, Any], Path], tmp_path: Path) -> None:
    _, folder = run
    (tmp_path / "other.onnx").write_bytes(digits_model(hidden=50))
    out = ("--out", str(tmp_path / "out"))
    wrong = {
        ("digits.onnx", ".", *out): ("invalid_config", "point"),
        ("digits.onnx", ".", "--point", "0", "--ratio", "4", *out): ("invalid_config", "target_ratio"),
        ("digits.onnx", ".", "--point", "99", *out): ("invalid_config", "point"),
        ("digits.onnx", str(tmp_path), "--point", "0", *out): ("invalid_artifact", "curve"),
        ("digits.onnx", "weights.safetensors", "--point", "0", *out): ("invalid_artifact", "weights.safetensors"),
        (str(tmp_path / "other.onnx"), ".", "--point", "0", *out): ("invalid_artifact", "curve.safetensors"),
        ("digits.onnx", ".", "--point", "0", "--force", "--out", "."): ("client_error", "out"),
    }
    for arguments, (code, param) in wrong.items():
        done = select(folder, *arguments)
        assert done.returncode == 2, (arguments, done.stderr)
        what, where, remedy = [line for line in done.stderr.splitlines() if not line.startswith(("validate", "starting"))]
        assert f"({code})" in what
        assert where == f"where: {param}"
        assert len(remedy) > len("do:    -")
    assert [path.name for path in tmp_path.iterdir()] == ["other.onnx"]
