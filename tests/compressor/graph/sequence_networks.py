"""Networks over sequences and tokens, and image networks that resize or fold."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.compressor.graph.modules import Network


def lstm() -> Network:
    layers = nn.LSTM(4, 6, num_layers=2, bidirectional=True, batch_first=True)
    return Network(lambda net, x: net.head(net.layers(x)[0][:, -1]), (7, 4), layers=layers, head=nn.Linear(12, 3))


def gru() -> Network:
    """Over tokens; what goes on is the last hidden state."""

    def run(net: Any, x: Tensor) -> Tensor:
        return net.head(net.layer(net.embedding(x))[1].transpose(0, 1).flatten(1))

    return Network(
        run, (7,), tokens=11, embedding=nn.Embedding(11, 4), layer=nn.GRU(4, 5, batch_first=True, bidirectional=True), head=nn.Linear(10, 3)
    )


def rnn() -> Network:
    layer = nn.RNN(4, 6, nonlinearity="relu", batch_first=True, bias=False)
    return Network(lambda net, x: net.head(net.layer(x)[0].mean(1)), (7, 4), layer=layer, head=nn.Linear(6, 3))


def embedding() -> Network:
    """A bag of words with a padding token, whose weight is also that of the output."""

    def run(net: Any, x: Tensor) -> Tensor:
        kept = (x != 0).float().unsqueeze(-1)
        mean = (net.table(x) * kept).sum(1) / kept.sum(1).clamp(min=1)
        return F.linear(net.norm(mean), net.table.weight)

    return Network(run, (6,), tokens=9, table=nn.Embedding(9, 5, padding_idx=0), norm=nn.LayerNorm(5))


def encoder() -> Network:
    """Token and position embeddings, two layers of a transformer, a mean over the tokens."""

    def run(net: Any, x: Tensor) -> Tensor:
        return net.head(net.layers(net.table(x) + net.positions).mean(1))

    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True, activation="gelu")
    layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    for parameter in layers.parameters():  # the layers begin as copies, which exporters write once
        nn.init.normal_(parameter, std=0.4)
    positions = nn.Parameter(torch.randn(6, 8))
    return Network(run, (6,), tokens=13, table=nn.Embedding(13, 8), positions=positions, layers=layers, head=nn.Linear(8, 4))


def attention() -> Network:
    """Self-attention under a causal mask."""

    def run(net: Any, x: Tensor) -> Tensor:
        y, _ = net.attention(x, x, x, attn_mask=net.mask, need_weights=False)
        return net.head(net.norm(x + y).flatten(1))

    mask = nn.Parameter(torch.full((5, 5), -1e9).triu(1), requires_grad=False)
    parts = {"attention": nn.MultiheadAttention(8, 2, batch_first=True), "norm": nn.LayerNorm(8), "head": nn.Linear(40, 3)}
    return Network(run, (5, 8), mask=mask, **parts)


def unet() -> Network:
    """Down and up again, by every kind of interpolation."""

    def run(net: Any, x: Tensor) -> Tensor:
        x = torch.relu(net.stem(x))
        down = torch.relu(net.down(F.max_pool2d(x, 2)))
        y = F.interpolate(down, scale_factor=2, mode="bilinear") + F.interpolate(down, scale_factor=2)
        y = y + F.interpolate(down, size=(8, 8), mode="bilinear", align_corners=True) + F.interpolate(down, size=(8, 8), mode="bicubic")
        return net.up(torch.cat([x, y], 1)).mean([2, 3])

    return Network(run, (2, 8, 8), stem=nn.Conv2d(2, 4, 3, padding=1), down=nn.Conv2d(4, 4, 3, padding=1), up=nn.Conv2d(8, 3, 3, padding=1))


def folding() -> Network:
    """Patches through a linear layer and back to an image, with overlap."""

    def run(net: Any, x: Tensor) -> Tensor:
        patches = F.unfold(x, 4, padding=1, stride=2).transpose(1, 2)
        return net.head(F.fold(net.patch(patches).transpose(1, 2), (8, 8), 4, padding=1, stride=2).flatten(1))

    return Network(run, (1, 8, 8), patch=nn.Linear(16, 16), head=nn.Linear(64, 3))


SEQUENCE_NETWORKS: dict[str, Callable[[], Network]] = {
    make.__name__: make for make in (lstm, gru, rnn, embedding, encoder, attention, unet, folding)
}
