"""Rows in memory, the order they are drawn in, and the predictions over all of them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from compressor.training.readout import Readout

Inputs = tuple[Tensor, ...]


@dataclass(frozen=True)
class Batch:
    """Some rows: what the model takes, their labels, and which rows of the part they are."""

    inputs: Inputs
    labels: Tensor
    index: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Rows:
    """One part of the data on one device.

    Attributes:
        inputs: one tensor per model input, rows first, as stored (uint8 for images).
        labels: class per row, [N] in int64; of a regression its numbers, [N, K] in float32.
        prepare: turns a batch of the inputs into what the model takes.
        augment: changes a batch of the inputs at random, by torch's default generator, where it is trained on; None leaves it alone.
    """

    inputs: Inputs
    labels: Tensor
    prepare: Callable[[Inputs], Inputs]
    augment: Callable[[Inputs], Inputs] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: Tensor | slice) -> tuple[Inputs, Tensor]:
        """The prepared inputs and the labels of some rows."""
        return self.prepare(tuple(_rows_of(part, index) for part in self.inputs)), self.labels[index]

    def draw(self, index: Tensor) -> Batch:
        """Some rows to train on, augmented where that is wanted."""
        parts = tuple(_rows_of(part, index) for part in self.inputs)
        return Batch(self.prepare(parts if self.augment is None else self.augment(parts)), self.labels[index], index)


def _rows_of(part: Tensor, index: Tensor | slice) -> Tensor:
    """part[index]; index_select copies row by row, which is three times as fast."""
    return part[index] if isinstance(index, slice) else part.index_select(0, index)


def shuffled_batches(rows: Rows, batch_size: int, seed: int) -> Iterator[Batch]:
    """All rows once in an order given by the seed; a last batch smaller than half is left out, unless it is the only one."""
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).to(rows.labels.device)
    for start in range(0, num_batches(rows, batch_size) * batch_size, batch_size):
        yield rows.draw(order[start : start + batch_size])


def num_batches(rows: Rows, batch_size: int) -> int:
    """How many batches `shuffled_batches` gives."""
    return max(1, (len(rows) + batch_size // 2) // batch_size)


@torch.no_grad()
def count_correct(module: nn.Module, readout: Readout, rows: Rows, batch_size: int) -> int:
    """Rows that get their own label under the module's own parameters (the posterior means), in inference mode."""
    module.eval()
    correct = 0
    for start in range(0, len(rows), batch_size):
        inputs, labels = rows.take(slice(start, start + batch_size))
        correct += int((readout.predict(module(*inputs)) == labels).sum())
    return correct


@torch.no_grad()
def squared_errors(module: nn.Module, readout: Readout, rows: Rows, batch_size: int) -> Tensor:
    """Of each row of a regression, [N] in float64 on the CPU, under the module's own parameters, in inference mode."""
    module.eval()
    taken = (rows.take(slice(start, start + batch_size)) for start in range(0, len(rows), batch_size))
    return torch.cat([readout.squared_errors(module(*inputs), labels).cpu() for inputs, labels in taken])


@torch.no_grad()
def self_labelled(module: nn.Module, readout: Readout, rows: Rows, batch_size: int) -> Rows:
    """The same rows with the module's own predictions as labels."""
    module.eval()
    starts = range(0, len(rows), batch_size)
    labels = torch.cat([readout.predict(module(*rows.take(slice(start, start + batch_size))[0])) for start in starts])
    return replace(rows, labels=labels)
