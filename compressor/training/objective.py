"""What the data term of training is: the likelihood of the labels, the uploaded model's own outputs as targets, or both."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from compressor.config import CompressionConfig
from compressor.graph.module import OnnxModule
from compressor.training.readout import Readout
from compressor.training.rows import Batch, Rows

_CACHED_BYTES = 2**28  # of the teacher's outputs on all rows


class Teacher:
    """The logits of the uploaded model: computed once for all rows, or batch by batch where rows are augmented or the outputs are large.

    Args:
        module: holds the uploaded model's tensors; they are read here, or copied.
        rows: those that will be trained on.
        batch_size: rows of a forward pass.
    """

    def __init__(self, module: OnnxModule, rows: Rows, batch_size: int) -> None:
        self._module: OnnxModule | None = None
        self._cache: Tensor | None = None
        module.eval()
        with torch.no_grad():
            first = module(*rows.take(slice(0, batch_size))[0], logits=True)
            if rows.augment is not None or first[0].numel() * first.element_size() * len(rows) > _CACHED_BYTES:
                self._module = copy.deepcopy(module).eval()
                return
            others = [
                module(*rows.take(slice(start, start + batch_size))[0], logits=True) for start in range(batch_size, len(rows), batch_size)
            ]
        self._cache = torch.cat([first, *others])

    @torch.no_grad()
    def logits(self, batch: Batch) -> Tensor:
        """Those of the rows of a batch, without gradient."""
        if self._cache is not None:
            return self._cache[batch.index]
        assert self._module is not None  # noqa: S101  one of the two is there
        found: Tensor = self._module(*batch.inputs, logits=True)
        return found


@dataclass(frozen=True)
class Objective:
    """(1 - weight) times the negative log-likelihood of the labels, plus weight times the divergence from the teacher, in nats per row.

    Attributes:
        teacher: None where `weight` is 0.
        weight: in [0, 1]; with 1 the labels are not looked at.
        temperature: the logits of both are divided by it, the divergence is multiplied by its square (Hinton et al. 2015,
            arXiv:1503.02531).
    """

    readout: Readout
    teacher: Teacher | None = None
    weight: float = 0.0
    temperature: float = 1.0

    def mean_loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """A scalar, mean over the rows of the batch."""
        if self.teacher is None:
            return self.readout.mean_nll(logits, batch.labels)
        divergence = self.readout.mean_divergence(logits, self.teacher.logits(batch), self.temperature)
        if self.weight == 1.0:
            return divergence
        return (1.0 - self.weight) * self.readout.mean_nll(logits, batch.labels) + self.weight * divergence


def objective_of(module: OnnxModule, readout: Readout, rows: Rows, config: CompressionConfig, batch_size: int) -> Objective:
    """What a run trains towards.

    Args:
        module: holds the uploaded model's tensors.
        rows: those that will be trained on.
        batch_size: rows of the teacher's forward pass.
    """
    teacher = Teacher(module, rows, batch_size) if config.distillation_weight > 0 else None
    return Objective(readout, teacher, config.distillation_weight, config.distillation_temperature)
