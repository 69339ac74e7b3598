"""Other libraries of sparse variational dropout, from PyPI: installed beside our environment, and put in the place of dense layers."""

import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

# Without what they depend on: torch, numpy and scipy are here, and torchvision is unused.
REQUIREMENTS = ("cplxmodule==2022.6", "pytorch-ard==0.2.4")
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bayespress" / "peers"

MakeLinear = Callable[..., nn.Module]


@contextmanager
def peers_installed(folder: Path = CACHE) -> Iterator[None]:
    """With the two importable, from `folder`, into which they are installed where they are missing."""
    if not all((folder / f"{name.replace('==', '-').replace('pytorch-ard', 'pytorch_ard')}.dist-info").is_dir() for name in REQUIREMENTS):
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade", "--target", str(folder), *REQUIREMENTS]
        subprocess.run(command, check=True)
    version = folder / "cplxmodule" / "__version__.py"
    if not version.exists():  # its setup.py writes it, and some builds leave it out
        version.write_text('__version__ = "2022.6"\n')
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


class Peer:
    """A library's layers: `variational` puts them in the place of dense ones, `kl` is its penalty, a scalar in nats."""

    def __init__(self, linear: MakeLinear, conv2d: MakeLinear, kl: Callable[[nn.Module], Tensor], *, conv_bias: bool) -> None:
        self._linear, self._conv2d, self._conv_bias = linear, conv2d, conv_bias
        self.kl = kl

    @torch.no_grad()
    def variational(self, network: nn.Module) -> nn.Module:
        """`network` with every Linear and Conv2d replaced, the weights and the biases that fit taken over; changes it in place."""
        for name, part in list(network.named_modules()):
            if isinstance(part, nn.Linear):
                layer = self._linear(part.in_features, part.out_features)
            elif isinstance(part, nn.Conv2d):
                options: dict[str, Any] = {"bias": part.bias is not None} if self._conv_bias else {}
                layer = self._conv2d(part.in_channels, part.out_channels, part.kernel_size, part.stride, part.padding, **options)
            else:
                continue
            layer.load_state_dict({key: tensor for key, tensor in part.state_dict().items() if key in layer.state_dict()}, strict=False)
            network.set_submodule(name, layer)
        return network


def load_peers() -> dict[str, Peer]:
    """By name; to be called while they are installed."""
    relevance: Any = importlib.import_module("cplxmodule.nn.relevance")
    torch_ard: Any = importlib.import_module("torch_ard")

    def penalty(network: nn.Module) -> Tensor:
        total: Tensor = sum(relevance.penalties(network, reduction="sum"))
        return total

    return {
        "cplxmodule VD": Peer(relevance.LinearVD, relevance.Conv2dVD, penalty, conv_bias=True),
        "cplxmodule ARD": Peer(relevance.LinearARD, relevance.Conv2dARD, penalty, conv_bias=True),
        # Its convolutions take no bias: "goes to nan if bias = True".
        "pytorch-ard": Peer(torch_ard.LinearARD, torch_ard.Conv2dARD, torch_ard.get_ard_reg, conv_bias=False),
    }
