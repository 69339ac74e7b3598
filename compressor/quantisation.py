"""The delivered model on grids, for the files that are to be the smallest: as coarse as the posterior and the budget allow.

A step of sqrt(12) posterior standard deviations makes a rounding error as large as the noise that the weight was trained to bear: that is
where the search for the coarsest grid begins. The weights are then trained under rounding. Where no grid that is tried so keeps to the
budget, the weights stay as they were trained, and are rounded to 8 bits, else to float16, else not at all.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from onnx import ModelProto
from torch import Tensor

from compressor.artifacts.grid import MAX_CODE, GridTensor, round_step, to_grid
from compressor.artifacts.packed_payload import to_halves
from compressor.config import CompressionConfig
from compressor.errors import Diverged
from compressor.graph.module import OnnxModule
from compressor.graph.write import float_tensors, write_arrays
from compressor.intake import Baseline
from compressor.progress import ProgressTracker
from compressor.report import MetricValue, QuantisedValues, Training
from compressor.training.fit import FineTuneOptions, fine_tune_rounded
from compressor.training.objective import Objective
from compressor.training.rows import shuffled_batches
from compressor.training.seeds import derive_seed

_STEP_OF_SIGMA = math.sqrt(12)  # an error uniform over a step has a standard deviation of step / sqrt(12)
_COARSER, _FINER = 1.25, 0.7
_MOST_TRIES, _MOST_LIMITED_TRIES = 6, 2
_USUAL_TRIES = 2
_BUDGET_PART = 0.25  # what rounding may lose of the budget; pruning has had the rest
_EPOCHS_PART = 0.25  # of a fine-tuning
_FISHER_BATCHES = 100

Arrays = Mapping[str, npt.NDArray[Any]]
Steps = dict[str, float]


@dataclass(frozen=True)
class Quantised:
    """A model with rounded values.

    Attributes:
        model: the graph with these tensors.
        grids: by ONNX name, of every tensor that was trained, the values in `model` exactly. None: what packed_payload.to_halves takes is
            rounded to float16. Empty: nothing is rounded.
        metric: on validation.
        coarseness: steps in units of sqrt(12) posterior standard deviations; 0: each the finest that 8 bits allow; None: no grids.
    """

    model: ModelProto
    grids: Mapping[str, GridTensor] | None
    metric: MetricValue
    coarseness: float | None

    @property
    def values(self) -> QuantisedValues:
        return "grids" if self.grids else "float16" if self.grids is None else "float32"


@dataclass(frozen=True)
class _Try:
    state: dict[str, Tensor]
    steps: Steps
    metric: float
    coarseness: float


class Quantiser:
    """Finds the coarsest grids.

    Args:
        model: the pruned graph, with its tensors.
        output: name of the output that was trained.
        sigmas: posterior standard deviations, by name in the tensors' shapes; of what has none they are those of Laplace's approximation.
        metric: of `model`, on validation.
        baseline, config, objective: those of the run.
        training: what the weights were trained with.
        tracker: told of the work done.
    """

    def __init__(
        self,
        model: ModelProto,
        output: str,
        sigmas: Arrays,
        metric: float,
        baseline: Baseline,
        config: CompressionConfig,
        objective: Objective,
        training: Training,
        tracker: ProgressTracker,
    ) -> None:
        self._model, self._output = model, output
        self._module = OnnxModule(model, output).to(baseline.train.labels.device)
        self._start = {name: tensor.detach().clone() for name, tensor in self._module.state().items()}
        self._metric, self._baseline, self._objective, self._tracker = metric, baseline, objective, tracker
        self._options = FineTuneOptions(
            step_size=training.fine_tune_step_size,
            batch_size=training.batch_size,
            epochs=_epochs(training.fine_tune_epochs),
            seed=derive_seed(config.seed, "quantise"),
        )
        is_limited = config.max_epochs is not None or config.max_seconds is not None
        self._most_tries = _MOST_LIMITED_TRIES if is_limited else _MOST_TRIES
        self._sigmas = self._all_sigmas(sigmas)

    def run(self) -> Quantised:
        """The coarsest of the grids that lose no more than rounding may, else the first of the finer values that does not."""
        self._plan(_USUAL_TRIES)
        self._tracker.enter("quantise")
        tries = [self._try(1.0)]
        factor = _COARSER if self._is_inside(tries[0].metric) else _FINER
        while len(tries) < self._most_tries:
            self._plan(max(1, _USUAL_TRIES - len(tries)))
            tries.append(self._try(tries[-1].coarseness * factor))
            if self._is_inside(tries[-1].metric) != (factor == _COARSER):
                break
        inside = [found for found in tries if self._is_inside(found.metric)]
        return self._to_quantised(max(inside, key=lambda found: found.coarseness)) if inside else self._finer()

    def _plan(self, tries: int) -> None:
        self._tracker.plan({"quantise": tries * self._options.epochs * len(self._baseline.train)})

    def _finer(self) -> Quantised:
        """8 bits, float16 or what was trained, which loses nothing; no weight is trained under rounding here."""
        finest = self._try(0.0, epochs=0)
        if self._is_inside(finest.metric):
            return self._to_quantised(finest)
        halves = write_arrays(self._model, to_halves(float_tensors(self._model)))
        metric = self._evaluate(halves)
        return Quantised(halves, None, metric, None) if self._is_inside(metric.value) else self._exact()

    def _exact(self) -> Quantised:
        return Quantised(self._model, {}, self._evaluate(self._model), None)

    def _evaluate(self, model: ModelProto) -> MetricValue:
        return self._baseline.evaluate(OnnxModule(model, self._output).to(self._baseline.train.labels.device))

    def _is_inside(self, metric: float) -> bool:
        baseline = self._baseline
        if not math.isfinite(metric) or not baseline.kind.is_inside(metric, self._metric, _BUDGET_PART * baseline.max_metric_drop):
            return False
        return baseline.is_inside(metric) or not baseline.is_inside(self._metric)

    def _try(self, coarseness: float, epochs: int | None = None) -> _Try:
        """Args: epochs: of training under rounding; 0: the weights are rounded as they are."""
        options = self._options if epochs is None else replace(self._options, epochs=epochs)
        steps = {name: self._step(name, coarseness) for name in self._sigmas}
        self._load(self._start)
        try:
            fine_tune_rounded(
                self._module,
                partial(_round_to, steps),
                self._objective,
                self._baseline.train,
                options,
                lambda rows: self._tracker.advance(rows, "quantise"),
            )
            metric = self._baseline.measure(self._module)
        except Diverged:
            metric = math.nan
        state = {name: tensor.detach().clone() for name, tensor in self._module.state().items()}
        self._tracker.tell({"coarseness": coarseness, "metric": metric if math.isfinite(metric) else 0.0})
        return _Try(state, steps, metric, coarseness)

    def _step(self, name: str, coarseness: float) -> float:
        """Within the tensor's own size, so that its largest value takes a code from 1 to MAX_CODE."""
        largest = float(self._start[name].abs().max()) or 1.0
        return round_step(min(max(coarseness * _STEP_OF_SIGMA * self._sigmas[name], largest / MAX_CODE), largest))

    def _all_sigmas(self, sigmas: Arrays) -> dict[str, float]:
        """One for each tensor of at least one dimension: of its nonzeros the root of the harmonic mean of sigma^2.

        What has no posterior gets the curvature's share: sigma^2 is proportional to 1 / Fisher information, by the factor that the weights
        with a posterior show; without any of these, by 1 / rows.
        """
        fisher = self._fisher()
        found = {}
        for name in fisher:
            kept = (self._start[name] != 0).cpu().numpy()
            if name in sigmas and kept.any():
                found[name] = float(np.mean(1 / np.square(sigmas[name][kept], dtype=np.float64))) ** -0.5
        informed = [name for name in found if fisher[name] > 0]
        logs = [math.log(found[name] * math.sqrt(fisher[name])) for name in informed]
        factor = math.exp(sum(logs) / len(logs)) if logs else len(self._baseline.train) ** -0.5
        return {name: found.get(name, factor / math.sqrt(fisher[name]) if fisher[name] > 0 else math.inf) for name in fisher}

    def _fisher(self) -> dict[str, float]:
        """The squared gradient of a row's loss, mean over rows and over the tensor's nonzeros (its diagonal, empirical)."""
        module, rows, batch_size = self._module, self._baseline.train, self._options.batch_size
        module.train()
        torch.manual_seed(self._options.seed)
        weights = {name: tensor for name, tensor in module.tensors().items() if tensor.ndim > 0 and tensor.numel()}
        sums = dict.fromkeys(weights, 0.0)
        num_batches = 0
        for batch in islice(shuffled_batches(rows, batch_size, self._options.seed), _FISHER_BATCHES):
            num_batches += 1
            gradients = torch.autograd.grad(
                self._objective.mean_loss(module(*batch.inputs, logits=True), batch), list(weights.values()), allow_unused=True
            )
            for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
                kept = weight != 0
                if gradient is not None and bool(kept.any()):
                    sums[name] += len(batch) * float(gradient[kept].square().mean())
        return {name: total / num_batches for name, total in sums.items()}

    @torch.no_grad()
    def _load(self, state: Mapping[str, Tensor]) -> None:
        for name, tensor in self._module.state().items():
            tensor.copy_(state[name])

    def _to_quantised(self, found: _Try) -> Quantised:
        arrays = {name: tensor.cpu().numpy() for name, tensor in found.state.items()}
        grids = {name: to_grid(arrays[name], step) for name, step in found.steps.items()}
        values = arrays | {name: grid.values() for name, grid in grids.items()}
        self._load(found.state)
        return Quantised(write_arrays(self._model, values), grids, self._baseline.evaluate(self._module), found.coarseness)


def expected_epochs(fine_tune_epochs: int) -> int:
    """Of training under rounding, where a point is fine-tuned for so many."""
    return _USUAL_TRIES * _epochs(fine_tune_epochs)


def _epochs(fine_tune_epochs: int) -> int:
    return max(1, round(_EPOCHS_PART * fine_tune_epochs))


def _round_to(steps: Steps, name: str, tensor: Tensor) -> Tensor:
    return (tensor / steps[name]).round().clamp(-MAX_CODE, MAX_CODE) * steps[name] if name in steps else tensor
