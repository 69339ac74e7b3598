"""Roles: what the data cannot hold on to does not learn."""

import numpy as np
import pytest
import torch
from onnx import NodeProto, TensorProto

from compressor.errors import NoWeights
from compressor.graph.module import OnnxModule
from tests.compressor.graph.models import model_of, node, values

BLOCKED = {
    "ArgMax": [node("ArgMax", ["v_x"], "i", axis=1), node("Cast", ["i"], "b", to=TensorProto.FLOAT)],
    "comparison": [node("Greater", ["v_x", "zero"], "i"), node("Cast", ["i"], "b", to=TensorProto.FLOAT)],
    "choice": [node("Greater", ["v_x", "zero"], "i"), node("Where", ["i", "one", "zero"], "b")],
    "integers": [node("Cast", ["v_x"], "i", to=TensorProto.INT32), node("Cast", ["i"], "b", to=TensorProto.FLOAT)],
    "Hardmax": [node("Hardmax", ["v_x"], "b")],
    "Round": [node("Round", ["v_x"], "b")],
}


@pytest.mark.parametrize("steps", BLOCKED.values(), ids=BLOCKED)
@pytest.mark.parametrize("reused", [False, True])
def test_what_no_gradient_reaches_is_fixed(steps: list[NodeProto], reused: bool) -> None:
    nodes = [node("MatMul", ["x", "v"], "v_x"), *steps, node("MatMul", ["x", "w"], "w_x"), node("Add", ["w_x", "b"], "sum")]
    nodes += [node("MatMul", ["sum", "v"], "y")] if reused else [node("Identity", ["sum"], "y")]
    arrays = {"v": values(3, 3), "w": values(3, 3, seed=1), "zero": np.zeros(1, np.float32), "one": np.ones(1, np.float32)}
    module = OnnxModule(model_of(nodes, {"x": ["n", 3]}, {"y": ["n", 3]}, arrays))
    assert set(module.weight_names) == ({"v", "w"} if reused else {"w"})
    assert module.tensors().keys() == set(module.weight_names)
    module(torch.randn(5, 3)).square().sum().backward()
    assert all(tensor.grad is not None and tensor.grad.any() for tensor in module.tensors().values())


def test_a_model_that_gives_only_steps_is_refused() -> None:
    nodes = [node("MatMul", ["x", "w"], "scores"), node("Hardmax", ["scores"], "y")]
    with pytest.raises(NoWeights, match="gradient"):
        OnnxModule(model_of(nodes, {"x": ["n", 4]}, {"y": ["n", 3]}, {"w": values(4, 3)}))
