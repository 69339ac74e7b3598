"""What has come is counted, hashed and skimmed; after a restart as if nothing had been there."""

import hashlib
import itertools
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.fetching.errors import ReferenceTooLarge
from service.fetching.receiving import Fetched, Receiver, Wanted
from tests.service.api.sample_files import MODEL

WANTED = Wanted("model_ref", "the file", len(MODEL))


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, len(MODEL)), max_size=5), st.booleans())
def test_chunks_of_any_size_make_the_file_also_after_a_restart(tmp_path: Path, borders: list[int], restarts: bool) -> None:
    edges = [0, *sorted(borders), len(MODEL)]
    with Receiver(WANTED, tmp_path / "file") as receiver:
        if restarts:
            receiver.take(MODEL[: edges[1]])
            receiver.restart()
        for start, end in itertools.pairwise(edges):
            receiver.take(MODEL[start:end])
        assert receiver.finish() == Fetched(len(MODEL), hashlib.sha256(MODEL).hexdigest(), ".onnx")
        assert (tmp_path / "file").read_bytes() == MODEL


def test_a_byte_more_than_allowed_is_one_too_many(tmp_path: Path) -> None:
    with Receiver(WANTED, tmp_path / "file") as receiver:
        receiver.check_size(len(MODEL))
        receiver.take(MODEL)
        with pytest.raises(ReferenceTooLarge):
            receiver.take(b"\x00")
        with pytest.raises(ReferenceTooLarge):
            receiver.check_size(len(MODEL) + 1)
