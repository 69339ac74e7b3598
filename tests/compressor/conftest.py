"""A small trained classifier of scikit-learn's digits as an ONNX file, written without an exporter, and its rows."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

from compressor import DataReference

torch.set_num_threads(1)  # the networks here are tiny; a second thread only waits, and takes a core from the tests of processes


@dataclass(frozen=True)
class DigitsJob:
    """A model file and the files of its rows; the model has not seen validation and test."""

    model: Path
    data: DataReference
    rows: dict[str, tuple[np.ndarray, np.ndarray]]


@pytest.fixture(scope="session")
def digits_job(tmp_path_factory) -> DigitsJob:
    folder = tmp_path_factory.mktemp("digits")
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    bounds = {"train": order[:1077], "validation": order[1077:1347], "test": order[1347:]}
    rows = {name: ((digits.data[index] / 16).astype(np.float32), digits.target[index]) for name, index in bounds.items()}
    for name, (x, y) in rows.items():
        np.savez(folder / f"{name}.npz", x=x, y=y)
    model = folder / "digits.onnx"
    onnx.save(to_onnx(train_mlp(*rows["train"])), model)
    return DigitsJob(model, DataReference(**{name: str(folder / f"{name}.npz") for name in rows}), rows)


def train_mlp(x: np.ndarray, y: np.ndarray, sizes: tuple[int, ...] = (64, 60, 30, 10), epochs: int = 30) -> list[nn.Linear]:
    torch.manual_seed(0)
    layers = [nn.Linear(inputs, outputs) for inputs, outputs in pairwise(sizes)]
    net = nn.Sequential(*[part for layer in layers for part in (layer, nn.ReLU())][:-1])
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    pixels, labels = torch.from_numpy(x), torch.from_numpy(y)
    for _ in range(epochs):
        for batch in torch.randperm(len(y)).split(64):
            optimizer.zero_grad()
            cross_entropy(net(pixels[batch]), labels[batch]).backward()
            optimizer.step()
    return layers


def to_onnx(layers: list[nn.Linear]) -> onnx.ModelProto:
    """Gemm and Relu in turn, with the weights as torch keeps them."""
    nodes, initializers, value = [], [], "x"
    for index, layer in enumerate(layers):
        names = [f"layer{index}.weight", f"layer{index}.bias"]
        initializers += [
            numpy_helper.from_array(tensor.detach().numpy(), name) for tensor, name in zip((layer.weight, layer.bias), names, strict=True)
        ]
        last = index == len(layers) - 1
        nodes.append(helper.make_node("Gemm", [value, *names], ["scores" if last else f"a{index}"], transB=1))
        if not last:
            nodes.append(helper.make_node("Relu", [f"a{index}"], [f"h{index}"]))
            value = f"h{index}"
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", layers[0].in_features])]
    outputs = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", layers[-1].out_features])]
    graph = helper.make_graph(nodes, "mlp", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
