"""Images: every layout of the input from one set of pixels, and a clear error for whatever does not fit."""

import hashlib
import os
import resource
import struct
import zlib
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from compressor.errors import DatasetTooLarge, InvalidDataset, ShapeMismatch

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (20, 6, 5), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (20, 6, 5, 3), dtype=np.uint8)
GREY_OF_COLOUR = np.stack([np.asarray(Image.fromarray(pixels).convert("L")) for pixels in COLOUR])


def in_order(parts):
    """All rows in the order of the file, from the parts that they were carved into."""
    found = {}
    for part in ("train", "validation", "test"):
        dataset = getattr(parts, part)
        for row, index in enumerate(parts.indices[part]):
            found[int(index)] = (dataset.inputs[0][row], dataset.labels[row])
    rows = [found[index] for index in sorted(found)]
    return np.stack([row for row, _ in rows]), np.array([label for _, label in rows])


@pytest.mark.parametrize(
    ("pixels", "shape", "expected"),
    [
        (GREY, (None, 1, 6, 5), GREY[:, None]),
        (GREY, (None, 6, 5, 1), GREY[..., None]),
        (GREY, (None, 6, 5), GREY),
        (GREY, (None, 30), GREY.reshape(20, 30)),
        (GREY, (1, 30), GREY.reshape(20, 30)),
        (GREY, (None, 3, 6, 5), np.repeat(GREY[:, None], 3, axis=1)),
        (GREY, (None, 6, 5, 3), np.repeat(GREY[..., None], 3, axis=3)),
        (GREY, (None, None, None, None), GREY[:, None]),
        (GREY, (None, 1, None, None), GREY[:, None]),
        (COLOUR, (None, 3, 6, 5), COLOUR.transpose(0, 3, 1, 2)),
        (COLOUR, (None, 6, 5, 3), COLOUR),
        (COLOUR, (None, None, None, 3), COLOUR),
        (COLOUR, (None, None, None, None), COLOUR.transpose(0, 3, 1, 2)),
        (COLOUR, (None, None, 6, 5), COLOUR.transpose(0, 3, 1, 2)),
        (COLOUR, (None, 1, 6, 5), GREY_OF_COLOUR[:, None]),
        (COLOUR, (None, 30), GREY_OF_COLOUR.reshape(20, 30)),
    ],
)
def test_pixels_come_in_the_layout_of_the_input(image_file, load, spec, png, pixels, shape, expected) -> None:
    parts = load(image_file([{"bytes": png(one), "path": "a.png"} for one in pixels]), spec(shape))
    rows, labels = in_order(parts)
    assert parts.images
    assert rows.dtype == np.uint8
    assert np.array_equal(rows, expected)
    assert labels.tolist() == [index % 10 for index in range(20)]


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP", "JPEG"])
def test_the_formats_of_classification_sets_are_read(image_file, load, spec, png, kind) -> None:
    flat = np.full((6, 5, 3), 77, dtype=np.uint8)
    parts = load(image_file([{"bytes": png(flat, kind), "path": None}] * 5), spec((None, 3, 6, 5)))
    np.testing.assert_allclose(parts.train.inputs[0].astype(int), 77, atol=3)


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "PPM", "ICO", "PCX"])
def test_other_formats_are_refused(image_file, load, spec, png, kind) -> None:
    with pytest.raises(InvalidDataset, match="row 1"):
        load(image_file([{"bytes": png(GREY[0]), "path": None}, {"bytes": png(GREY[0], kind), "path": None}] * 5), spec((None, 1, 6, 5)))


def test_modes_with_palette_alpha_and_bits_are_converted(image_file, load, spec, tmp_path) -> None:
    cells = []
    for mode in ("P", "1", "LA", "RGBA", "L"):
        Image.new("L", (5, 6), 255).convert(mode).save(tmp_path / "one.png")
        cells.append({"bytes": (tmp_path / "one.png").read_bytes(), "path": None})
    rows, _ = in_order(load(image_file(cells), spec((None, 1, 6, 5))))
    assert np.all(rows == 255)


def test_sixteen_bit_images_are_refused_and_not_clipped(image_file, load, spec, png) -> None:
    deep = np.full((6, 5), 40_000, dtype=np.uint16)
    with pytest.raises(InvalidDataset, match="more than 8 bits"):
        load(image_file([{"bytes": png(deep), "path": None}] * 5), spec((None, 1, 6, 5)))


def test_plain_binary_cells_are_images_too(table_file, load, spec, png) -> None:
    path = table_file(image=[png(one) for one in GREY], label=[0] * 20)
    rows, _ = in_order(load(path, spec((None, 1, 6, 5))))
    assert np.array_equal(rows, GREY[:, None])


@pytest.mark.parametrize(
    "shape", [(None, 1, 28, 28), (None, 1, 5, 6), (None, 784), (None, 90), (None, 2, 6, 5), (None,), (None, 1, 1, 6, 5)]
)
def test_a_size_that_does_not_fit_names_both_shapes_and_the_remedy(image_file, load, spec, png, shape) -> None:
    with pytest.raises(ShapeMismatch) as caught:
        load(image_file([{"bytes": png(one), "path": None} for one in GREY]), spec(shape))
    assert "6x5" in caught.value.detail
    assert "[N" in caught.value.detail
    assert caught.value.param == "image"
    assert "Resize" in (caught.value.suggestion or "")


def test_with_dynamic_sizes_all_rows_must_be_as_the_first(image_file, load, spec, png) -> None:
    cells = [{"bytes": png(GREY[0]), "path": None}] * 4 + [{"bytes": png(GREY[0][:4]), "path": None}]
    with pytest.raises(ShapeMismatch, match="row 4"):
        load(image_file(cells), spec((None, 1, None, None)))


def huge_png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(5000, 5000), (10_000, 10_000), (100_000, 100_000)])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(image_file, load, spec, size) -> None:
    with pytest.raises(DatasetTooLarge, match="row 0") as caught:
        load(image_file([{"bytes": huge_png(*size), "path": None}] * 5), spec((None, 1, None, None)))
    assert caught.value.code == "dataset_too_large"


def test_an_oversized_cell_is_refused(image_file, load, spec) -> None:
    path = image_file([{"bytes": b"x" * (17 * 2**20), "path": None}] * 2, compression="zstd")
    with pytest.raises(DatasetTooLarge, match="row 0"):
        load(path, spec((None, 1, 28, 28)))


@pytest.mark.parametrize("name", ["image", "bytes", "path"])
def test_one_big_cell_repeated_by_dictionary_does_not_fill_the_memory(load, spec, tmp_path, png, name) -> None:
    """2,000 rows of 8 MB each are 16 GB; the file declares 8 MB uncompressed and has almost nothing on disk."""
    big = pa.DictionaryArray.from_arrays(np.zeros(2000, dtype=np.int32), pa.array([b"x" * (8 * 2**20)]))
    good = pa.array([png(GREY[0])] * 2000)
    image = {
        "image": big,
        "bytes": pa.StructArray.from_arrays([big, good], names=["bytes", "path"]),
        "path": pa.StructArray.from_arrays([good, big], names=["bytes", "path"]),
    }[name]
    path = tmp_path / "bomb.parquet"
    pq.write_table(pa.table({"image": image, "label": np.zeros(2000, dtype=np.int8)}), path, compression="zstd", store_schema=False)
    assert path.stat().st_size < 2**20
    assert pq.ParquetFile(path).metadata.row_group(0).total_byte_size < 2**24
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DatasetTooLarge, match="row group 0"):
        load(path, spec((None, 1, 28, 28)))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2 * 2**20, "KiB"


@pytest.mark.parametrize("damage", [b"", b"no image", "cut", "flipped"])
def test_a_damaged_image_is_named_with_its_row(image_file, load, spec, png, damage) -> None:
    good = png(GREY[0])
    bad = {"cut": good[:-30], "flipped": good[:40] + bytes([good[40] ^ 255]) + good[41:]}.get(damage, damage)
    cells = [{"bytes": good, "path": None}] * 3 + [{"bytes": bad, "path": None}] + [{"bytes": good, "path": None}] * 3
    with pytest.raises(InvalidDataset, match="row 3"):
        load(image_file(cells), spec((None, 1, 6, 5)))


def test_a_file_that_datasets_wrote_is_read(tmp_path, load, spec) -> None:
    rows = datasets.Dataset.from_dict({"image": [Image.fromarray(one) for one in GREY], "label": [index % 3 for index in range(20)]})
    rows = rows.cast_column("image", datasets.Image()).cast_column("label", datasets.ClassLabel(names=["a", "b", "c"]))
    datasets.disable_progress_bars()
    rows.to_parquet(tmp_path / "export.parquet")
    pixels, labels = in_order(load(tmp_path / "export.parquet", spec((None, 1, 6, 5)), num_classes=3))
    assert np.array_equal(pixels, GREY[:, None])
    assert labels.tolist() == [index % 3 for index in range(20)]


def test_nothing_is_left_behind_in_the_cache(image_file, load, spec, png, tmp_path) -> None:
    load(image_file([{"bytes": png(one), "path": None} for one in GREY]), spec((None, 1, 6, 5)))
    assert list((tmp_path / "cache").iterdir()) == []


def test_odd_file_names_are_no_globs_and_no_addresses(image_file, load, spec, png, tmp_path) -> None:
    folder = tmp_path / "x[1]::b {y} ?"
    folder.mkdir()
    path = image_file([{"bytes": png(one), "path": None} for one in GREY]).rename(folder / "a*[0].parquet")
    rows, _ = in_order(load(path, spec((None, 1, 6, 5))))
    assert np.array_equal(rows, GREY[:, None])


MNIST = Path(os.environ.get("BAYESPRESS_BENCH_DATA", Path(__file__).parents[4] / "shared" / "data"))


@pytest.mark.parametrize(
    ("name", "rows", "md5"), [("train", 60_000, "6510e85a72c3e9475c492d559d3770d2"), ("test", 10_000, "240610fa99e73bfa49df8e7fc24d3206")]
)
def test_mnist_is_read_to_the_last_pixel(load, spec, name, rows, md5) -> None:
    path = MNIST / f"mnist-{name}.parquet"
    if not path.is_file():
        pytest.skip(f"no {path.name}: set BAYESPRESS_BENCH_DATA to the folder that holds it")
    pixels, labels = in_order(load(path, spec((None, 1, 28, 28))))
    assert len(pixels) == rows
    assert hashlib.md5(pixels.tobytes(), usedforsecurity=False).hexdigest() == md5
    assert labels[:4].tolist() == ([5, 0, 4, 1] if name == "train" else [7, 2, 1, 0])
