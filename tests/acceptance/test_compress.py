"""`bayespress compress` as a real process with the real trainer."""

import json
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest

from tests.acceptance.digits_model import digits_model
from tests.acceptance.served import BAYESPRESS, to_environment
from tests.service.worker.workplace import processes_of, wait_until

QUICK = ["epochs=1", "second_round_epochs=1", "fine_tune_epochs=0", "thresholds=[3.0]", "max_branches=1"]
ARTIFACTS = ["curve.safetensors", "model.dense.onnx", "model.onnx", "report.json", "split.npz", "weights.safetensors"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "digits.onnx").write_bytes(digits_model())
    return tmp_path


def command(*arguments: str, settings: list[str]) -> list[str]:
    return [BAYESPRESS, "compress", *arguments, *(part for setting in settings for part in ("--set", setting))]


def compress(folder: Path, *arguments: str, settings: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments, settings=settings), cwd=folder, env=to_environment({}), capture_output=True, text=True, timeout=120, check=False
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_run_delivers_its_folder_and_a_missed_budget_too(folder: Path) -> None:
    done = compress(folder, "digits.onnx", "builtin:digits", settings=QUICK)
    assert done.returncode == 0, done.stderr
    out = folder / "digits-compressed"
    assert names(folder) == ["digits-compressed", "digits.onnx"]
    assert names(out) == ARTIFACTS
    report = json.loads((out / "report.json").read_bytes())
    onnx.checker.check_model(onnx.load(out / "model.onnx"), full_check=True)
    # The table says what the report says, and the progress went elsewhere.
    assert report["verdict"] in done.stdout
    assert f"{report['weights']['nnz']:,}" in done.stdout
    assert all(warning in done.stdout for warning in report["warnings"])
    assert [line.split()[0] for line in done.stderr.splitlines()][:5] == ["validate", "load", "evaluate", "probe", "fit"]

    missed = compress(
        folder,
        "digits.onnx",
        "builtin:digits",
        "--force",
        settings=[*QUICK, "max_metric_drop=0", "beta=100", "epochs=10", "second_round_epochs=10"],
    )
    assert missed.returncode == 3, missed.stderr
    assert "(gate_not_met)" in missed.stderr
    assert names(out) == ARTIFACTS
    assert json.loads((out / "report.json").read_bytes())["provenance"]["config"]["beta"] == 100
    assert processes_of(folder) == []


def test_a_folder_on_another_disk_takes_the_artifacts(folder: Path) -> None:
    # Linux has one in memory; where it has not, this is one more run.
    memory = Path("/dev", "shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as elsewhere:
        (folder / "out").symlink_to(elsewhere)
        done = compress(folder, "digits.onnx", "builtin:digits", "--out", "out", settings=QUICK)
        assert done.returncode == 0, done.stderr
        assert names(Path(elsewhere)) == ARTIFACTS
    assert names(folder) == ["digits.onnx", "out"]


@pytest.fixture
def like_in_a_terminal() -> Iterator[None]:
    """What a shell starts in the background inherits an ignored SIGINT, and rightly keeps ignoring it; the tests may run so."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("like_in_a_terminal")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing(folder: Path, number: signal.Signals) -> None:
    with subprocess.Popen(
        command("digits.onnx", "builtin:digits", settings=["epochs=10000"]),
        cwd=folder,
        env=to_environment({}),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stderr is not None
            assert process.stderr.readline().startswith("validate")
            assert len(processes_of(folder)) == 1
            process.send_signal(number)
            assert process.wait(10) == 130
        finally:
            process.kill()
    wait_until(lambda: processes_of(folder) == [], timeout_s=1)
    assert names(folder) == ["digits.onnx"]
