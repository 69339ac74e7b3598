"""The trainer as its callers see it: a work directory, lines on a pipe, an exit code."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from compressor import CompressionConfig, DataReference, Inspection
from compressor.protocol import (
    ARTIFACTS,
    CHECKPOINT,
    INSPECTION,
    TRAINER_INPUT,
    TRAINER_LINE,
    ExitCode,
    Failure,
    Progress,
    Result,
    TrainerInput,
)

RUN_ARTIFACTS = {"model.onnx", "model.dense.onnx", "weights.safetensors", "curve.safetensors", "split.npz", "report.json"}
QUICK = {"epochs": 3, "second_round_epochs": 3, "fine_tune_epochs": 2, "thresholds": [1], "max_branches": 1}


def run_trainer(workdir: Path, model: Path, data: DataReference | None, config: dict[str, object]) -> tuple[int, list[object]]:
    kind = "inspect" if data is None else "compress"
    job = TrainerInput(kind=kind, model=model, data=data, config=CompressionConfig.parse(config))
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
    assert {path.name for path in (tmp_path / ARTIFACTS).iterdir()} == RUN_ARTIFACTS


def test_the_clients_error_is_the_last_line_and_exit_2(digits_job, tmp_path):
    x, y = digits_job.rows["train"]
    np.savez(tmp_path / "bad.npz", x=x[:, :60], y=y)
    returned, lines = run_trainer(tmp_path, digits_job.model, DataReference(train="bad.npz"), QUICK)
    assert returned == ExitCode.CLIENT_ERROR
    last = lines[-1]
    assert isinstance(last, Failure)
    assert (last.problem.code, last.problem.status) == ("shape_mismatch", 422)
    assert last.problem.suggestion


def test_an_inspection_needs_no_rows_and_leaves_its_one_artifact(digits_job, tmp_path):
    returned, lines = run_trainer(tmp_path, digits_job.model, None, {"batch_size": 32})
    assert returned == ExitCode.DONE
    assert [line.type for line in lines] == ["progress", "progress", "result"]
    assert [path.name for path in (tmp_path / ARTIFACTS).iterdir()] == [INSPECTION]
    found = Inspection.model_validate_json((tmp_path / ARTIFACTS / INSPECTION).read_bytes())
    assert lines[-1] == Result(verdict=found.verdict)
    assert found.estimate is not None
    assert found.estimate.batch_size == 32


def test_an_inspection_ends_with_the_refusal_of_the_model(digits_job, tmp_path):
    returned, lines = run_trainer(tmp_path, digits_job.model, None, {"output": "classes"})
    assert returned == ExitCode.CLIENT_ERROR
    last = lines[-1]
    assert isinstance(last, Failure)
    assert (last.problem.code, last.problem.param) == ("unsupported_task", "output")
    assert not (tmp_path / ARTIFACTS).exists()


def test_an_inspection_loads_nothing_that_reads_rows(digits_job):
    """It is to be done in seconds, and these libraries alone take some."""
    heavy = ("datasets", "pyarrow", "pandas", "sklearn", "scipy", "compressor.data", "compressor.pipeline")
    script = (
        f"import sys, compressor; compressor.inspect({str(digits_job.model)!r}); print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == "[]", done.stderr


ROWS = DataReference(train="builtin:digits")


@pytest.mark.parametrize(
    ("kind", "data", "curve"),
    [("compress", None, None), ("compress", ROWS, "c"), ("inspect", ROWS, None), ("inspect", None, "c"), ("select", None, None)],
)
def test_a_trainer_is_told_of_rows_and_of_a_curve_exactly_where_it_needs_them(kind, data, curve):
    with pytest.raises(ValidationError, match=r"(compress needs data|select needs a curve), and no other kind takes any"):
        TrainerInput(kind=kind, model=Path("m.onnx"), data=data, curve=curve, config=CompressionConfig())
