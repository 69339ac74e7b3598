"""Small networks of the usual kinds, and both of PyTorch's exporters, for the tests of the graph."""

import io
import logging
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import onnx
import torch
import torch.nn.functional as F
from onnx import ModelProto
from torch import Tensor, nn

from tests.compressor.graph.modules import Network
from tests.compressor.graph.sequence_networks import SEQUENCE_NETWORKS

BATCH = 3


def mlp() -> Network:
    layers = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 16), nn.Tanh(), nn.Linear(16, 5)
    )
    return Network(lambda net, x: torch.softmax(net.layers(x), -1), (1, 8, 8), layers=layers)


def lenet() -> Network:
    convolutions = nn.Sequential(nn.Conv2d(1, 4, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 5), nn.ReLU(), nn.MaxPool2d(2))
    dense = nn.Sequential(nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 5))
    # view(x.size(0), -1) is what bakes the batch size into a file that is exported with a fixed one.
    return Network(lambda net, x: net.dense(net.convolutions(x).view(x.size(0), -1)), (1, 16, 16), convolutions=convolutions, dense=dense)


def vgg() -> Network:
    layers = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2, 2, ceil_mode=True),
        nn.Dropout(),
        nn.Conv2d(8, 12, 3, padding="same"),
        nn.ELU(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(192, 10),
        nn.LogSoftmax(1),
    )
    return Network(lambda net, x: net.layers(x), (3, 15, 15), layers=layers)


def resnet() -> Network:
    def run(net: Any, x: Tensor) -> Tensor:
        x = F.max_pool2d(torch.relu(net.norm(net.stem(x))), 3, 2, 1)
        y = net.norm2(net.second(torch.relu(net.norm1(net.first(x)))))
        return net.head(torch.relu(y + net.shortcut(x)).mean([2, 3]))

    return Network(
        run,
        (3, 24, 24),
        stem=nn.Conv2d(3, 8, 7, 2, 3, bias=False),
        norm=nn.BatchNorm2d(8),
        first=nn.Conv2d(8, 12, 3, 2, 1, bias=False),
        norm1=nn.BatchNorm2d(12),
        second=nn.Conv2d(12, 12, 3, padding=1, bias=False),
        norm2=nn.BatchNorm2d(12),
        shortcut=nn.Conv2d(8, 12, 1, 2, bias=False),
        head=nn.Linear(12, 10),
    )


def mobilenet() -> Network:
    def run(net: Any, x: Tensor) -> Tensor:
        x = F.hardswish(net.norm(net.stem(x)))
        y = F.relu6(net.depthwise(F.relu6(net.expand(x))))
        gate = F.hardsigmoid(net.excite(F.relu(net.squeeze(F.adaptive_avg_pool2d(y, 1)))))
        return net.head(F.adaptive_avg_pool2d(x + net.project(y * gate), 1).flatten(1))

    return Network(
        run,
        (3, 16, 16),
        stem=nn.Conv2d(3, 8, 3, 2, 1),
        norm=nn.BatchNorm2d(8),
        expand=nn.Conv2d(8, 16, 1),
        depthwise=nn.Conv2d(16, 16, 3, padding=1, groups=16),
        squeeze=nn.Conv2d(16, 4, 1),
        excite=nn.Conv2d(4, 16, 1),
        project=nn.Conv2d(16, 8, 1),
        head=nn.Linear(8, 10),
    )


def shapes() -> Network:
    """Padding of all kinds, shape arithmetic, chunks, strided slices, two heads joined by where."""

    def run(net: Any, x: Tensor) -> Tensor:
        x = F.pad(net.convolution(F.pad(x, (1, 2, 0, 1))), (1, 1, 1, 1), mode="reflect")
        x = F.pad(F.pad(x, (2, 0, 1, 0), mode="replicate"), (1, 1, 1, 1), mode="circular")
        batch, channels, height, width = x.shape
        x = x.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(batch, channels, height, width)
        left, right = x.chunk(2, 1)
        x = net.norm(torch.cat([left * torch.sigmoid(right), right, left], 1))[:, :, ::2, 1:-1]
        x = F.avg_pool2d(F.avg_pool2d(x, 3, 2, 1, count_include_pad=False), 2, ceil_mode=True)
        x = x.permute(0, 2, 3, 1).contiguous().view(x.size(0), -1)
        x = x.unsqueeze(1).expand(-1, 3, -1).mean(1)
        return torch.where(net.one(x) > 0, net.one(x), net.other(x).clamp(-1, 1))

    parts = {"convolution": nn.Conv2d(2, 8, 3), "norm": nn.GroupNorm(2, 12), "one": nn.Linear(96, 6), "other": nn.Linear(96, 6)}
    return Network(run, (2, 12, 10), **parts)


def activations() -> Network:
    """A one-dimensional network with every activation that torch.nn has and both exporters write."""
    parts: tuple[nn.Module, ...] = (
        *(nn.GELU(), nn.Mish(), nn.SiLU(), nn.Softplus(), nn.LeakyReLU(0.2), nn.PReLU(6), nn.SELU(), nn.CELU(), nn.Softsign()),
        *(nn.Hardtanh(), nn.GELU("tanh"), nn.Softshrink(0.01), nn.Hardshrink(0.01), nn.LogSigmoid(), nn.Tanhshrink(), nn.GLU(1)),
    )

    def run(net: Any, x: Tensor) -> Tensor:
        x = F.max_pool1d(net.second(net.activations(net.first(x))), 2)
        return net.head(torch.flatten(x, 1)).squeeze(-1)[:, None]

    first, second = nn.Conv1d(4, 6, 5, stride=2, dilation=2), nn.Conv1d(3, 4, 3, padding=1)
    return Network(run, (4, 36), activations=nn.Sequential(*parts), first=first, second=second, head=nn.Linear(28, 1))


def volume() -> Network:
    layers = nn.Sequential(
        nn.Conv3d(1, 4, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool3d(2),
        nn.ConvTranspose3d(4, 2, 3, 2, 1, 1),
        nn.AvgPool3d(2),
        nn.AdaptiveAvgPool3d(1),
        nn.Flatten(),
        nn.Linear(2, 3),
    )
    return Network(lambda net, x: net.layers(x), (1, 6, 6, 6), layers=layers)


def products() -> Network:
    """Matrix products on either side of a weight that is transposed and sliced, and reductions."""

    def run(net: Any, x: Tensor) -> Tensor:
        y = (x.flatten(1) @ net.sliced.t()[:, 2:10]) @ net.right * net.scale + net.shift
        z = torch.bmm(y.unsqueeze(1), y.unsqueeze(2)).squeeze(-1)
        y = torch.norm(y, dim=1, keepdim=True) + y / (y.std(1, keepdim=True) + 1) + z + F.normalize(y)
        y = net.norm(y) + net.inner(y.view(-1, 2, 3)).reshape(y.shape)
        extremes = y.max(1, keepdim=True).values + y.amin(1, keepdim=True) + y.prod(1, keepdim=True)
        return torch.logsumexp(y, 1, keepdim=True) + extremes + y.abs().sqrt().sum(1, keepdim=True) + net.head(y)

    def parameter(*shape: int) -> nn.Parameter:
        return nn.Parameter(torch.randn(*shape) * 0.3)

    parts = {"sliced": parameter(12, 16), "right": parameter(8, 6), "scale": parameter(6), "shift": parameter(6)}
    return Network(run, (4, 4), **parts, norm=nn.LayerNorm(6), inner=nn.Linear(3, 3), head=nn.Linear(6, 4))


NETWORKS: dict[str, Callable[[], Network]] = {
    make.__name__: make for make in (mlp, lenet, vgg, resnet, mobilenet, shapes, activations, volume, products)
} | SEQUENCE_NETWORKS

_DYNAMIC = {0: torch.export.Dim.DYNAMIC}
_LEGACY = {"dynamo": False, "input_names": ["x"], "dynamic_axes": {"x": {0: "batch"}}}

# What torch.onnx.export is called with; `static` exports have batch size 1.
EXPORTERS: dict[str, dict[str, Any]] = {
    "dynamo": {"dynamo": True, "dynamic_shapes": (_DYNAMIC,)},
    "dynamo-unoptimised": {"dynamo": True, "dynamic_shapes": (_DYNAMIC,), "optimize": False},
    "dynamo-static": {"dynamo": True},
    "legacy-11": _LEGACY | {"opset_version": 11},
    "legacy-13": _LEGACY | {"opset_version": 13},
    "legacy-17": _LEGACY | {"opset_version": 17},
    "legacy-18": _LEGACY | {"opset_version": 18},
    "legacy-static": {"dynamo": False, "opset_version": 14},
    "legacy-training": _LEGACY | {"training": torch.onnx.TrainingMode.TRAINING, "do_constant_folding": False},
}

# What the exporters warn of in their own code.
_WARNINGS = (
    "ONNX Preprocess",
    "Constant folding",
    "Exporting a model to ONNX with a batch_size",
    "The tensor attributes self",
    "Warning: ONNX export of embedding with padding_idx",
    "The .grad attribute of a Tensor that is not a leaf",
)


@cache
def network(name: str) -> Network:
    """A network with weights and statistics that differ from their initial ones, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        made = NETWORKS[name]()
        for part in made.modules():
            if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
                assert part.running_mean is not None
                assert part.running_var is not None
                part.running_mean.normal_()
                part.running_var.uniform_(0.5, 2)
                nn.init.uniform_(part.weight, 0.5, 2)
                nn.init.normal_(part.bias)
    return made.eval()


@cache
def exported(name: str, exporter: str) -> bytes:
    """The network called `name` as an ONNX file."""
    options = EXPORTERS[exporter]
    rows = 1 if exporter.endswith("static") else BATCH
    return export(network(name), network(name).rows(rows), **options)


def export(module: nn.Module, x: Tensor, **options: Any) -> bytes:
    """`module` through torch.onnx.export, without the warnings that both exporters give for their own code."""
    file = io.BytesIO()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)
        for own in _WARNINGS:
            warnings.filterwarnings("ignore", message=own, category=UserWarning)
        torch.onnx.export(module, (x,), file, verbose=False, **options)
    return file.getvalue()


def load(data: bytes) -> ModelProto:
    return onnx.load_from_string(data)
