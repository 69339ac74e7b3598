"""Smaller networks of units that are no plain neurons can be trained in place of the whole ones."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from onnx import ModelProto

from compressor.graph.module import OnnxModule
from compressor.graph.validate import parse_model
from compressor.search.network import Network, count_live
from tests.compressor.structure import test_convolutions, test_heads, test_lookups, test_recurrent
from tests.compressor.structure.checks import Arrays

Planted = tuple[ModelProto, Arrays, np.ndarray]


def recurrent(kind: str) -> Planted:
    model, arrays = test_recurrent.layer(kind, directions=2, states=["zeros", "zeros"][: 2 if kind == "LSTM" else 1], outputs=["Y", "Y_h"])
    test_recurrent.unread(arrays, 1, kind)
    test_recurrent.deaf(arrays, 2, kind, 0)
    return model, arrays, test_recurrent.ROWS


def grouped(kind: str) -> Planted:
    model, arrays = test_convolutions.in_groups(kind, groups=3)
    arrays["w2"][:, 2:4] = 0
    return model, arrays, test_convolutions.ROWS


def heads() -> Planted:
    arrays = test_heads.tensors()
    arrays["wo"][: test_heads.SIZE] = 0
    arrays["wv"][:, -test_heads.SIZE :] = 0
    return test_heads.attention(arrays, test_heads.SOFTMAX), arrays, test_heads.ROWS


def columns() -> Planted:
    model, arrays = test_lookups.words(test_lookups.node("Relu", ["e"], "h"))
    arrays["w"][[1, 4]] = 0
    return model, arrays, test_lookups.IDS % test_lookups.TOKENS


CASES: dict[str, Callable[[], Planted]] = {
    **{kind: lambda kind=kind: recurrent(kind) for kind in test_recurrent.GATES},
    **{kind: lambda kind=kind: grouped(kind) for kind in ("Conv", "ConvTranspose")},
    "heads": heads,
    "columns": columns,
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_smaller_network_learns_for_the_whole_one(case: Callable[[], Planted]) -> None:
    model, arrays, rows = case()
    model = parse_model(model.SerializeToString())
    whole, x = OnnxModule(model), torch.from_numpy(rows)
    tensors = {name: torch.from_numpy(arrays[name]) if name in arrays else tensor.detach() for name, tensor in whole.state().items()}
    Network(whole).load(tensors)
    expected = whole(x).detach()
    network = Network.holding(whole, model, tensors)
    assert network.module is not whole
    assert network.cost < 0.8
    torch.testing.assert_close(network.module(x), expected, rtol=1e-4, atol=1e-5)
    live = count_live(whole, model, tensors)
    assert 0 < live < sum(int(tensor.count_nonzero()) for tensor in tensors.values() if tensor.ndim >= 2)
    optimizer = torch.optim.SGD(network.module.parameters(), 0.05)
    for _ in range(3):
        optimizer.zero_grad()
        network.module(x).square().mean().backward()
        optimizer.step()
    learnt = network.module(x).detach()
    assert not torch.allclose(learnt, expected, rtol=1e-3)
    Network(whole).load(network.tensors())
    torch.testing.assert_close(whole(x), learnt, rtol=1e-4, atol=1e-5)
