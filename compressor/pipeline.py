"""`compress`: a run from the modeled file to the report, as a table of contents; each step is called once, in order."""

import hashlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from compressor.admission import admit
from compressor.config import CompressionConfig, check_choice, needs_grids
from compressor.data import load_parts
from compressor.delivery import deliver, file_sha256, make_report, measure, quantise, validation_rows, verify, write_artifacts
from compressor.intake import measure_baseline, targets_of
from compressor.machine import resolve_device
from compressor.progress import ProgressTracker, ignore
from compressor.protocol import DataReference, OnProgress
from compressor.quantisation import expected_epochs
from compressor.report import Report
from compressor.search import Search
from compressor.training.checkpoint import CheckpointFile
from compressor.training.objective import objective_of
from compressor.training.schedule import Schedule, resolve_schedule
from compressor.training.threads import sensible_threads


def compress(
    model_path: Path | str,
    data: DataReference,
    config: CompressionConfig,
    out_dir: Path | str,
    on_progress: OnProgress = ignore,
    *,
    checkpoint: Path | None = None,
    on_checkpoint: Callable[[], None] = ignore,
) -> Report:
    """Makes a trained ONNX model smaller inside a budget of its metric.

    Args:
        model_path: an ONNX file whose output is one score per class, [N, C], or a regression's numbers, [N] or [N, K]; or a safetensors
            file and `config.architecture`.
        data: local files of rows and labels (integer classes, or floats), which a `distillation_weight` of 1 does without; absent
            validation and test parts are carved from train.
        config: the options.
        out_dir: receives model.onnx, model.dense.onnx, weights.safetensors, what `config.formats` names, curve.safetensors, split.npz and
            report.json; made where it is absent.
        on_progress: told of phase, part done, seconds left and metrics.
        checkpoint: a file that the run goes on from where it exists; replaced at the ends of epochs, every five seconds at most.
        on_checkpoint: called when it has just been replaced.
    Returns: the report. Where no point is inside the budget it holds the best one: see `Report.gate_met`.
    Raises: ClientError where model, data or config must change; TrainingError where the run failed.
    """
    started = time.monotonic()
    check_choice(config, is_selection=False)
    model_path, out_dir = Path(model_path), Path(out_dir)
    tracker = ProgressTracker(on_progress)

    tracker.enter("validate")
    device = resolve_device(config.device)
    model = admit(model_path, config)
    targets = targets_of(model.module, config)

    tracker.enter("load")
    out_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as cache:
        parts = load_parts(data, model.module.inputs, targets, config, Path(cache))

    tracker.enter("evaluate")
    model.module.to(device)
    baseline = measure_baseline(model.module, model.inference, parts, config, device)
    schedule = resolve_schedule(config, len(parts.train), baseline.batch_size)

    store = CheckpointFile(checkpoint, _fingerprint(model_path, data, config, schedule), device, on_checkpoint)
    objective = objective_of(model.module, baseline.readout, baseline.train, config, schedule.batch_size)
    if needs_grids(config):
        tracker.expect("quantise", expected_epochs(schedule.fine_tune_epochs) * len(parts.train))
    with sensible_threads(baseline.cost.flops):
        outcome = Search(model, baseline, config, schedule, objective, tracker, store).run()
        delivered = deliver(model, outcome.tensors, outcome.log_sigma2, validation_rows(parts, baseline))
        if needs_grids(config):
            delivered = quantise(delivered, model.module.output.name, outcome, baseline, config, objective, tracker)

    tracker.enter("write")
    names, warnings = write_artifacts(out_dir, model, config, baseline, outcome, delivered, parts)

    tracker.enter("verify")
    checked, unfit = verify(out_dir, model, config, baseline, delivered, names, parts)

    tracker.enter("test")
    measured = measure(out_dir, model, config, outcome, delivered, checked, parts, baseline)
    seconds = store.seconds_before + time.monotonic() - started
    return make_report(out_dir, model, data, config, baseline, parts, outcome, measured, warnings + unfit, device, seconds)


def _fingerprint(model_path: Path, data: DataReference, config: CompressionConfig, schedule: Schedule) -> str:
    """Of all that decides the run's course: a checkpoint of another model, dataset, configuration or size of steps is not resumed."""
    sources = {part: source for part, source in data.model_dump().items() if source}
    contents = [f"{part}={source if source.startswith('builtin:') else file_sha256(Path(source))}" for part, source in sources.items()]
    return hashlib.sha256("\n".join([file_sha256(model_path), *contents, config.model_dump_json(), repr(schedule)]).encode()).hexdigest()
