"""The skimmers against real files, cut and mutated, fed at arbitrary chunk borders; the oracle is a second walk over the whole buffer."""

import gzip
import io
import itertools
import json
import pickle
import zipfile

import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.errors import CompressionError
from service.framing.skimmers import MODEL_FIELDS, REQUIRED_FIELDS, DatasetSkimmer, ModelSkimmer, Skimmer
from tests.service.api.sample_files import MODEL, NPZ_FILE, PARQUET_FILE


def skim(skimmer: Skimmer, data: bytes, borders: list[int] | None = None) -> str | None:
    """The refusal's sentence, which has a remedy; None where the file passes."""
    edges = [0, *sorted(border % (len(data) + 1) for border in borders or []), len(data)]
    try:
        for start, end in itertools.pairwise(edges):
            skimmer.feed(data[start:end])
        skimmer.finish()
    except CompressionError as error:
        return error.detail if error.suggestion and error.param else "without a remedy"
    return None


def tiles(data: bytes) -> bool:
    """Whether known fields tile `data`, walked recursively over the whole buffer."""

    def varint(data: bytes) -> tuple[int, bytes]:
        for index in range(min(len(data), 10)):
            if data[index] < 128:
                value = sum((byte & 127) << (7 * place) for place, byte in enumerate(data[: index + 1]))
                return value, data[index + 1 :]
        raise ValueError

    seen = set()
    try:
        while data:
            tag, data = varint(data)
            number, wire = divmod(tag, 8)
            if number not in MODEL_FIELDS or MODEL_FIELDS[number][1] != wire:
                return False
            seen.add(number)
            value, data = varint(data)
            if wire == 2:
                if value > len(data):
                    return False
                data = data[value:]
    except ValueError:
        return False
    return seen.issuperset(REQUIRED_FIELDS)


borders = st.lists(st.integers(0, 100_000), max_size=8)


def test_the_table_of_fields_is_that_of_onnx() -> None:
    wire_types = {field.number: (field.name, 0 if field.type == field.TYPE_INT64 else 2) for field in onnx.ModelProto.DESCRIPTOR.fields}
    assert wire_types == MODEL_FIELDS


@given(borders=borders)
def test_a_model_passes_at_any_chunk_borders(borders: list[int]) -> None:
    assert skim(ModelSkimmer(), MODEL, borders) is None


def test_a_model_passes_byte_by_byte() -> None:
    assert skim(ModelSkimmer(), MODEL, list(range(len(MODEL)))) is None


def test_every_prefix_of_a_model_is_refused() -> None:
    for size in range(len(MODEL)):
        assert skim(ModelSkimmer(), MODEL[:size]) is not None, size


def test_a_truncated_graph_is_told_with_its_sizes() -> None:
    detail = skim(ModelSkimmer(), MODEL[:60])
    assert detail is not None
    assert "truncated" in detail
    assert "field 7 (graph) says" in detail


@given(
    mutations=st.lists(st.tuples(st.integers(0, len(MODEL) - 1), st.integers(0, 255)), max_size=6),
    cut=st.integers(0, len(MODEL)),
    tail=st.binary(max_size=20),
    borders=borders,
)
@settings(max_examples=400)
def test_mutated_models_are_judged_as_by_a_walk_over_the_whole(
    mutations: list[tuple[int, int]], cut: int, tail: bytes, borders: list[int]
) -> None:
    data = bytearray(MODEL)
    for place, value in mutations:
        data[place] = value
    mutated = bytes(data[: len(data) - cut // 4]) + tail
    detail = skim(ModelSkimmer(), mutated, borders)
    assert (detail is None) == tiles(mutated)
    assert detail == skim(ModelSkimmer(), mutated)


@given(data=st.binary(max_size=200), borders=borders)
@settings(max_examples=300)
def test_random_bytes_never_pass_and_never_break_a_skimmer(data: bytes, borders: list[int]) -> None:
    assert (skim(ModelSkimmer(), data, borders) is None) == tiles(data)
    assert skim(DatasetSkimmer("dataset"), data, borders) is not None


def test_a_flood_of_tiny_fields_is_refused() -> None:
    detail = skim(ModelSkimmer(), b"\x28\x01" * 200_000)
    assert detail is not None
    assert "fields at its top level" in detail


@pytest.mark.parametrize("data", [PARQUET_FILE, NPZ_FILE], ids=["parquet", "npz"])
@given(borders=borders)
@settings(max_examples=30)
def test_a_dataset_passes_at_any_chunk_borders(data: bytes, borders: list[int]) -> None:
    skimmer = DatasetSkimmer("dataset")
    assert skim(skimmer, data, borders) is None
    assert skimmer.suffix == (".parquet" if data is PARQUET_FILE else ".npz")


@pytest.mark.parametrize("data", [PARQUET_FILE, NPZ_FILE], ids=["parquet", "npz"])
def test_every_prefix_of_a_dataset_is_refused(data: bytes) -> None:
    # A zip's end record may carry a comment, so its last 22 bytes cannot tell a cut; the reader does.
    for size in range(len(data) - 22):
        assert skim(DatasetSkimmer("dataset"), data[:size]) is not None, size


def torch_zip() -> bytes:
    file = io.BytesIO()
    torch.save({"w": torch.zeros(3)}, file)
    return file.getvalue()


def zip_of(name: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, "x" * 100)
    return file.getvalue()


FOREIGN = {
    "a pickle": pickle.dumps({"a": 1}),
    "such as torch.save writes": torch_zip(),
    "a zip archive": zip_of("model.onnx"),
    "text": b"this is no model\n" * 100,
    "JSON text": json.dumps({"a": 1}).encode(),
    "HTML or XML text": b"<!doctype html><p>not found",
    "a gzip file": gzip.compress(MODEL),
    "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
    "a safetensors file": (40).to_bytes(8, "little") + b'{"w":{"dtype":"F32"}}',
    "an HDF5 file": b"\x89HDF\r\n\x1a\n" + bytes(100),
}


@pytest.mark.parametrize("looks_like", FOREIGN)
def test_a_foreign_file_is_named(looks_like: str) -> None:
    assert looks_like in str(skim(ModelSkimmer(), FOREIGN[looks_like]))
    assert looks_like in str(skim(DatasetSkimmer("dataset"), FOREIGN[looks_like]))


def test_a_dataset_in_the_models_place_is_named_and_the_other_way_round() -> None:
    assert "a parquet file" in str(skim(ModelSkimmer(), PARQUET_FILE))
    assert "an .npz archive" in str(skim(ModelSkimmer(), NPZ_FILE))
    assert "an ONNX model" in str(skim(DatasetSkimmer("dataset"), MODEL))


@pytest.mark.parametrize("skimmer", [ModelSkimmer(), DatasetSkimmer("dataset")])
def test_an_empty_file_is_refused(skimmer: Skimmer) -> None:
    assert skim(skimmer, b"") == "The file is empty."
