"""What PyTorch's exporters write runs here as in ONNX Runtime: values, gradients, shapes on another device, and the way back."""

from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import ModelProto
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from compressor.graph.module import OnnxModule
from compressor.graph.validate import parse_model
from compressor.graph.write import float_tensors, write_arrays
from tests.compressor.graph.networks import exported, network

EXPORTS = [
    *((name, "dynamo") for name in ("lenet", "vgg", "mobilenet", "shapes", "activations", "products")),
    *((name, "dynamo-unoptimised") for name in ("mlp", "resnet", "shapes")),
    ("mlp", "dynamo-static"),
    *((name, "legacy-11") for name in ("mlp", "lenet", "resnet", "mobilenet", "shapes", "volume", "products")),
    *((name, "legacy-13") for name in ("mlp", "shapes", "activations", "products")),
    *((name, "legacy-17") for name in ("mlp", "lenet", "resnet", "mobilenet", "shapes", "activations", "volume", "products")),
    *((name, "legacy-static") for name in ("mlp", "lenet", "resnet", "products")),
    *((name, "legacy-training") for name in ("mlp", "resnet", "mobilenet", "activations")),
    *((name, "dynamo") for name in ("lstm", "gru", "embedding", "encoder", "attention", "unet", "folding")),
    *((name, "dynamo-unoptimised") for name in ("lstm", "rnn", "attention")),
    *((name, "dynamo-static") for name in ("gru", "encoder")),
    *((name, "legacy-11") for name in ("lstm", "gru", "embedding", "unet")),
    *((name, "legacy-17") for name in ("lstm", "gru", "rnn", "embedding", "encoder", "attention", "unet")),
    *((name, "legacy-static") for name in ("lstm", "gru", "embedding", "encoder", "attention")),
    *((name, "legacy-training") for name in ("gru", "encoder", "attention", "unet")),
    ("folding", "legacy-18"),
]


def run_stock(model: ModelProto, x: np.ndarray, batch: int | None) -> np.ndarray:
    """The first output in stock ONNX Runtime, in batches of `batch`."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    parts = np.split(x, len(x) // (batch or len(x)))
    return np.concatenate([session.run(None, {name: part})[0] for part in parts])


@pytest.mark.parametrize(("name", "exporter"), EXPORTS)
def test_a_network_runs_as_in_onnx_runtime(name: str, exporter: str) -> None:
    model = parse_model(exported(name, exporter))
    module = OnnxModule(model).eval()
    x = network(name).rows(5)

    got = module(x)
    expected = run_stock(write_arrays(model, {}), x.numpy(), module.static_batch)
    assert np.abs(got.detach().numpy() - expected).max() <= 1e-5 * np.abs(expected).max()
    assert module.output.shape[1:] == expected.shape[1:]
    assert module.static_batch == (1 if exporter.endswith("static") else None)

    got.square().sum().backward()
    assert {weight for weight in module.weight_names if module.tensors()[weight].grad is None} == set()


@pytest.mark.parametrize(("name", "exporter"), EXPORTS)
def test_the_way_back_is_exact(name: str, exporter: str) -> None:
    model = parse_model(exported(name, exporter))
    before = float_tensors(model)
    tensors = {key: tensor.detach().numpy() for key, tensor in OnnxModule(model).tensors().items()}
    assert tensors.keys() <= before.keys()
    written = write_arrays(model, tensors)
    after = float_tensors(parse_model(written.SerializeToString()))
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[key], after[key]) and before[key].dtype == after[key].dtype for key in before)


class OneDevice(TorchDispatchMode):
    """Fails where an operator gets data on two devices, as a CUDA kernel would. The device `meta` stands for any but the CPU."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor) and leaf.dim() > 0]
        assert len({tensor.device.type for tensor in tensors}) <= 1, f"{func} on two devices"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("name", "exporter"), [export for export in EXPORTS if export[1] in ("legacy-17", "dynamo", "dynamo-unoptimised")])
def test_shapes_stay_on_the_cpu_while_the_data_are_elsewhere(name: str, exporter: str) -> None:
    module = OnnxModule(parse_model(exported(name, exporter)))
    x = network(name).rows(5)
    expected = module(x).shape
    with OneDevice():
        result = module.to("meta")(x.to("meta"))
    assert result.shape == expected
    assert result.device.type == "meta"


def test_every_parameter_of_an_unfolded_network_is_found() -> None:
    module = OnnxModule(parse_model(exported("resnet", "dynamo-unoptimised")))
    assert sum(tensor.numel() for tensor in module.tensors().values()) == sum(tensor.numel() for tensor in network("resnet").parameters())
    assert len(module.weight_names) == 5


def test_changed_weights_come_back_in_onnx_runtime() -> None:
    model = parse_model(exported("lenet", "dynamo"))
    module = OnnxModule(model).eval()
    with torch.no_grad():
        for tensor in module.tensors().values():
            tensor.mul_(torch.rand_like(tensor))
    written = write_arrays(model, {key: tensor.detach().numpy() for key, tensor in module.tensors().items()})
    x = network("lenet").rows(5)
    np.testing.assert_allclose(module(x).detach().numpy(), run_stock(written, x.numpy(), None), rtol=1e-4, atol=1e-6)
