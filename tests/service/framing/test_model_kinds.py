"""Weights alone are told from ONNX files by their first bytes, and skimmed to their last."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open

from service.framing.model_kinds import ModelFileSkimmer
from tests.service.api.sample_files import MODEL
from tests.service.framing.test_skimmers import skim


def weights(tensors: dict[str, int], **changes: object) -> bytes:
    """A safetensors file with float32 vectors of the given lengths, written without the library."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, length in tensors.items():
        header[name] = {"dtype": "F32", "shape": [length], "data_offsets": [end, end + 4 * length]}
        end += 4 * length
    text = json.dumps(header | changes).encode()
    return len(text).to_bytes(8, "little") + text + bytes(end)


WEIGHTS = weights({"a.weight": 300, "a.bias": 3})


@given(st.lists(st.integers(0, 10_000), max_size=6))
def test_both_kinds_pass_at_any_chunk_borders(borders):
    for data, suffix in ((MODEL, ".onnx"), (WEIGHTS, ".safetensors")):
        skimmer = ModelFileSkimmer()
        assert skim(skimmer, data, borders) is None
        assert skimmer.suffix == suffix


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(WEIGHTS) - 1), st.booleans())
def test_what_is_cut_or_longer_is_refused(size, longer):
    data = WEIGHTS + bytes(size + 1) if longer else WEIGHTS[:size]
    assert skim(ModelFileSkimmer(), data)


@settings(max_examples=200, deadline=None)
@given(st.integers(8, 200), st.integers(0, 255))
def test_what_the_library_reads_passes(tmp_path_factory, position, value):
    data = bytearray(WEIGHTS)
    data[position] = value
    path = Path(tmp_path_factory.getbasetemp(), "mutant.safetensors")
    path.write_bytes(data)
    try:
        with safe_open(path, "numpy") as file:
            readable = list(file.keys())
    except SafetensorError:
        readable = []
    assert not (readable and data[8] == ord("{") and skim(ModelFileSkimmer(), bytes(data)))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"\x08", "truncated"),
        ((2**31).to_bytes(8, "little") + b"{" + bytes(20), "header has"),
        (weights({"a": 2}, a=3), "cannot be read"),
        (weights({"a": 2}, a={"data_offsets": [0, 10**30]}), "describes a file"),
        ((200_001).to_bytes(8, "little") + b"{" + b"[" * 200_000, "cannot be read"),
        (b"\x10\0\0\0\0\0\0\0[[[[[[[[[[[[[[[[", "not an ONNX model"),
    ],
)
def test_the_refusal_says_why(data, words):
    assert words in str(skim(ModelFileSkimmer(), data))
