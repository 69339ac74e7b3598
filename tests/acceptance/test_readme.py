"""The README's lines, run as they stand there: PyTorch's two exporters, then three times curl against a real service."""

import io
import json
import subprocess
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pyarrow
import pyarrow.parquet
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn

from tests.acceptance.served import served
from tests.architecture.readme_tables import README, block
from tests.benchmarks.mnist import TEST, TRAIN, find_data
from tests.debian import require_debian

ENDED = {"succeeded", "failed", "failed_gate", "cancelled"}


def readme_lines(name: str) -> list[str]:
    lines = block(README.read_text(encoding="utf-8"), name).splitlines()
    assert (lines[0][:3], lines[-1]) == ("```", "```")
    return lines[1:-1]


def write_digits(folder: Path) -> None:
    """scikit-learn's digits in the form of MNIST: 28 by 28, PNG in a struct, with a label."""
    digits = load_digits()
    images = np.pad(np.kron(digits.images, np.ones((3, 3))) * 255 / 16, ((0, 0), (2, 2), (2, 2))).astype(np.uint8)
    order = np.random.default_rng(0).permutation(len(images))
    for name, rows in ((TRAIN, order[:1400]), (TEST, order[1400:])):
        cells = [{"bytes": png(images[row]), "path": None} for row in rows]
        pyarrow.parquet.write_table(pyarrow.table({"image": cells, "label": digits.target[rows].astype(np.int64)}), folder / name)


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def read_rows(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images [N, 1, 28, 28] in [0, 1] and labels [N]."""
    table = pyarrow.parquet.read_table(path)
    images = [np.asarray(Image.open(io.BytesIO(cell["bytes"]))) for cell in table["image"].to_pylist()]
    return (np.stack(images)[:, None] / 255).astype(np.float32), np.array(table["label"].to_pylist())


def train_cnn(path: Path, epochs: int) -> nn.Module:
    torch.manual_seed(0)
    x, y = (torch.from_numpy(array) for array in read_rows(path))
    net = nn.Sequential(nn.Conv2d(1, 8, 5, stride=2), nn.ReLU(), nn.Conv2d(8, 16, 5, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10))
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(y)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x[rows]), y[rows]).backward()
            optimizer.step()
    return net


def export(line: str, net: nn.Module, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(line, {"torch": torch, "net": net, "images": torch.zeros(2, 1, 28, 28)})  # noqa: S102  # the README's own line


def curl(line: str, folder: Path, port: int, job_id: str = "") -> str:
    command = line.replace("127.0.0.1:8000", f"127.0.0.1:{port}").replace("/JOB", f"/{job_id}")
    done = subprocess.run(
        ["sh", "-c", command.replace("curl ", "curl --fail-with-body --no-progress-meter ", 1)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def send_ask_fetch(folder: Path, home: Path, change: Callable[[str], str], timeout_s: float) -> dict[str, Any]:
    """The report of the finished job; what was fetched lies in the folder."""
    send, ask, fetch = readme_lines("curl")
    with served(home) as service:
        port = service.client.base_url.port
        assert port is not None
        job = json.loads(curl(change(send), folder, port))
        deadline = time.monotonic() + timeout_s
        while job["status"] not in ENDED and time.monotonic() < deadline:
            time.sleep(0.3)
            job = json.loads(curl(ask, folder, port, job["id"]))
        assert job["status"] == "succeeded", job
        curl(fetch, folder, port, job["id"])
        report: dict[str, Any] = service.client.get(f"/v1/jobs/{job['id']}/report").json()
        return report


def measure_outside(model: Path, rows: Path) -> float:
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    images, labels = read_rows(rows)
    name = session.get_inputs()[0].name
    scores = np.concatenate([session.run(None, {name: batch})[0] for batch in np.array_split(images, 10)])
    return float((scores.argmax(axis=1) == labels).mean())


def count_nonzeros_outside(model: Path) -> int:
    """Of all tensors with two or more dimensions, sparse and dense."""
    graph = onnx.load(model).graph
    sparse = [attribute.sparse_tensor for node in graph.node for attribute in node.attribute if attribute.name == "sparse_value"]
    values = [tensor.values for tensor in sparse if len(tensor.dims) > 1]
    values += [tensor for tensor in graph.initializer if len(tensor.dims) > 1]
    return sum(int(np.count_nonzero(onnx.numpy_helper.to_array(tensor))) for tensor in values)


@pytest.mark.parametrize("exporter", [0, 1], ids=["todays exporter", "older exporter"])
def test_the_lines_do_what_the_readme_says(exporter: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_debian("curl", "curl")
    folder = tmp_path / "user"
    folder.mkdir()
    write_digits(folder)
    export(readme_lines("export")[exporter], train_cnn(folder / TRAIN, epochs=4), folder, monkeypatch)

    def shorten(line: str) -> str:
        assert '"max_metric_drop": 0.01' in line
        return line.replace(
            '"max_metric_drop": 0.01', '"max_metric_drop": 0.5, "epochs": 2, "second_round_epochs": 2, "fine_tune_epochs": 1'
        )

    report = send_ask_fetch(folder, tmp_path / "home", shorten, timeout_s=120)
    assert measure_outside(folder / "compressed.onnx", folder / TEST) == pytest.approx(report["metric"]["compressed"]["value"], abs=1e-9)
    assert measure_outside(folder / "model.onnx", folder / TEST) == pytest.approx(report["metric"]["dense"]["value"], abs=1e-9)
    assert (folder / "compressed.onnx").stat().st_size == report["bytes"]["artifacts"]["model.onnx"]
    assert count_nonzeros_outside(folder / "compressed.onnx") == report["weights"]["nnz"]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("exporter", [0, 1], ids=["todays exporter", "older exporter"])
def test_the_lines_do_it_with_mnist(exporter: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_debian("curl", "curl")
    try:
        data = find_data()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    folder = tmp_path / "user"
    folder.mkdir()
    for name in (TRAIN, TEST):
        (folder / name).symlink_to(data / name)
    export(readme_lines("export")[exporter], train_cnn(folder / TRAIN, epochs=2), folder, monkeypatch)

    report = send_ask_fetch(folder, tmp_path / "home", lambda line: line, timeout_s=1500)
    assert measure_outside(folder / "compressed.onnx", folder / TEST) == pytest.approx(report["metric"]["compressed"]["value"], abs=2e-4)
    assert (folder / "compressed.onnx").stat().st_size == report["bytes"]["artifacts"]["model.onnx"]
    assert count_nonzeros_outside(folder / "compressed.onnx") == report["weights"]["nnz"]
    assert report["weights"]["compression_ratio"] > 2
