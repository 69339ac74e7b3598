"""Scaled dot-product attention and rotary positions, as opset 23 has them."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from compressor.graph.gaussian import Run
from compressor.graph.node import Node
from compressor.graph.ops.table import check_elements, operator
from compressor.graph.tensors import compute_dtype


@operator("Attention", multiple=True)
def attention(node: Node) -> Run:
    query_heads, key_heads = node.int("q_num_heads", 0), node.int("kv_num_heads", 0)
    causal, softcap, scale = bool(node.int("is_causal", 0)), node.float("softcap", 0.0), node.attributes.get("scale")
    precision = compute_dtype(node.int("softmax_precision", 0), node.label) if "softmax_precision" in node.attributes else None
    shown = node.int("qk_matmul_output_mode", 0)

    def run(
        q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, past_k: Tensor | None = None, past_v: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        joined = q.dim() == 3
        if joined:
            q, k, v = _heads(q, query_heads), _heads(k, key_heads), _heads(v, key_heads)
        past = 0
        if past_k is not None and past_v is not None:
            past = past_k.shape[2]
            k, v = torch.cat([past_k, k], 2), torch.cat([past_v, v], 2)
        check_elements(node, [*q.shape[:3], k.shape[2]])
        groups = q.shape[1] // k.shape[1]  # query heads that share a key head
        keys, values = (k, v) if groups == 1 else (k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1))
        factor = math.sqrt(q.shape[-1] ** -0.5 if scale is None else scale)
        products = (q * factor) @ (keys * factor).transpose(2, 3)
        capped = softcap * torch.tanh(products / softcap) if softcap else products
        bias = _bias(capped, mask, past if causal else None)
        masked = capped if bias is None else capped + bias
        weights = _softmax(masked, bias, precision or q.dtype).to(q.dtype)
        y = weights @ values
        return (y.transpose(1, 2).flatten(2) if joined else y), k, v, (products, capped, masked, weights)[shown]

    return run


def _heads(x: Tensor, heads: int) -> Tensor:
    """(batch, length, heads * size) as (batch, heads, length, size)."""
    return x.reshape(*x.shape[:2], heads, x.shape[2] // heads).transpose(1, 2)


def _bias(scores: Tensor, mask: Tensor | None, past: int | None) -> Tensor | None:
    """What is added to the scores: minus infinity where a query must not look. `past`: keys before the first query, where it is causal."""
    bias = None
    if mask is not None:
        bias = mask if mask.is_floating_point() else torch.zeros_like(mask, dtype=scores.dtype).masked_fill(~mask, -math.inf)
        if missing := scores.shape[-1] - bias.shape[-1]:
            bias = F.pad(bias, [0, missing], value=-math.inf)
    if past is not None:
        seen = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril(past)
        ahead = torch.zeros_like(seen, dtype=scores.dtype).masked_fill(~seen, -math.inf)
        bias = ahead if bias is None else bias + ahead
    return bias


def _softmax(scores: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Rows that may look nowhere give 0, and finite gradients."""
    if bias is None:
        return torch.softmax(scores, -1, dtype=dtype)
    blind = (bias == -math.inf).all(-1, keepdim=True)
    return torch.softmax(scores.masked_fill(blind, 0.0), -1, dtype=dtype).masked_fill(blind, 0.0)


@operator("RotaryEmbedding", frozen=(1, 2, 3))
def rotary_embedding(node: Node) -> Run:
    interleaved, heads, rotated = bool(node.int("interleaved", 0)), node.int("num_heads", 0), node.int("rotary_embedding_dim", 0)

    def run(x: Tensor, cos: Tensor, sin: Tensor, positions: Tensor | None = None) -> Tensor:
        """`cos` and `sin`: (positions, half) with `positions` to choose among them, else (batch, length, half)."""
        split = _heads(x, heads) if x.dim() == 3 else x
        width = rotated or split.shape[-1]
        turned, rest = split[..., :width], split[..., width:]
        if positions is not None:
            cos, sin = cos[positions], sin[positions]
        cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
        first, second = (turned[..., 0::2], turned[..., 1::2]) if interleaved else turned.chunk(2, -1)
        parts = [cos * first - sin * second, sin * first + cos * second]
        joined = torch.stack(parts, -1).flatten(-2) if interleaved else torch.cat(parts, -1)
        y = torch.cat([joined, rest], -1)
        return y.transpose(1, 2).flatten(2) if x.dim() == 3 else y

    return run
