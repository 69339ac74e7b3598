"""artifacts.zip: read back with other readers, the same bytes each time, never whole in memory."""

import asyncio
import hashlib
import io
import shutil
import subprocess
import zipfile
from pathlib import Path
from zipfile import ZipFile

import pytest

from service.api.archive import archive_etag, stream_archive
from service.jobs.job import Artifact, Job
from service.jobs.states import Status
from service.storage.store import CHUNK_BYTES, ObjectStore
from tests.service.api.live import LiveService
from tests.service.storage.objects import put_bytes

FILES = {"model.onnx": bytes(range(256)) * 9000, "report.json": b"{}", "empty": b""}


@pytest.fixture(scope="module")
def job(service: LiveService) -> Job:
    return service.insert_finished(Status.SUCCEEDED, FILES)


def path_of(job: Job) -> str:
    return f"/v1/jobs/{job.id}/artifacts.zip"


def test_the_archive_holds_every_artifact_as_it_is(service: LiveService, job: Job) -> None:
    response = service.client.get(path_of(job))
    assert (response.status_code, response.headers["content-type"]) == (200, "application/zip")
    assert response.headers["content-disposition"] == f'attachment; filename="{job.id}.zip"'
    assert (response.headers["transfer-encoding"], response.headers["accept-ranges"]) == ("chunked", "none")
    with ZipFile(io.BytesIO(response.content)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == list(FILES)
        assert {member.compress_type for member in archive.infolist()} == {zipfile.ZIP_STORED}
        for artifact in job.artifacts:
            assert hashlib.sha256(archive.read(artifact.name)).hexdigest() == artifact.sha256


def test_another_reader_finds_it_whole(service: LiveService, job: Job, tmp_path: Path) -> None:
    unzip = shutil.which("unzip")
    if unzip is None:
        pytest.skip("unzip is not installed")
    (tmp_path / "all.zip").write_bytes(service.client.get(path_of(job)).content)
    done = subprocess.run([unzip, "-q", "all.zip", "-d", "out"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == FILES


def test_it_is_the_same_each_time_and_says_so(service: LiveService, job: Job) -> None:
    first, second = (service.client.get(path_of(job)) for _ in range(2))
    assert first.content == second.content
    assert first.headers["etag"] == second.headers["etag"]
    unchanged = service.client.get(path_of(job), headers={"If-None-Match": first.headers["etag"]})
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    assert service.client.get(path_of(job), headers={"If-Match": '"a"'}).json()["code"] == "precondition_failed"
    # Without ranges every request is for the whole.
    assert service.client.get(path_of(job), headers={"Range": "bytes=0-1"}).content == first.content


def test_the_etag_is_that_of_these_members_in_this_order(job: Job) -> None:
    first, *others = job.artifacts
    tags = {
        archive_etag(artifacts)
        for artifacts in (
            job.artifacts,
            [*others, first],
            others,
            [first.model_copy(update={"name": "model"}), *others],
            [first.model_copy(update={"sha256": "0" * 64}), *others],
        )
    }
    assert len(tags) == 5


def test_head_sends_the_same_headers_and_no_body(service: LiveService, job: Job) -> None:
    head, whole = service.client.head(path_of(job)), service.client.get(path_of(job))
    assert (head.status_code, head.content) == (200, b"")
    of_one_request = {"date": "", "x-request-id": ""}
    assert {**head.headers, **of_one_request} == {**whole.headers, **of_one_request}


def test_what_has_no_files_has_no_archive(service: LiveService) -> None:
    failed, queued = (service.insert_finished(status, {}) for status in (Status.FAILED, Status.QUEUED))
    for path, status, code in (
        (path_of(failed), 404, "artifact_not_found"),
        (path_of(queued), 409, "job_not_finished"),
        ("/v1/jobs/job_none/artifacts.zip", 404, "job_not_found"),
    ):
        response = service.client.get(path)
        assert (response.status_code, response.json()["code"]) == (status, code)
        assert response.json()["suggestion"]


def test_a_file_that_has_gone_is_a_500_before_the_first_byte(service: LiveService) -> None:
    job = service.insert_finished(Status.SUCCEEDED, FILES)
    service.store.delete(job.artifacts[1].key)
    assert service.client.get(path_of(job)).json()["code"] == "internal_error"


def chunks_of(store: ObjectStore, artifacts: list[Artifact]) -> list[bytes]:
    async def collect() -> list[bytes]:
        return [chunk async for chunk in stream_archive(store, artifacts)]

    return asyncio.run(collect())


def stored(store: ObjectStore, name: str, data: bytes) -> Artifact:
    put_bytes(store, name, data)
    return Artifact(name=name, key=name, bytes=len(data), sha256=hashlib.sha256(data).hexdigest(), media_type="application/octet-stream")


def test_no_more_than_a_few_chunks_are_held(tmp_path: Path) -> None:
    store = ObjectStore(tmp_path)
    chunks = chunks_of(store, [stored(store, "a", bytes(20 * CHUNK_BYTES)), stored(store, "b", bytes(3))])
    assert max(map(len, chunks)) <= 3 * CHUNK_BYTES
    assert sum(map(len, chunks)) > 20 * CHUNK_BYTES


def test_files_over_the_limit_of_the_old_format_are_members_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ObjectStore(tmp_path)
    artifacts = [stored(store, name, name.encode() * 50_000) for name in ("first", "second")]
    # Where the limit is 2 GiB, the fields of ZIP64 are written for files that no test has the time for.
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 100_000)
    written = b"".join(chunks_of(store, artifacts))
    monkeypatch.undo()
    with ZipFile(io.BytesIO(written)) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == {name: name.encode() * 50_000 for name in ("first", "second")}
        assert all(member.extract_version >= zipfile.ZIP64_VERSION for member in archive.infolist())
