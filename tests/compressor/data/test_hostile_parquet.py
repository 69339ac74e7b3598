"""A parquet of a stranger: nothing outside it is read, nothing in it fills the memory, and every error says what and where."""

import http.server
import pickle
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compressor.data import limits, parquet
from compressor.data.source import Source
from compressor.errors import DatasetError, DatasetTooLarge, ExternalReference, InvalidDataset

PIXELS = np.full((6, 5), 200, dtype=np.uint8)
SHAPE = (None, 1, 6, 5)


@pytest.fixture(autouse=True)
def in_time() -> Iterator[None]:
    start = time.monotonic()
    yield
    assert time.monotonic() - start < 20


@pytest.fixture
def marker(tmp_path: Path, png) -> Path:
    """A file of the server, a valid image of the right size."""
    path = tmp_path / "server" / "secret.png"
    path.parent.mkdir()
    path.write_bytes(png(PIXELS))
    return path


@pytest.fixture
def address(png) -> Iterator[tuple[str, list[str]]]:
    """An address on this machine that serves such an image, and the requests that it got."""
    requests: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(png(PIXELS))

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/secret.png", requests
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("metadata", [True, False])
@pytest.mark.parametrize("empty", [None, b""])
def test_a_path_of_the_server_is_not_read(image_file, load, spec, png, marker, watch, metadata, empty) -> None:
    cells = (
        [{"bytes": png(PIXELS), "path": None}] * 3 + [{"bytes": empty, "path": str(marker)}] + [{"bytes": png(PIXELS), "path": None}] * 6
    )
    with pytest.raises(ExternalReference, match="row 3") as caught:
        load(image_file(cells, metadata=metadata), spec(SHAPE))
    assert caught.value.code == "external_reference"
    assert caught.value.param == "image"
    assert "bytes" in (caught.value.suggestion or "")
    assert not [name for name in watch.opened if "secret" in name]


@pytest.mark.parametrize("prefix", ["", "zip://a.png::", "simplecache::"])
def test_an_address_is_not_requested(image_file, load, spec, address, watch, prefix) -> None:
    url, requests = address
    with pytest.raises(ExternalReference, match="row 0"):
        load(image_file([{"bytes": None, "path": prefix + url}] * 10), spec(SHAPE))
    assert requests == []
    assert watch.network == []


def test_bytes_win_over_a_path_as_the_hub_exports_both(image_file, load, spec, png, marker, watch) -> None:
    parts = load(image_file([{"bytes": png(PIXELS // 2), "path": str(marker)}] * 10), spec(SHAPE))
    assert np.all(parts.train.inputs[0] == 100)
    assert not [name for name in watch.opened if "secret" in name]


@pytest.mark.parametrize("kind", ["Image", "Audio", "Video"])
def test_a_text_column_declared_as_media_is_not_followed(tmp_path, load, spec, marker, watch, kind) -> None:
    table = pa.table({"image": [str(marker)] * 10, "label": [0] * 10})
    features = f'{{"info": {{"features": {{"image": {{"_type": "{kind}"}}, "label": {{"dtype": "int64", "_type": "Value"}}}}}}}}'
    pq.write_table(table.replace_schema_metadata({"huggingface": features}), tmp_path / "t.parquet")
    with pytest.raises(ExternalReference, match="row 0"):
        load(tmp_path / "t.parquet", spec(SHAPE))
    assert not [name for name in watch.opened if "secret" in name]


def test_a_struct_without_bytes_is_not_followed(tmp_path, load, spec, marker, watch) -> None:
    for cell in ({"path": str(marker)}, {"bytes": None, "path": str(marker)}):
        pq.write_table(pa.table({"image": [cell] * 10, "label": [0] * 10}), tmp_path / "t.parquet")
        with pytest.raises(ExternalReference):
            load(tmp_path / "t.parquet", spec(SHAPE))
    assert not [name for name in watch.opened if "secret" in name]


def test_declared_features_are_ignored(tmp_path, load, spec, png) -> None:
    """The file says that its label is an image and its image a pickled class of its own; neither counts."""
    features = (
        '{"info": {"features": {"label": {"_type": "Image"}, "image": {"_type": "Video", "decode": true}, "gone": {"_type": "Nonsense"}}}}'
    )
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array([{"bytes": png(PIXELS), "path": None}] * 10, kind), "label": [3] * 10})
    pq.write_table(table.replace_schema_metadata({"huggingface": features}), tmp_path / "t.parquet")
    assert load(tmp_path / "t.parquet", spec(SHAPE)).train.labels.tolist() == [3] * 8


def test_a_pickled_extension_type_is_not_unpickled(tmp_path, load, spec) -> None:
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "pwned",))

    metadata = {"ARROW:extension:name": "arrow.py_extension_type", "ARROW:extension:metadata": pickle.dumps(Evil())}
    schema = pa.schema([pa.field("a", pa.float32(), metadata=metadata), pa.field("label", pa.int64())])
    pq.write_table(pa.table([pa.array([1.0] * 10, pa.float32()), pa.array([0] * 10)], schema=schema), tmp_path / "t.parquet")
    with suppress(DatasetError):
        load(tmp_path / "t.parquet", spec((None, 1)))
    assert not (tmp_path / "pwned").exists()


def test_an_empty_image_is_an_error_with_its_row(image_file, load, spec, png) -> None:
    for cell in (None, {"bytes": None, "path": None}, {"bytes": b"", "path": ""}):
        with pytest.raises(InvalidDataset, match="row 1"):
            load(image_file([{"bytes": png(PIXELS), "path": None}, cell] * 5), spec(SHAPE))


def test_too_many_rows_are_refused_before_they_are_read(tmp_path, load, spec) -> None:
    rows = limits.MAX_ROWS + 1
    pq.write_table(pa.table({"a": np.zeros(rows, np.int8), "label": np.zeros(rows, np.int8)}), tmp_path / "t.parquet")
    with pytest.raises(DatasetTooLarge, match="rows"):
        load(tmp_path / "t.parquet", spec((None, 1)))


def test_too_many_columns_are_refused(tmp_path, load, spec) -> None:
    columns = {f"c{index}": [0] for index in range(limits.MAX_COLUMNS + 1)}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    with pytest.raises(DatasetTooLarge, match="columns"):
        load(tmp_path / "t.parquet", spec((None, 1)))


@dataclass
class Group:
    total_byte_size: int


@dataclass
class Footer:
    """The footer of a file that would be gigabytes to write."""

    groups: list[Group]
    num_rows: int = 10
    num_columns: int = 2

    @property
    def num_row_groups(self) -> int:
        return len(self.groups)

    def row_group(self, index: int) -> Group:
        return self.groups[index]


def test_declared_row_groups_are_limited() -> None:
    parquet.check_declared_sizes(Footer([Group(limits.MAX_ROW_GROUP_BYTES)]), Source("dataset", "t"))
    with pytest.raises(DatasetTooLarge, match="row group 1"):
        parquet.check_declared_sizes(Footer([Group(1), Group(limits.MAX_ROW_GROUP_BYTES + 1)]), Source("dataset", "t"))
    with pytest.raises(DatasetTooLarge, match="row groups"):
        parquet.check_declared_sizes(Footer([Group(1)] * (limits.MAX_ROW_GROUPS + 1)), Source("dataset", "t"))


@pytest.mark.parametrize("size", [0, 1, limits.MIB, 64 * limits.MIB, limits.MAX_BATCH_BYTES, limits.MAX_ROW_GROUP_BYTES])
def test_a_batch_of_the_largest_cells_stays_small(size) -> None:
    rows = parquet.batch_rows(Footer([Group(1), Group(size)]))
    assert 1 <= rows <= limits.MAX_BATCH_ROWS
    assert rows == 1 or rows * size <= limits.MAX_BATCH_BYTES


def test_metadata_of_a_column_that_would_end_the_process_is_an_error(image_file, load, spec, png) -> None:
    """Every single bit of the footer's part that lists the column chunks, flipped; one of them aborts `RowGroupMetaData.column`."""
    path = image_file([{"bytes": png(PIXELS), "path": "a.png"}] * 12, metadata=False, store_schema=False)
    good = path.read_bytes()
    footer = len(good) - 8 - int.from_bytes(good[-8:-4], "little")
    for position in range(footer, len(good) - 8, 3):
        bad = bytearray(good)
        bad[position] ^= 1
        path.write_bytes(bad)
        with suppress(DatasetError):
            assert len(load(path, spec(SHAPE)).train) >= 1


def test_a_long_column_name_is_cut_in_messages(table_file, load, spec) -> None:
    with pytest.raises(DatasetError) as caught:
        load(table_file(**{"x" * 100_000: [1.0] * 10, "y": [0] * 10}), spec((None, 1)))
    assert len(caught.value.detail) < 1000


def test_two_columns_of_one_name_are_refused(tmp_path, load, spec) -> None:
    table = pa.Table.from_arrays([pa.array([1.0] * 10), pa.array([1.0] * 10), pa.array([0] * 10)], names=["a", "a", "label"])
    pq.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(InvalidDataset, match="same name"):
        load(tmp_path / "t.parquet", spec((None, 2)))


def test_no_rows_are_an_error(tmp_path, load, spec) -> None:
    pq.write_table(pa.table({"a": pa.array([], pa.float32()), "label": pa.array([], pa.int64())}), tmp_path / "t.parquet")
    with pytest.raises(InvalidDataset, match="no rows"):
        load(tmp_path / "t.parquet", spec((None, 1)))


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + b"\xff" * 100 + b"PAR1", b"a,b,label\n1,2,0\n", b"\x80\x04\x95pickle"])
def test_other_files_named_parquet_are_refused(tmp_path, load, spec, content) -> None:
    (tmp_path / "t.parquet").write_bytes(content)
    with pytest.raises(InvalidDataset, match="parquet"):
        load(tmp_path / "t.parquet", spec((None, 1)))


@pytest.mark.parametrize("name", ["t.csv", "t.pth", "t.tar", "t.zip", "t.json", "t", "t.npy", "t.arrow", "parquet"])
def test_other_suffixes_are_refused(tmp_path, load, spec, name) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(InvalidDataset) as caught:
        load(tmp_path / name, spec((None, 1)))
    assert ".parquet" in (caught.value.suggestion or "")


def test_a_folder_or_no_file_is_an_error(tmp_path, load, spec) -> None:
    (tmp_path / "folder.parquet").mkdir()
    for name in ("folder.parquet", "absent.parquet", "absent.npz"):
        with pytest.raises(InvalidDataset):
            load(tmp_path / name, spec((None, 1)))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_is_an_error_with_a_code_or_still_readable(image_file, load, spec, png, data) -> None:
    path = image_file([{"bytes": png(PIXELS), "path": "a.png"}] * 12)
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    with suppress(DatasetError):
        parts = load(path, spec(SHAPE))
        assert len(parts.train) >= 1
