"""Architectures in plain torch: those that are a page long or have no library that everyone takes them from."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from tests.benchmarks.zoo.builders.built import Built
from tests.benchmarks.zoo.builders.torch_exports import NUM_ROWS, built, images

_CLASSES = 10


class _Function(nn.Module):
    """Modules and a function over them."""

    def __init__(self, function: Callable[[Any, Tensor], Tensor], **parts: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def lenet() -> Built:
    """LeNet-5 as Caffe has it."""
    layers = nn.Sequential(
        *(nn.Conv2d(1, 20, 5), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(20, 50, 5), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten()),
        *(nn.Dropout(0.3), nn.Linear(800, 500), nn.ReLU(), nn.Dropout(0.4), nn.Linear(500, _CLASSES)),
    )
    return built(layers, images(1, 28))


def vgg() -> Built:
    """VGG with batch normalisation; the view in front of the head bakes a fixed batch into a static file."""
    plan = ((3, 16), (16, 16), None, (16, 32), (32, 32), None, (32, 64), (64, 64), None)
    parts: list[nn.Module] = []
    for step in plan:
        parts += [nn.MaxPool2d(2)] if step is None else [nn.Conv2d(*step, 3, padding=1), nn.BatchNorm2d(step[1]), nn.ReLU()]
    head = nn.Sequential(nn.Linear(1024, 128), nn.ReLU(), nn.Dropout(), nn.Linear(128, _CLASSES))
    network = _Function(lambda net, x: net.head(net.features(x).view(x.size(0), -1)), features=nn.Sequential(*parts), head=head)
    return built(network, images(3, 32))


class _Fire(nn.Module):
    def __init__(self, inputs: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeezed, 1)
        self.one, self.three = nn.Conv2d(squeezed, expanded, 1), nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.squeeze(x))
        return torch.cat([torch.relu(self.one(x)), torch.relu(self.three(x))], 1)


def squeezenet() -> Built:
    layers = nn.Sequential(
        *(nn.Conv2d(3, 32, 3, 2), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True), _Fire(32, 8, 32), _Fire(64, 8, 32)),
        *(nn.MaxPool2d(3, 2, ceil_mode=True), _Fire(64, 16, 64), _Fire(128, 16, 64), nn.Dropout(), nn.Conv2d(128, _CLASSES, 1)),
        *(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    )
    for part in layers.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")  # without norms, the default lets the signal die out
    return built(layers, images(3, 64))


def _unit(inputs: int, outputs: int, size: int | tuple[int, int], **options: Any) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, size, bias=False, **options), nn.BatchNorm2d(outputs, eps=1e-3), nn.ReLU())


class _Inception(nn.Module):
    """Four branches, one with kernels of 1 by 5 and 5 by 1, and the average pooling of Inception v3."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [
                _unit(inputs, width, 1),
                nn.Sequential(_unit(inputs, width // 2, 1), _unit(width // 2, width, 3, padding=1)),
                nn.Sequential(
                    _unit(inputs, width // 2, 1),
                    _unit(width // 2, width // 2, (1, 5), padding=(0, 2)),
                    _unit(width // 2, width, (5, 1), padding=(2, 0)),
                ),
                nn.Sequential(nn.AvgPool2d(3, 1, 1, count_include_pad=False), _unit(inputs, width, 1)),
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


def inception() -> Built:
    layers = nn.Sequential(
        *(_unit(3, 32, 3, stride=2), nn.MaxPool2d(3, 2), _Inception(32, 24), _Inception(96, 32), nn.MaxPool2d(3, 2)),
        *(_Inception(128, 48), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(192, _CLASSES)),
    )
    return built(layers, images(3, 64))


class _Block(nn.Sequential):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(_unit(inputs, outputs, 3, padding=1), _unit(outputs, outputs, 3, padding=1))


class _UNet(nn.Module):
    def __init__(self, widths: tuple[int, ...] = (16, 32, 64)) -> None:
        super().__init__()
        self.down = nn.ModuleList([_Block(inputs, outputs) for inputs, outputs in pairwise((3, *widths))])
        self.up = nn.ModuleList([nn.ConvTranspose2d(outputs, inputs, 2, 2) for inputs, outputs in pairwise(widths)])
        self.joined = nn.ModuleList([_Block(2 * width, width) for width in widths[:-1]])
        self.pool, self.head = nn.MaxPool2d(2), nn.Conv2d(widths[0], 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        passed = []
        for block in self.down[:-1]:
            x = block(x)
            passed.append(x)
            x = self.pool(x)
        x = self.down[-1](x)
        for up, joined, skip in reversed(list(zip(self.up, self.joined, passed, strict=True))):
            x = joined(torch.cat([skip, up(x)], 1))
        return self.head(x)


def unet() -> Built:
    return built(_UNet(), images(3, 32))


def autoencoder() -> Built:
    """A convolutional one, whose way back upsamples once by transposed convolution and once by interpolation."""
    layers = nn.Sequential(
        *(nn.Conv2d(1, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 49, 32)),
        *(nn.Linear(32, 32 * 49), nn.ReLU(), nn.Unflatten(1, (32, 7, 7)), nn.ConvTranspose2d(32, 16, 3, 2, 1, 1), nn.ReLU()),
        *(nn.Upsample(scale_factor=2), nn.Conv2d(16, 1, 3, padding=1), nn.Sigmoid()),
    )
    return built(layers, images(1, 28))


def conv1d() -> Built:
    layers = nn.Sequential(
        *(nn.Conv1d(6, 32, 7, 2, 3), nn.BatchNorm1d(32), nn.GELU(), nn.MaxPool1d(2), nn.Conv1d(32, 64, 5, padding=2, groups=2)),
        *(nn.BatchNorm1d(64), nn.GELU(), nn.AdaptiveAvgPool1d(4), nn.Flatten(), nn.Linear(256, _CLASSES)),
    )
    return built(layers, torch.randn(NUM_ROWS, 6, 96))


class _Causal(nn.Module):
    """A residual block of the temporal convolutional network: dilated, padded on the left, weight-normalised."""

    def __init__(self, inputs: int, outputs: int, dilation: int) -> None:
        super().__init__()
        self.pad = nn.ConstantPad1d((2 * dilation, 0), 0.0)
        self.first = nn.utils.parametrizations.weight_norm(nn.Conv1d(inputs, outputs, 3, dilation=dilation))
        self.second = nn.utils.parametrizations.weight_norm(nn.Conv1d(outputs, outputs, 3, dilation=dilation))
        self.shortcut = nn.Conv1d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.second(self.pad(torch.relu(self.first(self.pad(x))))))
        return torch.relu(y + self.shortcut(x))


def tcn() -> Built:
    body = nn.Sequential(*[_Causal(inputs, 32, 2**level) for level, inputs in enumerate((4, 32, 32, 32))])
    return built(
        _Function(lambda net, x: net.head(net.body(x)[:, :, -1]), body=body, head=nn.Linear(32, _CLASSES)), torch.randn(NUM_ROWS, 4, 64)
    )


def transformer_encoder() -> Built:
    """Two layers that are copies of each other, as a fresh nn.TransformerEncoder has them: the legacy exporter writes them once."""
    layer = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    network = _Function(lambda net, x: net.head(net.encoder(x).mean(1)), encoder=encoder, head=nn.Linear(64, _CLASSES))
    return built(network, torch.randn(NUM_ROWS, 12, 64))


def _recurrent(kind: type[nn.RNNBase]) -> Built:
    body = kind(8, 32, num_layers=2, bidirectional=True, batch_first=True)
    return built(
        _Function(lambda net, x: net.head(net.body(x)[0][:, -1]), body=body, head=nn.Linear(64, _CLASSES)), torch.randn(NUM_ROWS, 10, 8)
    )


def lstm() -> Built:
    """Two layers, both directions."""
    return _recurrent(nn.LSTM)


def gru() -> Built:
    """Two layers, both directions."""
    return _recurrent(nn.GRU)
