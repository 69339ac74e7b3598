"""How far a step goes: Adam's rate of a tensor is a part of the tensor's own size, and a short probe finds which part a network bears.

LeNet-300-100 takes steps of a tenth of a weight and prunes the better for it; a MobileNet whose batch normalisation is folded into
its convolutions is destroyed by a twentieth of that. No constant fits both, and no user knows theirs.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import count, islice

import torch
from torch import Tensor

from compressor.config import ConvNoise
from compressor.graph.module import OnnxModule
from compressor.training.readout import Readout
from compressor.training.rows import Batch, Rows, shuffled_batches
from compressor.training.seeds import derive_seed
from compressor.variational.posterior import Posterior, mean_square

# Largest first. At 0.14, LeNet-300-100 still trains, and ends a tenth of a point worse at the same size.
STEP_SIZES = (0.1, 0.07, 0.05, 0.03, 0.02, 0.01, 0.005, 0.002, 0.001, 0.0005)
LOG_ALPHAS = (-3.0, -4.0, -6.0, -8.0)

_PROBE_STEPS = 30
_NOISE_BATCHES = 5
_NOISE_COST = 0.02  # of the way from the dense loss to that of guessing
_PROBE_ROWS = 64  # a loss of fewer rows says little about a single step
_NEXT_TO_NOTHING, _SCALE_OF_NOTHING = 1e-4, 0.1  # of the median weight


def tensor_scales(module: OnnxModule, masks: Mapping[str, Tensor] | None = None) -> dict[str, float]:
    """Root mean square of every trainable tensor, by ONNX name: the unit in which its steps are counted.

    A tensor of zeros, such as a bias that was never trained, counts as a tenth of the median weight tensor: it is to move too.

    Args:
        masks: True = keep, by name; of a weight that has one, the kept elements count.
    """
    kept = {} if masks is None else masks
    scales = {name: math.sqrt(mean_square(tensor, kept.get(name))) for name, tensor in module.tensors().items()}
    weights = sorted(scales[name] for name in module.weight_names)
    median = weights[len(weights) // 2] or 1.0
    return {name: scale if scale > _NEXT_TO_NOTHING * median else _SCALE_OF_NOTHING * median for name, scale in scales.items()}


class Probe:
    """Short trials on the dense weights, which are in place again after each.

    Args:
        module: holds the dense weights.
        readout: how its output is read.
        rows: training rows.
        batch_size: that of the run.
        seed: of noise and order.
        conv_noise: that of the run.
    """

    def __init__(
        self, module: OnnxModule, readout: Readout, rows: Rows, batch_size: int, seed: int, conv_noise: ConvNoise = "weights"
    ) -> None:
        self._conv_noise: ConvNoise = conv_noise
        self._module = module
        self._readout = readout
        self._num_data = len(rows)
        self._batch_size = batch_size
        self._seed = seed
        self._scales = tensor_scales(module)
        torch.manual_seed(derive_seed(seed, "augmentation"))
        self._batches = list(islice(_endless(rows, batch_size, seed), _PROBE_STEPS))
        self._dense_nll = self._mean_nll(self._batches[:_NOISE_BATCHES], None)
        # A network may be surer of its errors than one that guesses.
        self._lost_nll = max(readout.guessing_nll(rows.labels), 2 * self._dense_nll)

    def log_alpha(self, candidates: Sequence[float] = LOG_ALPHAS) -> float:
        """The largest initial log_alpha whose noise leaves the training loss about where it is."""
        for log_alpha in candidates[:-1]:
            noisy = self._mean_nll(self._batches[:_NOISE_BATCHES], self._posterior(log_alpha))
            if noisy <= self._dense_nll + _NOISE_COST * (self._lost_nll - self._dense_nll):
                return log_alpha
        return candidates[-1]

    def step_size(self, log_alpha: float, candidates: Sequence[float] = STEP_SIZES) -> float:
        """The largest step size with which no loss of the first steps is worse than guessing."""
        dense = {name: tensor.detach().clone() for name, tensor in self._module.state().items()}
        try:
            return next((step_size for step_size in candidates[:-1] if self._survives(step_size, log_alpha, dense)), candidates[-1])
        finally:
            self._set(dense)

    def _survives(self, step_size: float, log_alpha: float, dense: dict[str, Tensor]) -> bool:
        self._set(dense)
        posterior = self._posterior(log_alpha)
        groups = [{"params": [tensor], "lr": step_size * self._scales[name]} for name, tensor in self._module.tensors().items()]
        optimizer = torch.optim.Adam(groups, fused=True)
        window = max(1, _PROBE_ROWS // self._batch_size)
        losses: list[float] = []
        self._module.train()
        torch.manual_seed(derive_seed(self._seed, "probe"))
        for batch in self._batches:
            optimizer.zero_grad(set_to_none=True)
            mean_nll = self._readout.mean_nll(self._module(*batch.inputs, values=posterior.values(), logits=True), batch.labels)
            (self._num_data * mean_nll).backward()  # type: ignore[no-untyped-call]  # torch leaves Tensor.backward untyped
            optimizer.step()
            losses.append(float(mean_nll.detach()))
            recent = losses[-window:]
            if not sum(recent) / len(recent) <= self._lost_nll:  # NaN, too
                return False
        return True

    @torch.no_grad()
    def _mean_nll(self, batches: Sequence[Batch], posterior: Posterior | None) -> float:
        values = None if posterior is None else posterior.values()
        self._module.eval()
        torch.manual_seed(derive_seed(self._seed, "noise"))
        losses = [self._readout.mean_nll(self._module(*batch.inputs, values=values, logits=True), batch.labels) for batch in batches]
        return float(torch.stack(losses).mean())

    def _posterior(self, log_alpha: float) -> Posterior:
        weights = self._module.tensors()
        return Posterior({name: weights[name] for name in self._module.weight_names}, log_alpha, conv_noise=self._conv_noise)

    @torch.no_grad()
    def _set(self, tensors: dict[str, Tensor]) -> None:
        for name, tensor in self._module.state().items():
            tensor.copy_(tensors[name])


def _endless(rows: Rows, batch_size: int, seed: int) -> Iterator[Batch]:
    for epoch in count():
        yield from shuffled_batches(rows, batch_size, derive_seed(seed, "probe", epoch))
