"""The network of a round is smaller only where it is proven to be the same."""

import numpy as np
import pytest
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper

from compressor.graph.module import OnnxModule
from compressor.graph.validate import parse_model
from compressor.search import network
from compressor.search.network import Network
from compressor.structure import Compaction, compact

RNG = np.random.default_rng(0)


@pytest.fixture
def model() -> ModelProto:
    """Of 30 hidden units 20 are dead."""
    tensors = {"w": RNG.standard_normal((30, 20)), "b": np.zeros(30), "v": RNG.standard_normal((5, 30))}
    tensors["w"][10:] = 0
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["h"], transB=1),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "v"], ["y"], transB=1),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", size]) for name, size in (("x", 20), ("y", 5))]
    initialisers = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in tensors.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], initialisers)
    return parse_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString())


def miscut(given: ModelProto, arrays: dict[str, np.ndarray], **_: object) -> Compaction:
    found = compact(given, arrays)
    tensor = next(tensor for tensor in found.model.graph.initializer if tensor.name == "v")
    tensor.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(tensor), "v"))
    return found


def test_dead_units_go(model: ModelProto) -> None:
    whole = OnnxModule(model)
    tensors = {name: tensor.detach().clone() for name, tensor in whole.state().items()}
    held = Network.holding(whole, model, tensors)
    assert held.module.state()["w"].shape == (10, 20)
    assert torch.equal(held.tensors()["w"], tensors["w"])


def test_a_network_with_other_outputs_is_not_taken(model: ModelProto, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "compact", miscut)
    whole = OnnxModule(model)
    tensors = {name: tensor.detach().clone() for name, tensor in whole.state().items()}
    held = Network.holding(whole, model, tensors)
    assert held.module is whole
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in held.tensors().items())
