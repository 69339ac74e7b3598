"""The trainer as its callers see it: a work directory, lines on a pipe, an exit code."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from compressor import CompressionConfig, DataReference
from compressor.protocol import ARTIFACTS, CHECKPOINT, TRAINER_INPUT, TRAINER_LINE, ExitCode, Failure, Progress, Result, TrainerInput

QUICK = {"epochs": 6, "fine_tune_epochs": 2, "thresholds": [1], "max_beta_halvings": 0}


def run_trainer(workdir: Path, model: Path, data: DataReference, config: dict[str, object]) -> tuple[int, list[object]]:
    job = TrainerInput(model=model, data=data, config=CompressionConfig.parse(config))
    (workdir / TRAINER_INPUT).write_text(job.model_dump_json())
    child = subprocess.run([sys.executable, "-m", "compressor.trainer", str(workdir)], capture_output=True, timeout=120, check=False)
    return child.returncode, [TRAINER_LINE.validate_json(line) for line in child.stdout.splitlines()]


@pytest.mark.parametrize(("budget", "code"), [(0.5, ExitCode.DONE), (0.0, ExitCode.GATE_NOT_MET)])
def test_a_run_ends_with_its_result_and_complete_artifacts(digits_job, tmp_path, budget, code):
    ruin = {} if code == ExitCode.DONE else {"beta": 100, "kl_warmup_fraction": 0}
    returned, lines = run_trainer(tmp_path, digits_job.model, digits_job.data, {**QUICK, **ruin, "max_metric_drop": budget})
    assert returned == code
    last = lines[-1]
    assert isinstance(last, Result)
    assert last.verdict.endswith(".")
    assert (last.problem is None) == (code == ExitCode.DONE)
    assert last.problem is None or last.problem.code == "gate_not_met"
    assert all(isinstance(line, Progress) or line.type == "checkpoint" for line in lines[:-1])
    assert (tmp_path / CHECKPOINT).exists()
    assert {path.name for path in (tmp_path / ARTIFACTS).iterdir()} == {"model.onnx", "weights.safetensors", "split.npz", "report.json"}


def test_the_clients_error_is_the_last_line_and_exit_2(digits_job, tmp_path):
    x, y = digits_job.rows["train"]
    np.savez(tmp_path / "bad.npz", x=x[:, :60], y=y)
    returned, lines = run_trainer(tmp_path, digits_job.model, DataReference(train="bad.npz"), QUICK)
    assert returned == ExitCode.CLIENT_ERROR
    last = lines[-1]
    assert isinstance(last, Failure)
    assert (last.problem.code, last.problem.status) == ("shape_mismatch", 422)
    assert last.problem.suggestion
