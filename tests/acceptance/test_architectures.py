"""A transformer, a recurrent net and a half-precision CNN through the real service: what comes back runs in stock ONNX Runtime as said."""

import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from tests.acceptance.served import Served, served
from tests.service.worker.workplace import wait_until

VOCABULARY, LENGTH, CLASSES = 40, 12, 3
CONFIG = {"epochs": 5, "second_round_epochs": 8, "fine_tune_epochs": 3, "thresholds": [0, 2], "beta": 0.3, "max_metric_drop": 0.05}

Rows = dict[str, tuple[np.ndarray, np.ndarray]]


class TokenTransformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, 32)
        self.positions = nn.Parameter(torch.randn(LENGTH, 32) * 0.1)
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(32, CLASSES)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.encoder(self.tokens(ids) + self.positions).mean(1))


class TokenLstm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, 24)
        self.recurrent = nn.LSTM(24, 32, batch_first=True, bidirectional=True)
        self.head = nn.Linear(64, CLASSES)

    def forward(self, ids: Tensor) -> Tensor:
        return torch.softmax(self.head(self.recurrent(self.tokens(ids))[0].mean(1)), 1)


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 12, 3), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 24, 3), nn.ReLU(), nn.Flatten(), nn.Linear(384, 10)
    )


def token_rows() -> Rows:
    """Sentences whose class is the third of the vocabulary that most of their tokens come from."""
    generator = np.random.default_rng(0)
    parts = {}
    for name, count in {"dataset": 1500, "validation": 600, "test": 600}.items():
        labels = generator.integers(0, CLASSES, count)
        ids = generator.integers(0, VOCABULARY, (count, LENGTH))
        likely = (generator.integers(0, VOCABULARY // CLASSES, (count, LENGTH)) + labels[:, None] * (VOCABULARY // CLASSES)).astype(
            np.int64
        )
        parts[name] = (np.where(generator.random((count, LENGTH)) < 0.5, likely, ids), labels)
    return parts


def digit_rows() -> Rows:
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    images = (digits.images / 16).astype(np.float32)[:, None]
    bounds = {"dataset": order[:1100], "validation": order[1100:1450], "test": order[1450:]}
    return {name: (images[index], digits.target[index]) for name, index in bounds.items()}


@dataclass(frozen=True)
class Case:
    network: Callable[[], nn.Module]
    rows: Callable[[], Rows]
    half: bool = False
    dynamo: bool = True


CASES = {
    "transformer": Case(TokenTransformer, token_rows),
    "lstm": Case(TokenLstm, token_rows, dynamo=False),
    "half-precision cnn": Case(cnn, digit_rows, half=True),
}


def trained(case: Case, rows: tuple[np.ndarray, np.ndarray]) -> nn.Module:
    torch.manual_seed(0)
    net, x, y = case.network(), torch.from_numpy(rows[0]), torch.from_numpy(rows[1])
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(8):
        for index in torch.randperm(len(y)).split(50):
            optimizer.zero_grad()
            scores = net(x[index])
            loss = (
                nn.functional.nll_loss(scores.log(), y[index])
                if case.network is TokenLstm
                else nn.functional.cross_entropy(scores, y[index])
            )
            loss.backward()
            optimizer.step()
    return net.eval()


def export(case: Case, net: nn.Module, x: np.ndarray, path: Path) -> None:
    example = torch.from_numpy(x[:2])
    if case.half:
        net, example = net.half(), example.half()
    options = (
        {"dynamic_shapes": ({0: torch.export.Dim("batch")},)}
        if case.dynamo
        else {"input_names": ["ids"], "dynamic_axes": {"ids": {0: "n"}}}
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net, (example,), path, dynamo=case.dynamo, external_data=False, verbose=False, **options)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("service") / "home") as running:
        yield running


@pytest.mark.parametrize("name", CASES)
def test_it_comes_back_smaller_and_runs_as_reported(name: str, service: Served, tmp_path: Path) -> None:
    case = CASES[name]
    rows = case.rows()
    export(case, trained(case, rows["dataset"]), rows["dataset"][0], tmp_path / "model.onnx")
    files = {"model": ("model.onnx", (tmp_path / "model.onnx").read_bytes())}
    for part, (x, y) in rows.items():
        np.savez(tmp_path / f"{part}.npz", x=x, y=y)
        files[part] = (f"{part}.npz", (tmp_path / f"{part}.npz").read_bytes())
    job = service.client.post("/compress", files=files, data={"config": json.dumps(CONFIG)}).json()
    wait_until(lambda: service.client.get(f"/v1/jobs/{job['id']}").json()["finished_at"] is not None, 200)
    job = service.client.get(f"/v1/jobs/{job['id']}").json()
    assert job["status"] == "succeeded", job
    report = service.client.get(f"/v1/jobs/{job['id']}/report").json()
    compressed = service.client.get(f"/v1/jobs/{job['id']}/artifacts/model.onnx").content

    session = onnxruntime.InferenceSession(compressed, providers=["CPUExecutionProvider"])
    x, y = rows["test"]
    feed = {session.get_inputs()[0].name: x.astype(np.float16) if case.half else x}
    scores = session.run(None, feed)[0]
    assert (scores.argmax(1) == y).mean() == pytest.approx(report["metric"]["compressed"]["value"], abs=2 / len(y))
    assert report["metric"]["compressed"]["value"] > report["metric"]["dense"]["value"] - 0.06
    assert report["weights"]["compression_ratio"] > 3
    assert len(compressed) < (tmp_path / "model.onnx").stat().st_size
    elem_types = {info.type.tensor_type.elem_type for info in onnx.load_from_string(compressed).graph.input}
    assert elem_types == {onnx.load(tmp_path / "model.onnx").graph.input[0].type.tensor_type.elem_type}
