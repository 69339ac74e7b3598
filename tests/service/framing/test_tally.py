"""What a tally knows is what the whole file says, however it was cut into chunks."""

import hashlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compressor.errors import InvalidDataset, InvalidModel
from service.framing.tally import Tally
from tests.acceptance.digits_model import digits_model

MODEL = digits_model(hidden=4)
ROWS = b"PAR1" + bytes(600) + b"PAR1"


@pytest.mark.parametrize(("part", "data", "suffix"), [("model", MODEL, ".onnx"), ("model_ref", MODEL, ".onnx"), ("test", ROWS, ".parquet")])
@given(cuts=st.lists(st.integers(0, 3000), max_size=6))
def test_chunks_make_no_difference(part: str, data: bytes, suffix: str, cuts: list[int]) -> None:
    tally, ends = Tally(part), sorted({0, *(cut for cut in cuts if cut < len(data)), len(data)})
    for start, end in pairwise(ends):
        tally.take(data[start:end])
    tally.finish()
    assert (tally.num_bytes, tally.sha256, tally.suffix) == (len(data), hashlib.sha256(data).hexdigest(), suffix)


def test_a_part_is_what_it_stands_for() -> None:
    with pytest.raises(InvalidDataset):
        Tally("dataset_ref").take(MODEL)
    tally = Tally("model")
    with pytest.raises(InvalidModel):
        tally.take(ROWS)
