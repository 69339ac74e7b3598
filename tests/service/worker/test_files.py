"""What lies in the store without a job, and what is left alone."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from compressor.config import CompressionConfig
from compressor.protocol import TRAINER_INPUT, DataReference, Kind, TrainerInput
from service.digests import DigestMismatch
from service.jobs.job import JobInput, new_job, new_job_id
from service.storage import keys
from service.worker.files import discard_unclaimed, fetch, sha256
from tests.service.storage.objects import put_bytes
from tests.service.worker.workplace import Workplace, small_settings, wait_until

UPLOAD_IDLE_S = 3600.0
KILLED_WHILE_RECEIVING = """
import asyncio, os, signal, sys
from pathlib import Path
from service.storage.store import ObjectStore

async def receive():
    writer = ObjectStore(Path(sys.argv[1])).open_writer(sys.argv[2])
    for _ in range(8):
        await writer.write(bytes(1_000_000))
    while not [name for _, _, names in os.walk(sys.argv[1]) for name in names if name.startswith("dataset")]:
        await asyncio.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(receive())
"""


@pytest.fixture
def workplace(tmp_path: Path) -> Iterator[Workplace]:
    workplace = Workplace(small_settings(tmp_path / "home"))
    yield workplace
    workplace.engine.dispose()


def upload(workplace: Workplace, *, complete: bool = True) -> str:
    """An upload without a job: the model, and a part of the dataset where it is not complete, as a killed process leaves it."""
    job_id = new_job_id()
    put_bytes(workplace.store, keys.input_key(job_id, "model", ".onnx"), b"model")
    if not complete:
        command = [
            sys.executable,
            "-c",
            KILLED_WHILE_RECEIVING,
            str(workplace.settings.store_root),
            keys.input_key(job_id, "dataset", ".npz"),
        ]
        assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    return job_id


def files(workplace: Workplace, job_id: str) -> list[str]:
    """Names of all files of the job, parts of objects included."""
    return [name for _, _, names in os.walk(workplace.settings.store_root / keys.job_prefix(job_id)) for name in names]


def make_old(workplace: Workplace, job_id: str, seconds: float) -> None:
    folder = workplace.settings.store_root / keys.job_prefix(job_id)
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (time.time() - seconds,) * 2)


def test_only_old_uploads_without_a_job_are_removed(workplace: Workplace) -> None:
    orphan, half, recent, attempted = upload(workplace), upload(workplace, complete=False), upload(workplace), upload(workplace)
    job_id = workplace.submit()
    put_bytes(workplace.store, keys.artifact_key(attempted, 1, "model.onnx"), b"small")
    assert len(files(workplace, half)) == 2
    for each in (orphan, half, attempted, job_id):
        make_old(workplace, each, UPLOAD_IDLE_S + 60)
    # One part of it is still being written.
    growing = upload(workplace, complete=False)
    make_old(workplace, growing, UPLOAD_IDLE_S + 60)
    (part,) = (workplace.settings.store_root / keys.job_prefix(growing)).rglob("dataset*")
    os.utime(part)
    discard_unclaimed(workplace.repository, workplace.store, UPLOAD_IDLE_S)
    assert [len(files(workplace, each)) for each in (orphan, half, recent, attempted, job_id, growing)] == [0, 0, 1, 2, 1, 2]


def test_a_worker_removes_them_when_it_starts(workplace: Workplace) -> None:
    orphan = upload(workplace)
    make_old(workplace, orphan, UPLOAD_IDLE_S + 60)
    with workplace.dispatcher():
        wait_until(lambda: files(workplace, orphan) == [])


def test_a_file_that_is_not_the_one_expected_is_refused(workplace: Workplace, tmp_path: Path) -> None:
    path = (tmp_path / "rows.npz").resolve()
    path.write_bytes(b"rows")
    inputs = {
        "model": JobInput(key=keys.input_key("job_a", "model", ".onnx"), ref=f"id:model_{'0' * 40}"),
        "dataset": JobInput(ref=f"file:{path}", sha256=sha256(path)),
    }
    put_bytes(workplace.store, str(inputs["model"].key), b"model")
    job = new_job(config={}, inputs=inputs)
    fetch(job, workplace.store, tmp_path, (tmp_path.resolve(),))
    given = TrainerInput.model_validate_json((tmp_path / TRAINER_INPUT).read_bytes())
    assert given.data == DataReference(train=str(path))
    assert (tmp_path / given.model).read_bytes() == b"model"
    path.write_bytes(b"rowS")
    with pytest.raises(DigestMismatch) as refused:
        fetch(job, workplace.store, tmp_path, (tmp_path.resolve(),))
    assert (refused.value.code, refused.value.param) == ("digest_mismatch", "dataset_ref")


@pytest.mark.parametrize("kind", get_args(Kind.__value__))
def test_the_trainer_is_told_the_kind_and_gets_what_it_needs(workplace: Workplace, tmp_path: Path, kind: Kind) -> None:
    key = keys.input_key("job_a", "model", ".onnx")
    put_bytes(workplace.store, key, b"model")
    of_parent = keys.artifact_key("job_a", 1, "curve.safetensors")
    put_bytes(workplace.store, of_parent, b"points")
    others = {"compress": {"dataset": JobInput(ref="builtin:digits")}, "inspect": {}, "select": {"curve": JobInput(key=of_parent)}}
    fetch(new_job(kind=kind, config={"seed": 4}, inputs={"model": JobInput(key=key), **others[kind]}), workplace.store, tmp_path, ())
    given = TrainerInput.model_validate_json((tmp_path / TRAINER_INPUT).read_bytes())
    data = DataReference(train="builtin:digits") if kind == "compress" else None
    assert given == TrainerInput(kind=kind, model=given.model, data=data, curve=given.curve, config=CompressionConfig(seed=4))
    assert given.curve is None or (tmp_path / given.curve).read_bytes() == b"points"
    assert (tmp_path / given.model).read_bytes() == b"model"
