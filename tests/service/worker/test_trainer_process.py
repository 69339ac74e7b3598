"""The trainer's process against a fake trainer: what it gets, what is understood of it, and that nothing of it survives."""

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from compressor.config import CompressionConfig
from compressor.protocol import TRAINER_INPUT, CheckpointSaved, DataReference, Progress, TrainerInput, TrainerLine
from service.worker import trainer_process
from service.worker.processes import process_token
from service.worker.trainer_process import Limits, Outcome, TrainerProcess
from tests.service.worker.workplace import FAKE_TRAINER, processes_of, wait_until

MIB = 1024 * 1024
NO_LIMITS = Limits()


def prepare(workdir: Path, **script: Any) -> Path:
    (workdir / "model").write_text(json.dumps(script))
    trainer_input = TrainerInput(model=Path("model"), data=DataReference(train="builtin:digits"), config=CompressionConfig())
    (workdir / TRAINER_INPUT).write_text(trainer_input.model_dump_json())
    return workdir


def run_trainer(workdir: Path, limits: Limits = NO_LIMITS) -> tuple[list[TrainerLine], Outcome, str]:
    async def run() -> tuple[list[TrainerLine], Outcome, str]:
        async with TrainerProcess(workdir, limits, command=FAKE_TRAINER) as trainer:
            lines = [line async for line in trainer.lines()]
            return lines, await trainer.outcome(), trainer.log_tail

    try:
        return asyncio.run(run())
    finally:
        assert processes_of(workdir) == []


def test_lines_and_result(tmp_path: Path) -> None:
    lines, outcome, _ = run_trainer(prepare(tmp_path, steps=2))
    assert [type(line).__name__ for line in lines] == ["Progress", *["Progress", "CheckpointSaved"] * 2, "Result"]
    assert outcome.result is not None
    assert (outcome.result.verdict, outcome.problem) == ("made smaller", None)


def test_gate_not_met_keeps_the_result(tmp_path: Path) -> None:
    _, outcome, _ = run_trainer(prepare(tmp_path, gate=True))
    assert outcome.result is not None
    assert outcome.result.problem is not None
    assert outcome.result.problem.code == "gate_not_met"


def test_failure_is_passed_on_and_not_repeated(tmp_path: Path) -> None:
    _, outcome, _ = run_trainer(prepare(tmp_path, at={"1": "fail"}))
    assert outcome.problem is not None
    assert (outcome.problem.code, outcome.problem.param, outcome.transient) == ("missing_labels", "label_column", False)


@pytest.mark.parametrize(
    ("action", "code", "transient", "words"),
    [
        ("crash", "trainer_crashed", True, ["exit code 7", "something went wrong here"]),
        ("vanish", "trainer_crashed", True, ["exit code 0 and no result"]),
        ("abort", "out_of_memory", False, ["std::bad_alloc"]),
        ("kill", "out_of_memory", True, ["signal 9"]),
    ],
)
def test_endings_without_a_result(tmp_path: Path, action: str, code: str, transient: bool, words: list[str]) -> None:
    _, outcome, _ = run_trainer(prepare(tmp_path, at={"1": action}))
    assert outcome.result is None
    assert outcome.problem is not None
    assert (outcome.problem.code, outcome.transient) == (code, transient)
    assert all(word in outcome.problem.detail for word in words)
    assert outcome.problem.suggestion


def test_memory_limit(tmp_path: Path) -> None:
    _, outcome, _ = run_trainer(prepare(tmp_path, at={"1": "exhaust_memory"}), Limits(memory_bytes=512 * MIB))
    assert outcome.problem is not None
    assert (outcome.problem.code, outcome.transient) == ("out_of_memory", False)


@pytest.mark.parametrize("memory_mib", [4, 12, 18, 24, 30])
def test_memory_limit_too_low_to_start(tmp_path: Path, memory_mib: int) -> None:
    # Which import fails, and how it reads, differs from machine to machine.
    _, outcome, _ = run_trainer(prepare(tmp_path, steps=100, step_s=60), Limits(memory_bytes=memory_mib * MIB, wall_s=20))
    assert outcome.problem is not None
    assert outcome.problem.code == "out_of_memory"


def test_wall_clock_limit(tmp_path: Path) -> None:
    started = time.monotonic()
    _, outcome, _ = run_trainer(prepare(tmp_path, step_s=60, at={"0": "ignore_sigterm"}), Limits(wall_s=1))
    assert outcome.problem is not None
    assert (outcome.problem.code, outcome.transient) == ("training_error", False)
    assert "longer than 1 s" in outcome.problem.detail
    assert time.monotonic() - started < 10


def test_validation_has_a_limit_of_its_own(tmp_path: Path) -> None:
    _, outcome, _ = run_trainer(prepare(tmp_path, validate_s=60, at={"0": "ignore_sigterm"}), Limits(validate_s=1))
    assert outcome.problem is not None
    assert (outcome.problem.code, outcome.problem.param, outcome.transient) == ("graph_too_large", "model", False)
    assert "validation of the model took longer than 1 s" in outcome.problem.detail
    assert outcome.problem.suggestion


@pytest.mark.parametrize(("step", "code", "transient"), [("0", "unsupported_model", False), ("1", "trainer_crashed", True)])
def test_a_crash_in_validation_is_the_models(tmp_path: Path, step: str, code: str, transient: bool) -> None:
    _, outcome, _ = run_trainer(prepare(tmp_path, at={step: "segfault"}))
    assert outcome.problem is not None
    assert (outcome.problem.code, outcome.transient) == (code, transient)
    assert "signal 11" in outcome.problem.detail
    assert outcome.problem.suggestion


def test_the_limit_of_validation_ends_with_its_phase(tmp_path: Path) -> None:
    _, outcome, _ = run_trainer(prepare(tmp_path, validate_s=0, steps=2, step_s=1.5), Limits(validate_s=2))
    assert outcome.result is not None


def test_processor_time_has_a_limit_where_the_wall_clock_has_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer_process, "CPU_MARGIN_S", 1 - 60)
    _, outcome, _ = run_trainer(prepare(tmp_path, at={"1": "burn"}), Limits(wall_s=60, threads=1))
    assert outcome.problem is not None
    assert (outcome.problem.code, outcome.transient) == ("training_error", False)
    assert "processor time" in outcome.problem.detail


def test_garbage_on_stdout_is_logged_and_skipped(tmp_path: Path) -> None:
    lines, outcome, log = run_trainer(prepare(tmp_path, at={"1": "garbage"}))
    assert outcome.result is not None
    assert len([line for line in lines if isinstance(line, CheckpointSaved)]) == 3
    assert '{"type": "other"}' in log
    assert max(map(len, log.splitlines())) <= 500


def test_descendants_end_with_the_trainer(tmp_path: Path) -> None:
    # run_trainer looks; the grandchildren hold the pipes, so without the kill it would also never come back.
    _, outcome, _ = run_trainer(prepare(tmp_path, at={"1": "grandchildren"}))
    assert outcome.result is not None


def test_leaving_the_block_kills_everything(tmp_path: Path) -> None:
    async def start_and_leave() -> float:
        async with TrainerProcess(prepare(tmp_path, step_s=60, at={"0": "grandchildren"}), NO_LIMITS, command=FAKE_TRAINER):
            await asyncio.to_thread(wait_until, lambda: len(processes_of(tmp_path)) == 3)
            leaving = time.monotonic()
        return time.monotonic() - leaving

    assert asyncio.run(start_and_leave()) < 2
    assert processes_of(tmp_path) == []


def test_a_trainer_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    async def start_and_leave() -> float:
        async with TrainerProcess(prepare(tmp_path, steps=2, step_s=60, at={"0": "ignore_sigterm"}), NO_LIMITS, command=FAKE_TRAINER):
            await asyncio.sleep(1)
            leaving = time.monotonic()
        return time.monotonic() - leaving

    assert asyncio.run(start_and_leave()) < 2
    assert processes_of(tmp_path) == []


def test_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BAYESPRESS_DATABASE_URL", "postgresql://user:secret@host/db")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    _, _, log = run_trainer(prepare(tmp_path, at={"0": "surroundings"}), Limits(threads=3))
    text = (tmp_path / "surroundings.json").read_text()
    assert "secret" not in text
    seen = json.loads(text)
    assert seen["environment"]["HOME"].startswith(str(tmp_path))
    assert seen["environment"]["TMPDIR"].startswith(str(tmp_path))
    assert {"HF_HUB_OFFLINE", "ORT_DISABLE_TELEMETRY", "PATH", "CUDA_VISIBLE_DEVICES"} <= seen["environment"].keys()
    assert seen["cwd"] == []
    # Either the kernel lets us cut the network off, or the log says that it does not.
    assert set(seen["interfaces"]) <= {"lo"} or "keeps its network" in log
    assert seen["connected"] == "Network is unreachable" or "keeps its network" in log


def test_limits_of_the_kernel(tmp_path: Path) -> None:
    limits = Limits(memory_bytes=2**33, wall_s=100, threads=2)
    run_trainer(prepare(tmp_path, at={"0": "surroundings"}), limits)
    seen = json.loads((tmp_path / "surroundings.json").read_text())["limits"]
    assert (seen["RLIMIT_CORE"], seen["RLIMIT_AS"]) == (0, 2**33)
    assert seen["RLIMIT_CPU"] == 200 + trainer_process.CPU_MARGIN_S
    assert 0 < seen["RLIMIT_FSIZE"] <= trainer_process.MAX_FILE_BYTES
    assert 0 < seen["RLIMIT_NOFILE"] <= trainer_process.MAX_OPEN_FILES


def test_a_trainer_does_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    prepare(tmp_path, step_s=60)
    code = f"""
import asyncio
from pathlib import Path
from service.worker.trainer_process import Limits, TrainerProcess

async def main():
    async with TrainerProcess(Path({str(tmp_path)!r}), Limits(), command={FAKE_TRAINER!r}) as trainer:
        async for line in trainer.lines():
            print("started", flush=True)

asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "started\n"
        (trainer,) = processes_of(tmp_path)
        assert process_token(trainer.pid).rsplit("/", 1)[1]
        parent.kill()
    wait_until(lambda: processes_of(tmp_path) == [], timeout_s=5)


def test_progress_is_read_as_it_comes(tmp_path: Path) -> None:
    async def first_progress() -> float:
        async with TrainerProcess(prepare(tmp_path, step_s=60), NO_LIMITS, command=FAKE_TRAINER) as trainer:
            async for line in trainer.lines():
                assert isinstance(line, Progress)
                return line.progress
        raise AssertionError("no line")

    assert asyncio.run(first_progress()) == 0.0
