"""Keys: one layout, and nothing in it that could leave its folder."""

import pytest

from service.storage.keys import artifact_key, checkpoint_key, fetched_key, input_key, job_prefix, upload_key


def test_layout() -> None:
    assert input_key("j1", "model", ".onnx") == "jobs/j1/inputs/model.onnx"
    assert fetched_key("j1", 12, "model", ".onnx") == "jobs/j1/inputs/model.12.onnx"
    assert checkpoint_key("j1", 12) == "jobs/j1/12/checkpoint.safetensors"
    assert artifact_key("j1", 12, "report.json") == "jobs/j1/12/artifacts/report.json"
    assert upload_key("r1", "train", ".npz") == "uploads/r1/train.npz"


@pytest.mark.parametrize("segment", ["", ".", "..", "../x", "a/b", "/a", "a\\b", "a#1", "a\n", ".hidden", "x" * 201])
def test_a_segment_that_is_no_plain_name_is_refused(segment: str) -> None:
    with pytest.raises(ValueError, match="cannot be part of a key"):
        job_prefix(segment)
    with pytest.raises(ValueError, match="cannot be part of a key"):
        artifact_key("j1", 1, segment)
