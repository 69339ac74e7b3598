"""The object store: whole objects or none, ranges, prefixes; on a real folder."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.storage.store import ObjectStore
from tests.service.storage.objects import put_bytes


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(tmp_path / "store")


async def read(store: ObjectStore, key: str, start: int, end: int) -> bytes:
    return b"".join([chunk async for chunk in store.open_range(key, start, end)])


@given(chunks=st.lists(st.binary(max_size=3000), max_size=6), data=st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_range_of_a_written_object_is_the_slice(store: ObjectStore, chunks: list[bytes], data: st.DataObject) -> None:
    async def write() -> None:
        async with store.open_writer("jobs/a/inputs/x") as writer:
            for chunk in chunks:
                await writer.write(chunk)

    asyncio.run(write())
    whole = b"".join(chunks)
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, len(whole)))
    assert store.size("jobs/a/inputs/x") == len(whole)
    assert asyncio.run(read(store, "jobs/a/inputs/x", start, end)) == whole[start:end]


@pytest.mark.parametrize("size", [10, 5_000_000])
def test_an_object_is_invisible_until_its_writer_closes(store: ObjectStore, size: int) -> None:
    async def write() -> None:
        async with store.open_writer("jobs/a/inputs/x") as writer:
            await writer.write(b"x" * size)
            assert not store.exists("jobs/a/inputs/x")
            assert store.list("jobs/a") == []
        assert store.list("jobs/a") == ["jobs/a/inputs/x"]

    asyncio.run(write())


@pytest.mark.parametrize("size", [10, 5_000_000])
def test_an_aborted_writer_leaves_nothing(store: ObjectStore, tmp_path: Path, size: int) -> None:
    async def write() -> None:
        async with store.open_writer("jobs/a/inputs/x") as writer:
            await writer.write(b"x" * size)
            raise TimeoutError

    with pytest.raises(TimeoutError):
        asyncio.run(write())
    store.delete_prefix("jobs/a")
    assert [path for path in (tmp_path / "store").rglob("*") if path.name != "jobs"] == []


def test_delete_prefix_takes_whole_folders_only(store: ObjectStore) -> None:
    for key in ("jobs/a/1/artifacts/m", "jobs/a/inputs/x", "jobs/ab/inputs/x"):
        put_bytes(store, key, b"1")
    store.delete_prefix("jobs/a")
    store.delete_prefix("jobs/none")
    assert store.list("jobs") == ["jobs/ab/inputs/x"]


def test_files_go_in_and_out_unchanged(store: ObjectStore, tmp_path: Path) -> None:
    source, copy = tmp_path / "source", tmp_path / "copy"
    source.write_bytes(bytes(range(256)) * 30_000)
    store.put_file("jobs/a/inputs/x", source)
    store.get_to_file("jobs/a/inputs/x", copy)
    assert copy.read_bytes() == source.read_bytes()


def test_a_copy_takes_no_room_and_outlives_its_original(store: ObjectStore, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"bytes")
    store.put_file("jobs/a/inputs/x", source)
    store.copy("jobs/a/inputs/x", "jobs/b/inputs/x")
    first, second = (tmp_path / "store" / "jobs" / job / "inputs" / "x" for job in ("a", "b"))
    assert first.samefile(second)
    store.delete_prefix("jobs/a")
    assert second.read_bytes() == b"bytes"


def test_a_missing_object_is_a_file_not_found(store: ObjectStore, tmp_path: Path) -> None:
    assert not store.exists("jobs/a/none")
    with pytest.raises(FileNotFoundError):
        store.get_to_file("jobs/a/none", tmp_path / "copy")
    with pytest.raises(FileNotFoundError):
        store.size("jobs/a/none")
    with pytest.raises(FileNotFoundError):
        asyncio.run(read(store, "jobs/a/none", 0, 1))


def test_delete_removes_one_object_which_need_not_exist(tmp_path: Path) -> None:
    store = ObjectStore(tmp_path)
    put_bytes(store, "jobs/a/1/x", b"x")
    put_bytes(store, "jobs/a/1/xy", b"y")
    store.delete("jobs/a/1/x")
    store.delete("jobs/a/1/x")
    assert store.list("jobs") == ["jobs/a/1/xy"]
