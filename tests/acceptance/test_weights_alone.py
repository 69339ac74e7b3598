"""A state dict and the name of timm's architecture, through the service and in the terminal."""

import json
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch import nn

from compressor.architecture import import_timm
from tests.acceptance.served import BAYESPRESS, served, to_environment
from tests.service.worker.workplace import wait_until

ARCHITECTURE = {"architecture": "test_resnet", "image_size": 32}
BRIEF = {"epochs": 2, "second_round_epochs": 2, "fine_tune_epochs": 1, "thresholds": [0, 2], "max_branches": 1, "max_metric_drop": 0.5}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """weights.safetensors of a network that knows digits, and their rows in rows.npz and test.npz."""
    folder = tmp_path_factory.mktemp("weights")
    digits = load_digits()
    x, y = np.kron(digits.images / 16, np.ones((4, 4))).astype(np.float32)[:, None], digits.target
    np.savez(folder / "rows.npz", x=x[:1400], y=y[:1400])
    np.savez(folder / "test.npz", x=x[1400:], y=y[1400:])
    torch.manual_seed(0)
    net = import_timm().create_model("test_resnet", pretrained=False, in_chans=1, num_classes=10)
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(3):
        for rows in torch.randperm(1400).split(50):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(torch.from_numpy(x[rows])), torch.from_numpy(y[rows])).backward()
            optimizer.step()
    save_file(net.state_dict(), folder / "weights.safetensors")
    return folder


def test_the_service_builds_the_model_and_compresses_it(folder, tmp_path):
    with served(tmp_path / "home") as service:
        files = {"model": (folder / "weights.safetensors").read_bytes(), "dataset": (folder / "rows.npz").read_bytes()}
        files["test"] = (folder / "test.npz").read_bytes()
        for config, param in (({}, "architecture"), ({"architecture": "test_resnet", "epoch": 3}, "epoch")):
            refused = service.client.post("/compress", files=files, data={"config": json.dumps(config)})
            assert (refused.status_code, refused.json()["code"], refused.json()["param"]) == (422, "invalid_config", param)
        assert service.files() == []

        job = service.client.post("/compress", files=files, data={"config": json.dumps(ARCHITECTURE | BRIEF)}).json()
        wait_until(lambda: service.client.get(f"/v1/jobs/{job['id']}").json()["finished_at"] is not None, 150)
        job = service.client.get(f"/v1/jobs/{job['id']}").json()
        assert job["status"] == "succeeded", job
        report = service.client.get(f"/v1/jobs/{job['id']}/report").json()
        compressed = service.client.get(f"/v1/jobs/{job['id']}/artifacts/model.onnx").content
    assert report["metric"]["dense"]["value"] > 0.8
    assert report["bytes"]["dense"] == (folder / "weights.safetensors").stat().st_size
    session = onnxruntime.InferenceSession(compressed, providers=["CPUExecutionProvider"])
    with np.load(folder / "test.npz") as rows:
        scores = session.run(None, {session.get_inputs()[0].name: rows["x"]})[0]
        assert (scores.argmax(1) == rows["y"]).mean() == pytest.approx(report["metric"]["compressed"]["value"], abs=2 / len(scores))


def inspect(folder: Path, *settings: str) -> "subprocess.CompletedProcess[str]":
    options = [part for setting in settings for part in ("--set", setting)]
    command = [BAYESPRESS, "inspect", str(folder / "weights.safetensors"), "--json", *options]
    return subprocess.run(command, capture_output=True, text=True, env=to_environment({}), timeout=120, check=False)


def test_the_terminal_inspects_weights_and_says_what_is_missing(folder):
    done = inspect(folder, "architecture=test_resnet", "image_size=32")
    assert done.returncode == 0, done.stderr
    inspection = json.loads(done.stdout)
    assert inspection["inputs"][0]["shape"] == [None, 1, 32, 32]
    assert inspection["num_classes"] == 10
    assert inspection["coverage"] > 0.99
    for settings, word in (((), "architecture"), (("architecture=test_vit",), "lacks"), (("architecture=hf-hub:timm/resnet18",), "hf-hub")):
        refused = inspect(folder, *settings)
        assert refused.returncode == 2
        assert word in refused.stderr
