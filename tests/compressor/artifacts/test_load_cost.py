"""Loading a file is measured where nothing else takes memory; a file that does not load has no cost."""

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save

from compressor.artifacts.load_cost import measure_load


def test_a_large_file_takes_more_memory_than_a_small_one(tmp_path: Path) -> None:
    peaks = []
    for size in (10, 3000):
        weight = numpy_helper.from_array(np.ones((size, size), np.float32), "w")
        ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, size]) for name in ("x", "y")]
        graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", ends[:1], ends[1:], [weight])
        save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "model.onnx")
        cost = measure_load(tmp_path / "model.onnx")
        assert cost is not None
        assert cost.median_ms > 0
        peaks.append(cost.peak_bytes)
    assert peaks[1] - peaks[0] > 30e6


def test_a_file_that_does_not_load_has_no_cost(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no model")
    assert measure_load(tmp_path / "model.onnx") is None
