"""Uploads on both databases: one object for the same bytes, who has it, when it goes, and who may wait for whom."""

import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import pytest
from sqlalchemy import Engine, text

from service.jobs.clock import utc_now
from service.jobs.uploads.repository import UploadRepository
from service.jobs.uploads.upload import UploadedFile, new_serial, upload_id


@pytest.fixture
def uploads(engine: Engine) -> UploadRepository:
    return UploadRepository(engine)


def sha256(data: str) -> str:
    return hashlib.sha256(data.encode()).hexdigest()


def file(data: str, key: str) -> UploadedFile:
    return UploadedFile(key=key, sha256=sha256(data), bytes=len(data), filename=f"{key}.onnx")


def model(data: str, key: str) -> dict[str, UploadedFile]:
    return {"model": file(data, key)}


def present(_key: str) -> bool:
    return True


def count(engine: Engine, table: str) -> int:
    with engine.connect() as connection:
        return int(connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one())  # noqa: S608


def test_ids_follow_from_the_bytes() -> None:
    assert upload_id("model", model("a", "k")) == f"model_{sha256('a')[:40]}" == upload_id("model", model("a", "other"))
    train, test = file("train", "k"), file("test", "k")
    ids = {
        upload_id("dataset", parts)
        for parts in (
            {"train": train},
            {"train": train, "test": test},
            {"train": test, "test": train},
            {"train": train, "validation": test},
            {"train": train, "validation": test, "test": test},
        )
    }
    assert len(ids) == 5
    assert upload_id("dataset", {"test": test, "train": train}) == upload_id("dataset", {"train": train, "test": test})
    assert all(len(known) == len("dataset_") + 40 for known in ids)


def test_serials_sort_by_time() -> None:
    serials = [new_serial() for _ in range(50)]
    assert sorted(serials) == serials


def test_the_same_bytes_are_one_upload_with_the_first_object(engine: Engine, uploads: UploadRepository) -> None:
    first, created = uploads.keep("o", "model", model("a", "k1"), present)
    again, created_again = uploads.keep("o", "model", model("a", "k2"), present)
    assert (created, created_again) == (True, False)
    assert again.files == first.files == model("a", "k1")
    assert (again.id, again.created_at, again.serial) == (first.id, first.created_at, first.serial)
    assert uploads.get("o", first.id) == again
    assert count(engine, "upload_objects") == 1


def test_an_object_lives_as_long_as_anybody_has_its_bytes(engine: Engine, uploads: UploadRepository) -> None:
    own, _ = uploads.keep("o", "model", model("a", "k1"), present)
    other, created = uploads.keep("p", "model", model("a", "k2"), present)
    assert created
    assert other.files["model"].key == "k1"
    assert other.files["model"].filename == "k2.onnx"
    assert uploads.get("q", own.id) is None
    assert uploads.delete("q", own.id) is None
    assert uploads.delete("o", own.id) == []
    assert uploads.get("o", own.id) is None
    assert uploads.named(["k1", "k2"]) == {"k1"}
    assert uploads.delete("p", own.id) == ["k1"]
    assert uploads.named(["k1", "k2"]) == set()
    assert [count(engine, table) for table in ("uploads", "upload_files", "upload_objects")] == [0, 0, 0]


def test_parts_with_the_same_bytes_are_one_object(uploads: UploadRepository) -> None:
    found, _ = uploads.keep("o", "dataset", {"train": file("a", "k1"), "test": file("a", "k2"), "validation": file("b", "k3")}, present)
    assert {part: given.key for part, given in found.files.items()} == {"train": "k1", "test": "k1", "validation": "k3"}
    kept, _ = uploads.keep("o", "dataset", {"train": file("b", "k4")}, present)
    assert kept.files["train"].key == "k3"
    assert uploads.delete("o", found.id) == ["k1"]
    assert uploads.delete("o", kept.id) == ["k3"]


def test_a_larger_size_than_32_bits_is_kept(uploads: UploadRepository) -> None:
    large = {"model": file("a", "k").model_copy(update={"bytes": 3 * 2**31})}
    assert uploads.keep("o", "model", large, present)[0].files == large


def test_an_object_that_has_gone_from_the_store_is_replaced(uploads: UploadRepository) -> None:
    uploads.keep("o", "model", model("a", "k1"), present)
    healed, created = uploads.keep("p", "model", model("a", "k2"), lambda key: key == "k2")
    assert (created, healed.files["model"].key) == (True, "k2")
    assert uploads.named(["k1", "k2"]) == {"k2"}
    with pytest.raises(FileNotFoundError):
        uploads.keep("o", "model", model("b", "k3"), lambda _key: False)
    assert uploads.named(["k3"]) == set()
    assert uploads.get("o", upload_id("model", model("b", "k3"))) is None


def test_pages_are_the_newest_first_and_of_one_owner_and_kind(uploads: UploadRepository) -> None:
    made = [uploads.keep("o", "model", model(str(number), f"k{number}"), present)[0].id for number in range(5)]
    uploads.keep("o", "dataset", {"train": file("rows", "k8")}, present)
    uploads.keep("p", "model", model("theirs", "k9"), present)
    first = uploads.list_recent("o", "model", 2)
    second = uploads.list_recent("o", "model", 9, first[-1].serial)
    assert [upload.id for upload in first + second] == made[::-1]


def test_retention_counts_from_the_last_use(sqlite_engine: Engine) -> None:
    now = utc_now()
    uploads = UploadRepository(sqlite_engine, lambda: now)
    ids = [uploads.keep("o", "model", model(data, data), present)[0].id for data in ("looked at", "used", "sent again", "left")]
    now += timedelta(seconds=50)
    assert uploads.get("o", ids[0]) is not None
    used = uploads.use("o", ids[1])
    assert used is not None
    assert (used.used_at, used.created_at) == (now, now - timedelta(seconds=50))
    uploads.keep("o", "model", model("sent again", "k"), present)
    now += timedelta(seconds=60)
    assert {known for _, known in uploads.unused(100)} == {ids[0], ids[3]}
    assert [uploads.delete("o", known, 100) for known in ids] == [["looked at"], None, None, ["left"]]
    assert uploads.use("o", ids[0]) is None


@pytest.mark.parametrize("number", [1, 30])
def test_many_at_once_make_one_upload(engine: Engine, uploads: UploadRepository, number: int) -> None:
    def keep(index: int) -> tuple[str, bool]:
        upload, created = uploads.keep("o", "model", model("a", f"k{index}"), present)
        return upload.files["model"].key, created

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(keep, range(number)))
    assert len({key for key, _ in found}) == 1
    assert [created for _, created in found].count(True) == 1
    assert count(engine, "upload_objects") == 1


def test_writers_and_removers_at_once_neither_block_nor_lose_an_object(uploads: UploadRepository) -> None:
    """Two datasets that share their files, sent and removed by several at once: what is named at the end was never released."""
    parts = {"one": {"train": "a", "test": "b"}, "two": {"train": "b", "test": "a"}}
    stored, lock = set[str](), threading.Lock()

    def keep(index: int, which: str, owner: str) -> None:
        received = {part: file(data, f"{index}-{part}") for part, data in parts[which].items()}
        with lock:
            stored.update(given.key for given in received.values())
        upload, _ = uploads.keep(owner, "dataset", received, present)
        released = uploads.delete(owner, upload.id) if index % 3 else None
        with lock:
            stored.difference_update(released or ())

    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(keep, index, ("one", "two")[index % 2], ("o", "p")[index // 2 % 2]) for index in range(80)]
    for future in waiting:
        future.result()
    for owner in ("o", "p"):
        for upload in uploads.list_recent(owner, "dataset", 9):
            assert {given.key for given in upload.files.values()} <= stored


def interrupted(uploads: UploadRepository, owner: str, meanwhile: Callable[[], object]) -> tuple[list[str], threading.Thread]:
    """Sends the bytes "a" again; when their object has been found and not yet named, `meanwhile` begins in another thread."""
    thread = threading.Thread(target=meanwhile)

    def is_stored(_key: str) -> bool:
        thread.start()
        thread.join(0.3)
        # It waits for what has been locked here.
        assert thread.is_alive()
        return True

    upload, _ = uploads.keep(owner, "model", model("a", "k2"), is_stored)
    thread.join(30)
    assert not thread.is_alive()
    return [given.key for given in upload.files.values()], thread


def test_who_sends_bytes_anew_keeps_the_object_that_the_sweep_was_about_to_release(uploads: UploadRepository) -> None:
    old, _ = uploads.keep("o", "model", model("a", "k1"), present)
    released: list[list[str] | None] = []
    keys, _ = interrupted(uploads, "p", lambda: released.append(uploads.delete("o", old.id)))
    assert (keys, released) == (["k1"], [[]])
    assert uploads.named(["k1", "k2"]) == {"k1"}


def test_who_sends_the_same_upload_anew_is_not_swept(engine: Engine) -> None:
    uploads = UploadRepository(engine)
    old, _ = uploads.keep("o", "model", model("a", "k1"), present)
    with engine.begin() as connection:
        long_ago: datetime = utc_now() - timedelta(days=1)
        stored = long_ago.replace(tzinfo=None) if engine.dialect.name == "sqlite" else long_ago
        connection.execute(text("UPDATE uploads SET used_at = :at"), {"at": stored.isoformat(" ")})
    assert uploads.unused(3600) == [("o", old.id)]
    released: list[list[str] | None] = []
    keys, _ = interrupted(uploads, "o", lambda: released.append(uploads.delete("o", old.id, 3600)))
    assert (keys, released) == (["k1"], [None])
    assert uploads.named(["k1"]) == {"k1"}


def test_who_comes_after_the_sweep_brings_an_object_of_its_own(uploads: UploadRepository) -> None:
    old, _ = uploads.keep("o", "model", model("a", "k1"), present)
    released = uploads.delete("o", old.id)
    # The row has gone, the object in the store not yet.
    anew, created = uploads.keep("p", "model", model("a", "k2"), present)
    assert (released, created, anew.files["model"].key) == (["k1"], True, "k2")
