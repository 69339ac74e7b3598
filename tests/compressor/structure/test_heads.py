"""Heads of attention: as exporters write them, and as one operator."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from onnx import ModelProto, NodeProto, TensorProto, helper
from torch import Tensor, nn

from compressor.graph.validate import parse_model
from compressor.graph.write import float_tensors
from compressor.structure import Compaction
from tests.compressor.graph.models import model_of, node, values
from tests.compressor.graph.modules import Network
from tests.compressor.graph.networks import EXPORTERS, export
from tests.compressor.structure.checks import Arrays, check, pruned, sizes

HEADS, SIZE, LENGTH = 4, 3, 5
WIDTH = HEADS * SIZE


def _heads(x: Tensor) -> Tensor:
    return x.view(*x.shape[:2], HEADS, SIZE).transpose(1, 2)


def _joined(net: Any, x: Tensor) -> Tensor:
    return net.out(x.transpose(1, 2).reshape(x.shape[0], LENGTH, WIDTH)).mean(1)


def apart(net: Any, x: Tensor) -> Tensor:
    """Three products, softmax written out."""
    q, k, v = (_heads(part(x)) for part in (net.q, net.k, net.v))
    return _joined(net, torch.softmax(q @ k.transpose(-1, -2) / 2, -1) @ v)


def packed(net: Any, x: Tensor) -> Tensor:
    """One product, split into queries, keys, values and heads at once, as timm does."""
    q, k, v = net.qkv(x).reshape(*x.shape[:2], 3, HEADS, SIZE).permute(2, 0, 3, 1, 4).unbind(0)
    return _joined(net, F.scaled_dot_product_attention(q, k, v))


def causal(net: Any, x: Tensor) -> Tensor:
    """One product, split into three sections, under a causal mask, as in GPT-2."""
    q, k, v = (_heads(part) for part in net.qkv(x).split(WIDTH, 2))
    return _joined(net, F.scaled_dot_product_attention(q, k, v, is_causal=True))


def torch_own(net: Any, x: Tensor) -> Tensor:
    """nn.MultiheadAttention, which puts the heads into one axis with the batch."""
    return net.attention(x, x, x, need_weights=False)[0].mean(1)


def torch_own_with_weights(net: Any, x: Tensor) -> Tensor:
    """The same, computed otherwise."""
    return net.attention(x, x, x)[0].mean(1)


KINDS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    each.__name__: each for each in (apart, packed, causal, torch_own, torch_own_with_weights)
}
ROWS = values(3, LENGTH, 6)


def network(kind: str, *, constant: int | None = 2) -> Network:
    """Nobody reads the first head; the values of the head `constant` do not depend on the input."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        parts: dict[str, nn.Module] = {name: nn.Linear(WIDTH, WIDTH) for name in "qkv"}
        parts |= {"qkv": nn.Linear(WIDTH, 3 * WIDTH), "out": nn.Linear(WIDTH, 2), "first": nn.Linear(6, WIDTH)}
        made = Network(
            lambda net, x: KINDS[kind](net, torch.tanh(net.first(x))),
            (LENGTH, 6),
            **parts,
            attention=nn.MultiheadAttention(WIDTH, HEADS, batch_first=True),
        )
        for parameter in made.parameters():
            nn.init.normal_(parameter, std=0.5)
    with torch.no_grad():
        of_values = {"apart": made.v.weight, "packed": made.qkv.weight, "causal": made.qkv.weight}.get(kind, made.attention.in_proj_weight)
        (made.attention.out_proj if kind.startswith("torch") else made.out).weight[:, :SIZE] = 0
        if constant is not None:
            of_values[-WIDTH:][constant * SIZE : (constant + 1) * SIZE] = 0
    return made.eval()


@cache
def exported(kind: str, exporter: str) -> bytes:
    made = network(kind)
    return export(made, made.rows(1 if exporter.endswith("static") else 3), **EXPORTERS[exporter])


@pytest.mark.parametrize("exporter", ["dynamo", "legacy-17", "legacy-static"])
@pytest.mark.parametrize("kind", KINDS)
def test_heads_that_nobody_reads_or_that_are_constant_go(kind: str, exporter: str) -> None:
    model = parse_model(exported(kind, exporter))
    arrays = float_tensors(model)
    found = check(model, arrays, ROWS[:1] if exporter.endswith("static") else ROWS)
    before, after = (sum(array.size for array in tensors.values()) for tensors in (arrays, found.shrink(arrays)))
    outputs = WIDTH if kind.startswith("torch") else 2
    assert before - after == 2 * SIZE * (3 * (WIDTH + 1) + outputs)


def attention(arrays: Mapping[str, np.ndarray], *inner: NodeProto) -> ModelProto:
    """By hand: `inner` makes weights p of the scores s."""
    nodes = [
        *(step for part in "qkv" for step in _projected(part)),
        *(node("Transpose", ["qh"], "qt", perm=[0, 2, 1, 3]), node("Transpose", ["kh"], "kt", perm=[0, 2, 3, 1])),
        *(node("Transpose", ["vh"], "vt", perm=[0, 2, 1, 3]), node("MatMul", ["qt", "kt"], "s"), *inner),
        *(node("MatMul", ["p", "vt"], "o"), node("Transpose", ["o"], "ot", perm=[0, 2, 1, 3]), node("Reshape", ["ot", "join"], "j")),
        *(node("MatMul", ["j", "wo"], "om"), node("Add", ["om", "bo"], "y")),
    ]
    numbers = {"split": np.array([0, 0, HEADS, SIZE]), "join": np.array([0, 0, WIDTH]), **arrays}
    return model_of(nodes, {"x": ["n", LENGTH, 6]}, {"y": ["n", LENGTH, 2]}, numbers)


def _projected(part: str) -> list[NodeProto]:
    return [
        *(node("MatMul", ["x", f"w{part}"], f"{part}m"), node("Add", [f"{part}m", f"b{part}"], f"{part}a")),
        node("Reshape", [f"{part}a", "split"], f"{part}h"),
    ]


def tensors() -> Arrays:
    made = {f"w{part}": values(6, WIDTH, seed=seed) for seed, part in enumerate("qkv")}
    made |= {f"b{part}": values(WIDTH, seed=seed) for seed, part in enumerate("qkv", 3)}
    return made | {"wo": values(WIDTH, 2, seed=6), "bo": values(2, seed=7)}


SOFTMAX = node("Softmax", ["s"], "p", axis=-1)


def heads_of(found: Compaction) -> list[int]:
    kept = found.kept["wv"][1]
    return list(range(HEADS)) if kept is None else sorted({int(index) // SIZE for index in kept})


def test_constant_values_go_into_the_next_bias() -> None:
    arrays = tensors()
    arrays["wv"][:, SIZE : 2 * SIZE] = 0
    found = check(attention(arrays, SOFTMAX), arrays, ROWS)
    assert heads_of(found) == [0, 2, 3]
    held = arrays["bv"][SIZE : 2 * SIZE] @ arrays["wo"][SIZE : 2 * SIZE]
    np.testing.assert_allclose(found.folded["bo"], arrays["bo"] + held, rtol=1e-5)
    assert {name: shape for name, shape in sizes(found).items() if name in ("wq", "bq", "wk", "wo")} == {
        **{"wq": (6, 9), "bq": (9,), "wk": (6, 9), "wo": (9, 2)},
    }


def test_single_columns_of_a_head_stay() -> None:
    """Their number would have to be the same in all heads; what they hold still goes into the bias."""
    arrays = tensors()
    arrays["wv"][:, [0, 4]] = 0
    found = check(attention(arrays, SOFTMAX), arrays, ROWS)
    assert heads_of(found) == [0, 1, 2, 3]
    assert not found.folded["wo"][[0, 4]].any()


def test_queries_and_keys_of_0_are_no_dead_head() -> None:
    """All positions then get the same weight."""
    arrays = tensors()
    arrays["wq"][:, :SIZE] = 0
    arrays["wk"][:, SIZE : 2 * SIZE] = 0
    assert heads_of(check(attention(arrays, SOFTMAX), arrays, ROWS)) == [0, 1, 2, 3]


GUARDED = [
    *(node("Softmax", ["s"], "w", axis=-1), node("IsNaN", ["w"], "nan"), node("Where", ["nan", "nothing", "w"], "p")),
]
INNER = {
    "a mask for all heads": ([node("Add", ["s", "mask"], "t"), node("Softmax", ["t"], "p", axis=-1)], [1, 2]),
    "a mask by a value": (
        [
            *(node("ReduceSum", ["x", "last"], "r"), node("Unsqueeze", ["r", "places"], "m")),
            *(node("Add", ["s", "m"], "t"), node("Softmax", ["t"], "p", axis=-1)),
        ],
        [1, 2],
    ),
    "a bias for each head": ([node("Add", ["s", "biases"], "t"), node("Softmax", ["t"], "p", axis=-1)], [1, 2]),
    "no rows of nothing": (GUARDED, [0, 1, 2]),
    "no softmax": ([node("Sigmoid", ["s"], "p")], [0, 1, 2]),
    "softmax over positions that look": ([node("Softmax", ["s"], "p", axis=-2)], [0, 1, 2]),
    "softmax over heads": ([node("Softmax", ["s"], "p", axis=1)], [0, 1, 2, 3]),
}


@pytest.mark.parametrize(("inner", "left"), INNER.values(), ids=INNER)
def test_what_stands_between_scores_and_values(inner: list[NodeProto], left: list[int]) -> None:
    """The values of the first head are a constant other than 0, and nobody reads the last head."""
    arrays = tensors()
    arrays["wv"][:, :SIZE] = 0
    arrays["wo"][3 * SIZE :] = 0
    used = {name for each in inner for name in each.input}
    numbers = {"mask": np.triu(np.full((LENGTH, LENGTH), -1e9, np.float32), 1), "biases": values(1, HEADS, LENGTH, LENGTH)}
    numbers |= {"nothing": np.float32([0]), "last": np.array([2]), "places": np.array([1])}
    given = {name: number for name, number in numbers.items() if name in used}
    found = check(attention(arrays | given, *inner), arrays, ROWS)
    assert heads_of(found) == left
    if "biases" in given:
        assert sizes(found)["biases"] == (1, 2, LENGTH, LENGTH)


def test_heads_whose_weights_are_mixed_have_values_of_their_own() -> None:
    """The scores of a head are read by the others even where its values are not."""
    arrays = tensors() | {"mix": values(HEADS, HEADS)}
    arrays["wo"][3 * SIZE :] = 0
    mixing = [
        *(node("Softmax", ["s"], "w", axis=-1), node("Transpose", ["w"], "turned", perm=[0, 2, 3, 1])),
        *(node("MatMul", ["turned", "mix"], "z"), node("Transpose", ["z"], "p", perm=[0, 3, 1, 2])),
    ]
    found = check(attention(arrays, *mixing), arrays, ROWS)
    assert heads_of(found) == [0, 1, 2]
    assert (sizes(found)["wq"], sizes(found)["mix"]) == ((6, WIDTH), (HEADS, 3))


def test_values_that_are_read_elsewhere_too_keep_their_heads() -> None:
    arrays = tensors()
    arrays["wo"][:SIZE] = 0
    model = attention(arrays, SOFTMAX)
    model.graph.output.append(helper.make_tensor_value_info("va", TensorProto.FLOAT, ["n", LENGTH, WIDTH]))
    assert heads_of(check(model, arrays, ROWS)) == [0, 1, 2, 3]
    del model.graph.output[-1]
    model.graph.output.append(helper.make_tensor_value_info("p", TensorProto.FLOAT, ["n", HEADS, LENGTH, LENGTH]))
    assert heads_of(check(model, arrays, ROWS)) == [0, 1, 2, 3]


@pytest.mark.parametrize("seed", range(6))
def test_any_masks_of_heads(seed: int) -> None:
    rng = np.random.default_rng(seed)
    arrays = pruned(tensors(), seed, dead=0.3, kept=0.8)
    for head in range(HEADS):
        for name, axis in (("wq", 1), ("wk", 1), ("wv", 1), ("wo", 0)):
            if rng.random() < 0.3:
                np.moveaxis(arrays[name], axis, 0)[head * SIZE : (head + 1) * SIZE] = 0
    arrays["bv"][: WIDTH // 2] = 0
    check(attention(arrays, SOFTMAX), arrays, ROWS)
    check(operator(arrays, is_causal=seed % 2), arrays, ROWS)


def operator(
    arrays: Mapping[str, np.ndarray], *, key_heads: int = HEADS, four: bool = False, mask: bool = False, **attributes: Any
) -> ModelProto:
    """The operator Attention, on three dimensions or four."""
    names = [f"{part}{'t' if four else 'a'}" for part in "qkv"] + (["mask"] if mask else [])
    split = [node("Transpose", [f"{part}h"], f"{part}t", perm=[0, 2, 1, 3]) for part in "qkv"] if four else []
    heads = {} if four else {"q_num_heads": HEADS, "kv_num_heads": key_heads}
    joined = [node("Transpose", ["o"], "ot", perm=[0, 2, 1, 3]), node("Reshape", ["ot", "join"], "j")] if four else []
    nodes = [
        *(step for part in "qkv" for step in (_projected(part) if four else _projected(part)[:2])),
        *(*split, node("Attention", names, "o", **heads, **attributes), *joined),
        *(node("MatMul", ["j" if four else "o", "wo"], "om"), node("Add", ["om", "bo"], "y")),
    ]
    numbers = {"split": np.array([0, 0, HEADS, SIZE]), "join": np.array([0, 0, WIDTH])} if four else {}
    return model_of(nodes, {"x": ["n", LENGTH, 6]}, {"y": ["n", LENGTH, 2]}, {**numbers, **arrays}, opset=23)


@pytest.mark.parametrize("attributes", [{}, {"is_causal": 1}, {"four": True}, {"four": True, "mask": True}, {"mask": True}])
def test_heads_of_the_operator_go(attributes: dict[str, Any]) -> None:
    """The values of the first head are 0, those of the second one a constant, and nobody reads the last one."""
    arrays = tensors()
    arrays["wv"][:, : 2 * SIZE] = 0
    arrays["bv"][:SIZE] = 0
    arrays["wo"][3 * SIZE :] = 0
    given = {"mask": np.triu(np.full((LENGTH, LENGTH), -1e9, np.float32), 1)} if "mask" in attributes else {}
    found = check(operator(arrays | given, **attributes), arrays, ROWS)
    assert heads_of(found) == ([1, 2] if given else [2])


def test_heads_that_share_keys_go_with_them() -> None:
    arrays = tensors()
    arrays |= {name: array[..., : 2 * SIZE] for name, array in arrays.items() if name in ("wk", "bk", "wv", "bv")}
    model = operator(arrays, key_heads=2)
    arrays["wo"][: 3 * SIZE] = 0
    found = check(model, arrays, ROWS)  # the first two have keys of their own, the third one has not
    assert sizes(found) == {
        **{"wq": (6, 6), "bq": (6,), "wk": (6, 3), "bk": (3,), "wv": (6, 3), "bv": (3,), "wo": (6, 2), "bo": (2,)},
    }
    attributes = {attribute.name: attribute.i for each in found.model.graph.node for attribute in each.attribute}
    assert (attributes["q_num_heads"], attributes["kv_num_heads"]) == (2, 1)
