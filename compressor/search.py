"""The search for the smallest model inside the accuracy budget: branches of falling KL weight, each fitted, swept and fine-tuned."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from compressor.config import CompressionConfig
from compressor.errors import Diverged
from compressor.graph.module import OnnxModule
from compressor.intake import Baseline
from compressor.progress import ProgressTracker
from compressor.report import LogAlphaQuantiles, Training
from compressor.selection.curve import Candidate, choose
from compressor.selection.magnitude import magnitude_masks
from compressor.training.checkpoint import CheckpointFile, optimizer_tensors, restore_optimizer
from compressor.training.fit import FineTuneOptions, FitOptions, fine_tune, fit_posterior, posterior_optimizer
from compressor.training.schedule import Schedule
from compressor.training.seeds import derive_seed
from compressor.training.steps import Probe, tensor_scales
from compressor.variational.elbo import NegativeElbo
from compressor.variational.posterior import Posterior

_FIT_COST = 2.5  # a variational step, in dense ones (two products instead of one, noise, KL)
_FINE_TUNE_PART = 0.1  # of the step size of the fit
_SMALLER_STEP = 0.3  # after a branch that diverged in spite of the probe
_MAX_SMALLER_STEPS = 3

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Outcome:
    """What the search found: the tensors of the delivered and of the control model by ONNX name, and the whole curve."""

    delivered: Literal["variational", "magnitude"]
    tensors: Tensors
    metric: float
    control_tensors: Tensors
    curve: list[Candidate]
    chosen: Candidate
    log_alpha: dict[str, LogAlphaQuantiles]
    training: Training


@dataclass
class _Position:
    """Where the search stands; with the tensors beside it, all that a resumed run needs."""

    log_alpha_init: float | None = None
    step_size: float | None = None
    smaller_steps: int = 0
    branch: int = 0
    epochs: int = 0
    swept: int = 0
    finished: bool = False
    curve: list[Candidate] = field(default_factory=list)
    chosen: int = -1
    log_alpha: dict[str, LogAlphaQuantiles] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"log_alpha": {name: quantiles.model_dump() for name, quantiles in self.log_alpha.items()}}

    @classmethod
    def from_json(cls, state: dict[str, Any]) -> "_Position":
        curve = [Candidate(**point) for point in state["curve"]]
        log_alpha = {name: LogAlphaQuantiles(**quantiles) for name, quantiles in state["log_alpha"].items()}
        return cls(**(state | {"curve": curve, "log_alpha": log_alpha}))


class Search:
    """One run of the search over a module, which it leaves with the delivered tensors in place.

    Args:
        module: the uploaded model.
        baseline: its rows, its metric and the budget.
        config, schedule: the options, and the sizes resolved from them.
        tracker: told of the work done.
        checkpoint: read at the start, written now and then.
    """

    def __init__(
        self,
        module: OnnxModule,
        baseline: Baseline,
        config: CompressionConfig,
        schedule: Schedule,
        tracker: ProgressTracker,
        checkpoint: CheckpointFile,
    ) -> None:
        self._module = module
        self._baseline = baseline
        self._config = config
        self._schedule = schedule
        self._tracker = tracker
        self._checkpoint = checkpoint
        self._dense = self._copy_tensors()
        self._scales = tensor_scales(module)
        self._best: Tensors = {}
        self._position = _Position()

    def run(self) -> Outcome:
        """Raises: Diverged."""
        restored = self._restore()
        self._probe()
        while not self._position.finished:
            self._plan()
            try:
                posterior = self._fit(restored)
                self._sweep(posterior)
            except Diverged as error:
                self._take_smaller_steps(error)
            else:
                self._next_branch()
            restored = {}
        return self._control()

    def _probe(self) -> None:
        """Finds out what noise and which steps the dense network bears, where the configuration does not say."""
        position, config = self._position, self._config
        if position.step_size is not None:
            return
        position.log_alpha_init, position.step_size = config.log_alpha_init, config.step_size
        if position.log_alpha_init is None or position.step_size is None:
            self._tracker.enter("probe")
            seed = derive_seed(config.seed, "probe")
            probe = Probe(self._module, self._baseline.readout, self._baseline.train, self._schedule.batch_size, seed)
            if position.log_alpha_init is None:
                position.log_alpha_init = probe.log_alpha()
            if position.step_size is None:
                position.step_size = probe.step_size(position.log_alpha_init)

    # One branch

    def _fit(self, restored: Mapping[str, Tensor]) -> Posterior:
        """Fits a posterior from the dense weights, or goes on with the restored one."""
        position, schedule, config = self._position, self._schedule, self._config
        training = self._training
        self._set_tensors(self._dense)
        weights = self._module.tensors()
        posterior = Posterior({name: weights[name] for name in self._module.weight_names}, training.log_alpha_init)
        options = FitOptions(
            beta=self._beta,
            kl_warmup_fraction=config.kl_warmup_fraction,
            step_size=training.step_size,
            learning_rate_log_sigma2=config.learning_rate_log_sigma2,
            batch_size=schedule.batch_size,
            epochs=schedule.epochs,
            seed=derive_seed(config.seed, "fit", position.branch),
        )
        optimizer = posterior_optimizer(self._module, posterior, self._scales, options)
        if restored and position.epochs:
            self._restore_posterior(posterior, optimizer, restored)
        if position.epochs == schedule.epochs:
            return posterior
        self._tracker.enter("fit")
        train = self._baseline.train
        group_axes = self._module.group_axes if config.group_prior == "ard" else None
        negative_elbo = NegativeElbo(posterior, config.prior, len(train), group_axes)

        def on_epoch(epochs: int, mean_nll: float) -> None:
            position.epochs = epochs
            kept = sum(int(mask.sum()) for mask in posterior.keep_masks(max(config.thresholds)).values())
            numel = sum(mean.numel() for mean in posterior.means.values())
            self._tracker.advance(0.0, {"epoch": epochs, "loss": mean_nll, "sparsity": 1 - kept / numel, "beta": self._beta})
            self._save(posterior, optimizer, at_once=epochs == schedule.epochs)

        fit_posterior(
            self._module,
            posterior,
            negative_elbo,
            self._baseline.readout,
            optimizer,
            train,
            options,
            first_epoch=position.epochs,
            on_step=lambda rows: self._tracker.advance(_FIT_COST * rows),
            on_epoch=on_epoch,
        )
        return posterior

    def _sweep(self, posterior: Posterior) -> None:
        """Fine-tunes the survivors of every threshold, smallest model first; the masks are nested, so equal counts are equal masks."""
        self._tracker.enter("sweep")
        position = self._position
        fitted = self._copy_tensors()
        log_alpha = posterior.log_alpha()
        seen = {point.nnz for point in position.curve if point.beta == self._beta}
        for index, threshold in enumerate(sorted(self._config.thresholds)):
            if index < position.swept:
                continue
            masks = {name: values < threshold for name, values in log_alpha.items()}
            self._set_tensors(fitted)
            if self._nnz_under(masks) in seen:
                position.swept = index + 1
                self._tracker.advance(self._schedule.fine_tune_epochs * len(self._baseline.train))
                continue
            metric = self._fine_tune_under(masks)
            seen.add(self._nnz())
            self._add(Candidate(self._beta, threshold, self._nnz(), metric), log_alpha)
            position.swept = index + 1
            self._set_tensors_and_save(fitted, posterior)
        self._set_tensors(fitted)

    def _take_smaller_steps(self, error: Diverged) -> None:
        """Begins the branch anew with smaller steps; where the step size is the client's own, or that has not helped, it is an error."""
        position = self._position
        if self._config.step_size is not None or position.smaller_steps == _MAX_SMALLER_STEPS:
            raise error
        position.smaller_steps += 1
        position.step_size = self._training.step_size * _SMALLER_STEP
        position.epochs, position.swept = 0, 0

    def _next_branch(self) -> None:
        position = self._position
        inside = any(self._baseline.is_inside(point.metric) for point in position.curve)
        if inside or position.branch == self._config.max_beta_halvings:
            position.finished = True
        else:
            position.branch, position.epochs, position.swept = position.branch + 1, 0, 0
        self._save(None, None, at_once=True)

    # The control, and the choice between the two

    def _control(self) -> Outcome:
        """Magnitude pruning of the dense model to the chosen point's size, with the same fine-tuning; the better one is delivered."""
        if not self._tracker.progress:  # resumed after the last branch
            self._tracker.plan(self._schedule.fine_tune_epochs * len(self._baseline.train))
        self._tracker.enter("control")
        position = self._position
        chosen = position.curve[position.chosen]
        self._set_tensors(self._dense)
        weights = self._module.tensors()
        prunable = {name: weights[name] for name in self._module.weight_names}
        others = self._nnz() - sum(int(weight.count_nonzero()) for weight in prunable.values())
        metric = self._fine_tune_under(magnitude_masks(prunable, max(0, chosen.nnz - others)))
        control = self._copy_tensors()
        wins = self._baseline.is_better(metric, chosen.metric)
        self._set_tensors(control if wins else self._best)
        return Outcome(
            delivered="magnitude" if wins else "variational",
            tensors=control if wins else self._best,
            metric=metric if wins else chosen.metric,
            control_tensors=control,
            curve=position.curve,
            chosen=chosen,
            log_alpha=position.log_alpha,
            training=self._training,
        )

    def _fine_tune_under(self, masks: Mapping[str, Tensor]) -> float:
        """Fine-tunes the module in place, with the same batches for every mask. Returns: the metric on validation."""
        seed = derive_seed(self._config.seed, "fine_tune")
        schedule, baseline = self._schedule, self._baseline
        options = FineTuneOptions(self._training.fine_tune_step_size, schedule.batch_size, schedule.fine_tune_epochs, seed)
        fine_tune(self._module, masks, self._scales, baseline.readout, baseline.train, options, on_step=self._tracker.advance)
        return baseline.measure(self._module)

    # Bookkeeping

    @property
    def _training(self) -> Training:
        position, schedule = self._position, self._schedule
        assert position.log_alpha_init is not None  # noqa: S101  probed before the first branch
        assert position.step_size is not None  # noqa: S101
        return Training(
            log_alpha_init=position.log_alpha_init,
            step_size=position.step_size,
            batch_size=schedule.batch_size,
            epochs=schedule.epochs,
            fine_tune_epochs=schedule.fine_tune_epochs,
            fine_tune_step_size=self._config.fine_tune_step_size or position.step_size * _FINE_TUNE_PART,
        )

    @property
    def _beta(self) -> float:
        return self._config.beta * 0.5**self._position.branch

    def _add(self, candidate: Candidate, log_alpha: Mapping[str, Tensor]) -> None:
        """Puts a point on the curve, and keeps its tensors where it is the best so far."""
        position, baseline = self._position, self._baseline
        position.curve.append(candidate)
        self._tracker.advance(0.0, {"threshold": candidate.threshold, "nnz": candidate.nnz, "metric": candidate.metric})
        if choose(position.curve, baseline.kind, baseline.dense.value, baseline.max_metric_drop) is candidate:
            position.chosen = len(position.curve) - 1
            position.log_alpha = {name: _quantiles(values) for name, values in log_alpha.items()}
            self._best = self._copy_tensors()

    def _plan(self) -> None:
        """This branch from its first step on, and the control."""
        rows = len(self._baseline.train)
        fine_tuning = self._schedule.fine_tune_epochs * rows
        epochs = self._schedule.epochs * rows * _FIT_COST
        self._tracker.plan(epochs + (len(self._config.thresholds) + 1) * fine_tuning)
        self._tracker.skip(self._position.epochs * rows * _FIT_COST + self._position.swept * fine_tuning)

    def _copy_tensors(self) -> Tensors:
        return {name: tensor.detach().clone() for name, tensor in self._module.state().items()}

    @torch.no_grad()
    def _set_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        for name, tensor in self._module.state().items():
            tensor.copy_(tensors[name])

    def _nnz(self) -> int:
        """Nonzero elements of all tensors with two or more dimensions."""
        return sum(int(tensor.count_nonzero()) for tensor in self._module.tensors().values() if tensor.ndim >= 2)

    def _nnz_under(self, masks: Mapping[str, Tensor]) -> int:
        tensors = self._module.tensors()
        kept = sum(int((tensors[name] * mask).count_nonzero()) for name, mask in masks.items())
        return kept + sum(int(tensor.count_nonzero()) for name, tensor in tensors.items() if tensor.ndim >= 2 and name not in masks)

    # The checkpoint: tensors go by their position in the module, since names are the client's

    def _save(self, posterior: Posterior | None, optimizer: torch.optim.Adam | None, at_once: bool) -> None:
        if not (at_once or self._checkpoint.is_due()):
            return
        tensors = {f"best/{index}": tensor for index, tensor in enumerate(self._best.values())}
        if posterior is not None:
            tensors |= {f"parameter/{index}": tensor.detach() for index, tensor in enumerate(self._module.state().values())}
            tensors |= {f"log_sigma2/{index}": tensor.detach() for index, tensor in enumerate(posterior.log_sigma2.values())}
        if optimizer is not None:
            tensors |= optimizer_tensors(optimizer)
        self._checkpoint.save(self._position.to_json(), tensors)

    def _set_tensors_and_save(self, fitted: Tensors, posterior: Posterior) -> None:
        """The sweep resumes from the fitted tensors, not from the fine-tuned ones."""
        self._set_tensors(fitted)
        self._save(posterior, None, at_once=True)

    def _restore(self) -> Mapping[str, Tensor]:
        """Takes up the position of the checkpoint, where there is one. Returns: its tensors."""
        loaded = self._checkpoint.load()
        if loaded is None:
            return {}
        state, tensors = loaded
        self._position = _Position.from_json(state)
        if self._position.chosen >= 0:
            self._best = {name: tensors[f"best/{index}"] for index, name in enumerate(self._module.state())}
        return tensors

    @torch.no_grad()
    def _restore_posterior(self, posterior: Posterior, optimizer: torch.optim.Adam, tensors: Mapping[str, Tensor]) -> None:
        for index, parameter in enumerate(self._module.state().values()):
            parameter.copy_(tensors[f"parameter/{index}"])
        for index, log_sigma2 in enumerate(posterior.log_sigma2.values()):
            log_sigma2.copy_(tensors[f"log_sigma2/{index}"])
        restore_optimizer(optimizer, tensors)


def _quantiles(values: Tensor) -> LogAlphaQuantiles:
    levels = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95])
    ordered = values.flatten().sort().values
    q05, q25, q50, q75, q95 = ordered[(levels * (len(ordered) - 1)).round().long()].tolist()
    return LogAlphaQuantiles(q05=q05, q25=q25, q50=q50, q75=q75, q95=q95)
