"""Files to read, and a watch on what is opened and connected to while they are read."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from compressor import CompressionConfig, DataReference
from compressor.data import Parts, load_parts
from compressor.data.labels import Targets
from compressor.errors import DatasetError


@dataclass(frozen=True)
class Spec:
    shape: tuple[int | None, ...]
    name: str = "input"
    dtype: object = np.float32


@dataclass
class Watch:
    """What Python opened and where it connected to, since the test began."""

    opened: list[str] = field(default_factory=list)
    network: list[str] = field(default_factory=list)


_watching: list[Watch] = []


def _record(event: str, arguments: tuple[Any, ...]) -> None:
    for watch in _watching:
        if event == "open":
            watch.opened.append(str(arguments[0]))
        elif event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "subprocess.Popen"):
            watch.network.append(f"{event} {arguments}")


# A hook cannot be taken off again; it is idle while nobody watches.
sys.addaudithook(_record)


@pytest.fixture(autouse=True)
def watch() -> Iterator[Watch]:
    """Every test of this room fails where the network is touched."""
    watch = Watch()
    _watching.append(watch)
    yield watch
    _watching.remove(watch)
    assert watch.network == []


@pytest.fixture
def spec() -> Callable[..., Spec]:
    return Spec


@pytest.fixture
def load(tmp_path: Path, watch: Watch) -> Callable[..., Parts]:
    """load(train, spec, ...) -> Parts; the options of the configuration as keywords. Every error says where and what to do."""

    def load(
        train: Path | str,
        *specs: Spec,
        validation: Path | None = None,
        test: Path | None = None,
        num_classes: int = 10,
        num_values: int | None = 10,
        **options: Any,
    ) -> Parts:
        config = CompressionConfig(**options)
        targets = Targets(config.task, num_classes, num_values, required=config.distillation_weight < 1)
        reference = DataReference(train=str(train), validation=validation and str(validation), test=test and str(test))
        # What the test itself wrote and read before does not count.
        watch.opened.clear()
        try:
            return load_parts(reference, specs, targets, config, tmp_path / "cache")
        except DatasetError as error:
            if not (error.param and error.suggestion):
                pytest.fail(f"{error!r} does not say where and what to do")
            raise

    return load


def to_png(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, format=kind)
    return buffer.getvalue()


@pytest.fixture
def png() -> Callable[..., bytes]:
    return to_png


@pytest.fixture
def image_file(tmp_path: Path) -> Callable[..., Path]:
    """image_file(cells, labels): a parquet as the Hugging Face hub has them, cells being {"bytes", "path"} or None."""

    def write(cells: list[Any], labels: Any = None, metadata: bool = True, name: str = "train.parquet", **options: Any) -> Path:
        labels = labels if labels is not None else [index % 10 for index in range(len(cells))]
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        table = pa.table({"image": pa.array(cells, kind), "label": pa.array(labels)})
        if metadata:
            features = '{"info": {"features": {"image": {"_type": "Image"}, "label": {"dtype": "int64", "_type": "Value"}}}}'
            table = table.replace_schema_metadata({"huggingface": features})
        pq.write_table(table, tmp_path / name, **options)
        return tmp_path / name

    return write


@pytest.fixture
def table_file(tmp_path: Path) -> Callable[..., Path]:
    """table_file(a=[...], label=[...]): a parquet of plain columns, in that order."""

    def write(**columns: Any) -> Path:
        pq.write_table(pa.table(columns), tmp_path / "train.parquet")
        return tmp_path / "train.parquet"

    return write


@pytest.fixture
def npz_file(tmp_path: Path) -> Callable[..., Path]:
    def write(**arrays: Any) -> Path:
        np.savez_compressed(tmp_path / "train.npz", **arrays)
        return tmp_path / "train.npz"

    return write
