"""A network in a few lines."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class Network(nn.Module):
    """Modules and a function over them. Its input has the given shape, without the batch: numbers, or ids of `tokens` kinds."""

    def __init__(
        self, function: Callable[[Any, Tensor], Tensor], shape: tuple[int, ...], *, tokens: int = 0, **parts: nn.Module | nn.Parameter
    ) -> None:
        super().__init__()
        self.function, self.shape, self.tokens = function, shape, tokens
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)

    def rows(self, count: int) -> Tensor:
        """A batch of random rows, the same ones every time."""
        generator = torch.Generator().manual_seed(2)
        if self.tokens:
            return torch.randint(self.tokens, (count, *self.shape), generator=generator)
        return torch.randn(count, *self.shape, generator=generator)
