"""Attention, RotaryEmbedding and RMSNormalization against stock ONNX Runtime, and what the node tests leave open."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from compressor.graph.node import Node
from compressor.graph.ops import OPERATORS
from tests.compressor.graph.models import node, values
from tests.compressor.graph.single_node import Case, assert_equals_onnx_runtime

KEY, VALUE = values(2, 4, 6, 8, seed=1), values(2, 4, 6, 3, seed=2)
PAST = (values(2, 4, 2, 8, seed=3), values(2, 4, 2, 3, seed=4))


def cases() -> Iterator[Case]:
    four = (2, 4, 5, 8)
    mask = np.where(values(5, 6, seed=5) > 0, np.float32(0), np.float32(-2))
    for attributes in ({}, {"is_causal": 1}, {"scale": 0.3, "softcap": 2.0}):
        yield Case("Attention", 23, four, (KEY, VALUE), attributes)
        yield Case("Attention", 23, four, (KEY, VALUE, mask), attributes)
    yield Case("Attention", 23, four, (KEY, VALUE, mask == 0))
    yield Case("Attention", 23, four, (KEY, VALUE, None, *PAST), {"is_causal": 1}, 3)
    grouped = (values(2, 6, 2 * 8, seed=1), values(2, 6, 2 * 3, seed=2))
    yield Case("Attention", 23, (2, 5, 4 * 8), grouped, {"q_num_heads": 4, "kv_num_heads": 2})
    caches = (values(9, 4, seed=1), values(9, 4, seed=2))
    positions = np.array([[0, 3, 2], [8, 1, 1]])
    for interleaved in (0, 1):
        yield Case("RotaryEmbedding", 23, (2, 4, 3, 8), (*caches, positions), {"interleaved": interleaved})
        yield Case("RotaryEmbedding", 23, (2, 3, 32), (*caches, positions), {"num_heads": 4, "interleaved": interleaved})
    part = (values(2, 3, 2, seed=1), values(2, 3, 2, seed=2))
    yield Case("RotaryEmbedding", 23, (2, 4, 3, 8), part, {"rotary_embedding_dim": 4})
    yield Case("RMSNormalization", 23, (2, 3, 4), (values(3, 4),), {"axis": 1, "epsilon": 0.1})


@pytest.mark.parametrize("case", list(cases()), ids=str)
def test_it_equals_onnx_runtime(case: Case) -> None:
    assert_equals_onnx_runtime(case, values(*case.shape))


def attention(**attributes: object) -> object:
    return OPERATORS["Attention"].build(Node.from_proto(node("Attention", ["q", "k", "v", "m"], "y", **attributes), 23))


def test_a_query_that_may_look_nowhere_gives_zero_and_finite_gradients() -> None:
    q, k, v = (torch.randn(1, 1, 3, 4, requires_grad=True) for _ in range(3))
    mask = torch.tensor([[True, True, True], [False, False, False], [True, False, False]])
    y = attention()(q, k, v, mask)[0]
    assert torch.equal(y[0, 0, 1], torch.zeros(4))
    torch.testing.assert_close(y[0, 0, 2], v[0, 0, 0])
    y.square().sum().backward()
    assert all(tensor.grad.isfinite().all() for tensor in (q, k, v))


def test_a_mask_that_is_too_short_shuts_out_the_rest() -> None:
    q, k, v = (torch.randn(1, 1, 3, 4) for _ in range(3))
    for mask in (torch.zeros(3, 2), torch.ones(3, 2, dtype=torch.bool)):
        torch.testing.assert_close(attention()(q, k, v, mask)[0], attention()(q, k[:, :, :2], v[:, :, :2])[0])


def test_rows_one_by_one_inside_vmap_and_on_another_device() -> None:
    run = attention(is_causal=1, q_num_heads=2, kv_num_heads=1)
    q, k, v = torch.randn(3, 5, 8), torch.randn(3, 5, 4), torch.randn(3, 5, 4)
    rows = torch.func.vmap(lambda *row: run(*(tensor.unsqueeze(0) for tensor in row))[0].squeeze(0))(q, k, v)
    torch.testing.assert_close(rows, run(q, k, v)[0])
    assert run(q.to("meta"), k.to("meta"), v.to("meta"))[0].shape == (3, 5, 8)
