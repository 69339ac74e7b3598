"""The course of a search: probe, branches of a few rounds each, the sweep of each branch, the control, and the choice between the two."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from compressor.admission import AdmittedModel
from compressor.artifacts.points import Points
from compressor.config import CompressionConfig
from compressor.errors import Diverged
from compressor.graph.write import float_tensors
from compressor.intake import Baseline
from compressor.progress import Pace, ProgressTracker, ignore
from compressor.report import LogAlphaQuantiles, Training
from compressor.search.control import GRADUAL_PART, train_control
from compressor.search.cuts import Cut, cuts
from compressor.search.network import Network, Tensors, count_live
from compressor.search.position import Position
from compressor.search.resume import Fit, restore_rounds, rounds_to_checkpoint
from compressor.search.work import Allowance, Setting
from compressor.selection.beta import LADDER_STEP, Branch, first_beta, higher_beta, next_beta
from compressor.selection.curve import Candidate, choose, nearest, threshold_of_count
from compressor.training.checkpoint import CheckpointFile
from compressor.training.fit import FitOptions, fine_tune, fit_posterior, posterior_optimizer
from compressor.training.objective import Objective
from compressor.training.rows import num_batches
from compressor.training.schedule import Schedule
from compressor.training.seeds import derive_seed
from compressor.training.steps import Probe, tensor_scales
from compressor.variational.elbo import NegativeElbo
from compressor.variational.posterior import Posterior, log_square

_SECOND_ROUND_PART = 0.5  # of the step size of the first round
_SECOND_WARMUP_FRACTION = 0.2
_FINE_TUNE_PART = 0.05
_KEPT_AFTER_A_ROUND = 3.0  # log_alpha: beyond it a weight is 95 % noise (Molchanov et al. 2017)

_NEVER_ALIVE = 100.0

_SMALLER_STEP = 0.3  # after a branch that diverged in spite of the probe
_MAX_SMALLER_STEPS = 3

_SAME_SIZE = 0.02  # points closer than this are one
_RATIO_SLACK = 1e-3  # to which a wanted ratio is met
_CAREFUL_BETA = 0.31  # beyond it nothing is tried that validation could not tell to be too much
_HOPELESS_BUDGETS, _HOPELESS_DROP = 4.0, 0.02  # lost before the fine-tuning: no point of this branch will be inside
_HOPELESS_RISE = 0.5  # of an RMSE, as a part of it, in place of the drop


@dataclass(frozen=True)
class Outcome:
    """What the search found: the tensors of the delivered and of the control model by ONNX name, and the whole curve.

    `log_sigma2` is that of the delivered weights' posterior, -inf where there is no weight; empty where magnitude won.
    """

    delivered: Literal["variational", "magnitude"]
    tensors: Tensors
    metric: float
    log_sigma2: Tensors
    control_tensors: Tensors
    control_metric: float
    curve: list[Candidate]
    chosen: int
    points: Points
    branches: list[Branch]
    log_alpha: dict[str, LogAlphaQuantiles]
    training: Training


class Search:
    """One run of the search over a module, which it leaves with the delivered tensors in place.

    Args:
        model: the uploaded model, on the device of the run.
        baseline: its rows, its metric and the budget.
        config, schedule: the options, and the sizes resolved from them.
        objective: what is trained towards.
        tracker: told of the work done.
        checkpoint: read at the start, written now and then.
    """

    def __init__(
        self,
        model: AdmittedModel,
        baseline: Baseline,
        config: CompressionConfig,
        schedule: Schedule,
        objective: Objective,
        tracker: ProgressTracker,
        checkpoint: CheckpointFile,
    ) -> None:
        self._setting = Setting(model, baseline, config, schedule, objective, tracker)
        self._whole = model.module
        self._checkpoint = checkpoint
        self._dense: Tensors = Network(model.module).tensors()
        floats = {name: array for name, array in float_tensors(model.proto).items() if array.ndim >= 2}
        self._numel = sum(array.size for array in floats.values())
        self._fixed_nnz = sum(int((array != 0).sum()) for name, array in floats.items() if name not in self._dense)  # never trained
        self._points = Points()
        self._position = Position()
        self._start: Tensors = self._dense  # of the present round
        self._log_alpha: Tensors = {}  # of the rounds behind; of a weight that went, from the round in which it did
        self._allowance = Allowance(config.max_epochs, config.max_seconds, 0.0, 0.0)
        self._sizes: int | None = None  # how many of the thresholds will give points of their own, as far as the fit has shown it

    def run(self) -> Outcome:
        """Raises: Diverged."""
        restored = self._restore()
        self._probe()
        while not self._position.finished:
            if not self._position.rounds:
                self._begin_branch(self._first_beta())
            try:
                hopeless = self._fit(restored)
                if not hopeless:
                    self._sweep()
            except Diverged as error:
                self._begin_anew(error)
            else:
                self._end_branch()
            restored = {}
        return self._control()

    def _probe(self) -> None:
        """Finds out what noise and which steps the dense network bears, where the configuration does not say."""
        position, setting = self._position, self._setting
        config, baseline = setting.config, setting.baseline
        if position.step_size is not None:
            return
        position.log_alpha_init, position.step_size = config.log_alpha_init, config.step_size
        if position.log_alpha_init is None or position.step_size is None:
            setting.tracker.enter("probe")
            seed = derive_seed(config.seed, "probe")
            probe = Probe(self._whole, baseline.readout, baseline.train, setting.schedule.batch_size, seed, config.conv_noise)
            if position.log_alpha_init is None:
                position.log_alpha_init = probe.log_alpha()
            if position.step_size is None:
                position.step_size = probe.step_size(position.log_alpha_init)

    # One branch: its rounds

    def _begin_branch(self, beta: float) -> None:
        schedule = self._setting.schedule.cut_to(self._allowance.left(), self._num_points, self._full_control)
        self._position.begin_branch(beta, list(schedule.rounds), schedule.fine_tune_epochs)
        self._start, self._log_alpha = self._dense, {}

    def _fit(self, restored: Mapping[str, Tensor]) -> bool:
        """Fits the rounds that are left, at a higher beta where that is promising. Returns: whether the branch is given up."""
        position = self._position
        while position.round < len(position.rounds):
            network = Network.holding(self._whole, self._setting.model.proto, self._start)
            self._plan_branch()
            posterior = self._fit_round(network, restored)
            restored = {}
            log_alpha = network.expand(posterior.log_alpha(), math.inf)
            self._log_alpha = {name: _merged(values, self._log_alpha.get(name)) for name, values in log_alpha.items()}
            self._start = network.tensors()
            position.round, position.epochs = position.round + 1, 0
            kept = {name: self._start[name] * (values < _KEPT_AFTER_A_ROUND) for name, values in log_alpha.items()}
            higher = self._promising_beta(kept) if position.round == 1 else None
            if higher is not None:
                position.climbed += 1
                self._begin_branch(higher)
            elif position.round < len(position.rounds):
                self._start |= kept
                if self._is_hopeless():
                    return True
            self._save(at_once=True)
        return False

    def _promising_beta(self, kept: Tensors) -> float | None:
        """The next higher one, where the first round of the first branch leaves a model inside the budget before any fine-tuning."""
        position, config = self._position, self._setting.config
        higher = higher_beta(position.beta)
        if higher is None or position.branches or config.target_ratio is not None or 1 + position.climbed >= config.max_branches:
            return None
        if higher > _CAREFUL_BETA and not self._resolves_budget:
            return None
        schedule = Schedule(self._setting.schedule.batch_size, tuple(position.rounds), position.fine_tune_epochs)
        if schedule.cut_to(self._allowance.left(), self._num_points, self._full_control) != schedule:
            return None  # a whole branch of it would not be had
        Network(self._whole).load(self._start | kept)
        return higher if self._setting.baseline.is_inside(self._measure()) else None

    def _is_hopeless(self) -> bool:
        """Whether so much is lost after the first round that another branch is the better use of the time."""
        position, config, baseline = self._position, self._setting.config, self._setting.baseline
        last = len(position.branches) + 1 >= config.max_branches
        if last or config.target_ratio is not None or next_beta([*position.branches, Branch(position.beta, None)]) is None:
            return False
        if self._allowance.left() < 2 * (len(position.rounds) + position.fine_tune_epochs):
            return False  # there would be no other
        Network(self._whole).load(self._start)
        kind, dense = baseline.kind, baseline.dense.value
        slack = _HOPELESS_DROP if kind.bounded else _HOPELESS_RISE * dense
        return kind.loss(dense, self._measure()) > _HOPELESS_BUDGETS * baseline.max_metric_drop + slack

    def _fit_round(self, network: Network, restored: Mapping[str, Tensor]) -> Posterior:
        """Fits a posterior from the tensors that the round starts with, or goes on with the restored one."""
        position, setting = self._position, self._setting
        config, train, module = setting.config, setting.baseline.train, network.module
        weights = module.tensors()
        means = {name: weights[name] for name in module.weight_names}
        held = network.tensors()
        masks = network.shrink({name: (self._start[name] != 0) & (held[name] != 0) for name in self._log_alpha}) or None
        training = self._training
        posterior = Posterior(means, training.log_alpha_init, masks, config.conv_noise)
        first = position.round == 0
        options = FitOptions(
            beta=position.beta,
            kl_warmup_fraction=config.kl_warmup_fraction if first else min(_SECOND_WARMUP_FRACTION, config.kl_warmup_fraction),
            step_size=training.step_size * (1.0 if first else _SECOND_ROUND_PART),
            learning_rate_log_sigma2=config.learning_rate_log_sigma2,
            batch_size=setting.schedule.batch_size,
            epochs=position.rounds[position.round],
            seed=derive_seed(config.seed, "fit", len(position.branches), position.round),
        )
        optimizer = posterior_optimizer(module, posterior, tensor_scales(module, masks), options)
        fit = Fit(module, posterior, optimizer)
        if restored and position.epochs:
            fit.restore(restored)
        setting.tracker.enter("fit")
        group_axes = module.group_axes if config.group_prior == "ard" else None
        num_steps = setting.schedule.rounds[position.round] * num_batches(train, options.batch_size)
        negative_elbo = NegativeElbo(posterior, config.prior, len(train), group_axes, num_steps)

        def on_epoch(epochs: int, mean_loss: float) -> int:
            position.epochs = epochs
            kept = sum(int(mask.sum()) for mask in posterior.keep_masks(max(config.thresholds)).values())
            metrics = {"epoch": epochs, "round": position.round + 1, "loss": mean_loss, "beta": position.beta}
            setting.tracker.tell(metrics | {"sparsity": 1 - kept / self._numel})
            self._cut_to_allowance()
            self._foresee_sizes(posterior)
            self._plan_branch()
            self._save(fit, at_once=False)
            return position.rounds[position.round]

        fit_posterior(
            module,
            posterior,
            negative_elbo,
            setting.objective,
            optimizer,
            train,
            options,
            first_epoch=position.epochs,
            on_step=lambda rows: self._advance(rows, "fit" if first else "fit_small"),
            on_epoch=on_epoch,
        )
        return posterior

    def _cut_to_allowance(self) -> None:
        """Fewer epochs for what is still to come of this branch, where the limits of the run do not leave enough for it."""
        position = self._position
        behind = position.rounds[: position.round]
        ahead = [position.rounds[position.round] - position.epochs, *position.rounds[position.round + 1 :]]
        rest = Schedule(self._setting.schedule.batch_size, tuple(ahead), position.fine_tune_epochs)
        cut = rest.cut_to(self._allowance.left(), self._num_points, self._full_control)
        if cut != rest:
            present = max(position.epochs, position.epochs + (cut.rounds[0] if ahead[0] else 0))
            position.rounds = [*behind, present, *cut.rounds[1:]]
            position.fine_tune_epochs = cut.fine_tune_epochs

    # One branch: its points

    def _sweep(self) -> None:
        """Fine-tunes the survivors of one cut after the other; all from the same fitted tensors, with the same batches."""
        position, setting = self._position, self._setting
        setting.tracker.enter("sweep")
        alive = {name: values.masked_fill(self._start[name] == 0, math.inf) for name, values in self._log_alpha.items()}
        course = cuts(setting.config, setting.baseline, alive, partial(self._threshold_of_ratio, alive), self._numel, self._resolves_budget)
        cut, number = next(course, None), 0
        while cut is not None:
            if number == len(position.swept):
                if position.curve and self._allowance.left() < position.fine_tune_epochs + self._control_epochs:
                    break  # the control needs the rest
                self._plan(self._sweep_passes(number))
                position.swept.append(self._add_point(cut, alive))
                self._save(at_once=True)
            index = position.swept[number]
            number += 1
            try:
                cut = course.send(None if index is None else position.curve[index])
            except StopIteration:
                cut = None

    def _threshold_of_ratio(self, log_alpha: Tensors, ratio: float) -> float:
        """The threshold that leaves the N / ratio weights of lowest log_alpha, not counting those that are on no path to the output."""
        wanted = int(self._numel / ratio)
        others = self._fixed_nnz + sum(int(t.count_nonzero()) for name, t in self._start.items() if t.ndim >= 2 and name not in log_alpha)
        low = max(0, wanted - others)
        high = 2 * low
        while high - low > max(1, int(_RATIO_SLACK * low)):
            middle = (low + high) // 2
            left = self._count_live(Cut(threshold_of_count(log_alpha, middle)).masks(log_alpha))
            low, high = (middle, high) if left <= wanted else (low, middle)
        return threshold_of_count(log_alpha, low)

    def _count_live(self, masks: Mapping[str, Tensor]) -> int:
        return self._fixed_nnz + count_live(self._whole, self._setting.model.proto, self._pruned(masks))

    def _pruned(self, masks: Mapping[str, Tensor]) -> Tensors:
        return self._start | {name: self._start[name] * mask for name, mask in masks.items()}

    def _add_point(self, cut: Cut, log_alpha: Tensors) -> int | None:
        """Fine-tunes what the cut leaves, and puts the result on the curve. Returns: its number; None where there is one of this size."""
        position, setting = self._position, self._setting
        masks = cut.masks(log_alpha)
        live = self._count_live(masks)
        if setting.config.target_ratio is None and any(abs(live - point.nnz) <= _SAME_SIZE * point.nnz for point in self._branch_curve()):
            return None
        network = Network.holding(self._whole, setting.model.proto, self._pruned(masks))
        held = network.tensors()
        options = setting.fine_tune_options(position.fine_tune_epochs, self._training.fine_tune_step_size)
        small = network.shrink({name: mask & (held[name] != 0) for name, mask in masks.items()})
        train = setting.baseline.train
        fine_tune(network.module, small, setting.objective, train, options, lambda rows: self._advance(rows, "tune_small"))
        tensors = network.tensors()
        Network(self._whole).load(tensors)
        metric = self._measure()
        if not math.isfinite(metric):
            raise Diverged("The metric of a point is no finite number.", param="fine_tune_step_size", suggestion="Set it lower.")
        point = Candidate(position.beta, cut.threshold, self._count_nonzero(tensors), metric, cut.layers)
        position.curve.append(point)
        self._points.append(tensors, {name: values + log_square(self._start[name]) for name, values in self._log_alpha.items()})
        setting.tracker.tell({"threshold": min(point.threshold, 1e30), "nnz": point.nnz, "metric": metric})
        return len(position.curve) - 1

    def _begin_anew(self, error: Diverged) -> None:
        """The branch from the dense weights on, at the beta it has climbed from, or with smaller steps; in the end what there is counts."""
        position, config = self._position, self._setting.config
        del position.curve[position.first_point :]
        self._points.keep(position.first_point)
        if position.climbed and not position.branches:
            position.branches.append(Branch(position.beta, None))  # and no climbing any more
            self._begin_branch(position.beta * LADDER_STEP)
            return
        own = config.fine_tune_step_size if position.round == len(position.rounds) else config.step_size
        if own is None and position.smaller_steps < _MAX_SMALLER_STEPS:
            position.smaller_steps += 1
            position.step_size = self._training.step_size * _SMALLER_STEP
            self._begin_branch(position.beta)
        elif position.curve:
            position.branches.append(Branch(position.beta, None))
            self._finish()
        else:
            raise error

    def _end_branch(self) -> None:
        position, config = self._position, self._setting.config
        inside = [point.nnz for point in self._branch_curve() if self._is_inside(point)]
        position.branches.append(Branch(position.beta, min(inside, default=None)))
        if position.curve and self._number_of_best() >= position.first_point:
            position.quantiles = {name: _quantiles(values) for name, values in self._log_alpha.items()}
            position.training = self._training
        following = next_beta(position.branches) if config.target_ratio is None else None
        out_of_time = bool(position.curve) and self._allowance.left() < 2 * (len(position.rounds) + position.fine_tune_epochs)
        if following is None or len(position.branches) >= config.max_branches or out_of_time:
            self._finish()
        else:
            self._begin_branch(following)
            self._save(at_once=True)

    def _finish(self) -> None:
        self._position.finished = True
        self._position.chosen = self._number_of_best()
        self._save(at_once=True)

    # The control, and the choice between the two

    def _control(self) -> Outcome:
        """Magnitude pruning of the dense model to the chosen point's size; the better one is delivered."""
        position, setting, training = self._position, self._setting, self._position.training
        assert training is not None  # noqa: S101  of the branch of the chosen point
        chosen = position.curve[position.chosen]
        epochs = sum(training.epochs) + training.fine_tune_epochs if self._full_control else training.fine_tune_epochs
        setting.tracker.plan({"tune": epochs * setting.num_rows})
        setting.tracker.enter("control")
        step_size = training.step_size * GRADUAL_PART if self._full_control else training.fine_tune_step_size
        left = chosen.nnz - self._fixed_nnz
        Network(self._whole).load(self._dense)
        try:
            train_control(setting, self._whole, left, epochs, step_size, partial(self._advance, pace="tune"))
            has_diverged = not math.isfinite(self._measure())
        except Diverged:
            has_diverged = True
        if has_diverged:  # no reason to lose what was found: the control is then the pruned model as it is
            Network(self._whole).load(self._dense)
            train_control(setting, self._whole, left, 0, step_size, ignore)
        control, metric = Network(self._whole).tensors(), self._measure()
        best = self._points.tensors(position.chosen, self._dense)
        wins = setting.baseline.is_better(metric, chosen.metric)
        Network(self._whole).load(control if wins else best)
        return Outcome(
            delivered="magnitude" if wins else "variational",
            tensors=control if wins else best,
            metric=metric if wins else chosen.metric,
            log_sigma2={} if wins else self._points.log_sigma2(position.chosen, self._dense),
            control_tensors=control,
            control_metric=metric,
            curve=position.curve,
            chosen=position.chosen,
            points=self._points,
            branches=position.branches,
            log_alpha=position.quantiles,
            training=training,
        )

    # Bookkeeping

    @property
    def _training(self) -> Training:
        position, setting = self._position, self._setting
        assert position.log_alpha_init is not None  # noqa: S101  probed before the first branch
        assert position.step_size is not None  # noqa: S101
        return Training(
            log_alpha_init=position.log_alpha_init,
            step_size=position.step_size,
            batch_size=setting.schedule.batch_size,
            epochs=list(position.rounds),
            fine_tune_epochs=position.fine_tune_epochs,
            fine_tune_step_size=setting.config.fine_tune_step_size or position.step_size * _FINE_TUNE_PART,
        )

    @property
    def _num_points(self) -> int:
        """That will be fine-tuned in a branch, the control among them; about."""
        config = self._setting.config
        return 1 + len(config.curve_ratios) + (1 if config.target_ratio is not None else len(config.thresholds))

    @property
    def _full_control(self) -> bool:
        return self._setting.config.control == "full"

    @property
    def _control_epochs(self) -> int:
        position = self._position
        return position.fine_tune_epochs + (sum(position.rounds) if self._full_control else 0)

    @property
    def _resolves_budget(self) -> bool:
        """Whether validation has rows enough to tell a model inside the budget from one that is not.

        Where it has not, the best of many points would be the luckiest: thresholds that the posterior gives are tried, and nothing beyond.
        """
        low, high = self._setting.baseline.dense.interval
        return (high - low) / 2 < self._setting.baseline.max_metric_drop

    def _first_beta(self) -> float:
        return self._setting.config.beta or first_beta(self._setting.num_rows, self._numel)

    def _branch_curve(self) -> list[Candidate]:
        return self._position.curve[self._position.first_point :]

    def _is_inside(self, point: Candidate) -> bool:
        return self._setting.baseline.is_inside(point.metric)

    def _number_of_best(self) -> int:
        """Of the point of the wanted ratio; where none is wanted, of the smallest inside the budget."""
        ratio, baseline, curve = self._setting.config.target_ratio, self._setting.baseline, self._position.curve
        if ratio is None:
            return curve.index(choose(curve, baseline.kind, baseline.dense.value, baseline.max_metric_drop))
        return curve.index(nearest(curve, baseline.kind, self._numel, ratio))

    def _count_nonzero(self, tensors: Mapping[str, Tensor]) -> int:
        """Of all tensors with two or more dimensions, those among them that are never trained."""
        return self._fixed_nnz + sum(int(tensor.count_nonzero()) for tensor in tensors.values() if tensor.ndim >= 2)

    def _measure(self) -> float:
        """The metric of what the whole module holds, on validation."""
        return self._setting.baseline.measure(self._whole)

    def _advance(self, rows: int, pace: Pace) -> None:
        """So many more rows have been trained on."""
        self._allowance.use(rows / self._setting.num_rows)
        self._position.passes = self._allowance.passes
        self._setting.tracker.advance(rows, pace)

    def _plan_branch(self) -> None:
        """What is left of this branch, and the control; that there will be other branches, nobody knows."""
        position = self._position
        present = position.rounds[position.round] - position.epochs
        later = sum(position.rounds[position.round + 1 :])
        fits: dict[Pace, float] = {"fit_small": present + later} if position.round else {"fit": present, "fit_small": later}
        self._plan({**fits, **self._sweep_passes(0)})

    def _sweep_passes(self, number: int) -> dict[Pace, float]:
        """What is left when so many cuts have been made, and the control."""
        position, config = self._position, self._setting.config
        cuts_left = expected = self._num_points - 1 - number
        if self._sizes is not None and config.target_ratio is None:
            sizes = self._num_points - 1 - len(config.thresholds) + self._sizes
            expected = min(cuts_left, sizes - len(self._branch_curve()))
        return {"tune_small": max(1, expected) * position.fine_tune_epochs, "tune": self._control_epochs}

    def _plan(self, passes: Mapping[Pace, float]) -> None:
        self._setting.tracker.plan({pace: number * self._setting.num_rows for pace, number in passes.items()})

    def _foresee_sizes(self, posterior: Posterior) -> None:
        """Late in a round many of the thresholds leave about the same weights, and will not be worth a point each."""
        position = self._position
        if 2 * position.epochs >= position.rounds[position.round]:
            masks = [posterior.keep_masks(threshold).values() for threshold in self._setting.config.thresholds]
            counts = sorted(sum(int(mask.sum()) for mask in of_all) for of_all in masks)
            self._sizes = 1 + sum(more > (1 + _SAME_SIZE) * fewer for fewer, more in pairwise(counts))

    # The checkpoint

    def _save(self, fit: Fit | None = None, *, at_once: bool) -> None:
        """Args: fit: the round under way; at_once: even where the last checkpoint is not old yet."""
        if not (at_once or self._checkpoint.is_due()):
            return
        tensors = dict(self._points.to_checkpoint()) | rounds_to_checkpoint(self._start, self._log_alpha)
        self._checkpoint.save(self._position.to_json(), tensors if fit is None else tensors | fit.to_checkpoint())

    def _restore(self) -> Mapping[str, Tensor]:
        """Takes up the position of the checkpoint, where there is one. Returns: its tensors."""
        loaded = self._checkpoint.load()
        config = self._setting.config
        if loaded is None:
            return {}
        state, tensors = loaded
        self._position = Position.from_json(state)
        self._allowance = Allowance(config.max_epochs, config.max_seconds, self._position.passes, self._checkpoint.seconds_before)
        self._points.restore(tensors, len(self._position.curve), self._dense)
        rounds = restore_rounds(tensors, self._dense, self._whole.weight_names)
        if rounds is not None:
            self._start, self._log_alpha = rounds
        return tensors


def _merged(log_alpha: Tensor, earlier: Tensor | None) -> Tensor:
    """Where a weight is gone, what it had when it went; of one that has never done anything, a number beyond all others."""
    return log_alpha.clamp_max(_NEVER_ALIVE) if earlier is None else torch.where(log_alpha.isinf(), earlier, log_alpha)


def _quantiles(values: Tensor) -> LogAlphaQuantiles:
    levels = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95])
    ordered = values.flatten().sort().values
    q05, q25, q50, q75, q95 = ordered[(levels * (len(ordered) - 1)).round().long()].tolist()
    return LogAlphaQuantiles(q05=q05, q25=q25, q50=q50, q75=q75, q95=q95)
