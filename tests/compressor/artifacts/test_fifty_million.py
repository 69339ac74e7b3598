"""50 million weights, 98 % of them 0, in every format: within a minute of the processor and 4 GiB, model and imports included."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

_START = """
import resource, sys, time
from pathlib import Path
import numpy as np
from onnx import TensorProto, helper, numpy_helper
from compressor.artifacts import bp, csr, dense_onnx, packed_onnx, sparse_onnx
from compressor.artifacts.grid import GridTensor

random = np.random.default_rng(0)
codes = random.integers(-7, 8, (5_000, 10_000), np.int8) * (random.random((5_000, 10_000), np.float32) < 0.02)
grid, path = GridTensor(codes, 0.25), Path(sys.argv[1])
values = grid.values()
x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", size]) for name, size in (("x", 5_000), ("y", 10_000)))
graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y], [numpy_helper.from_array(values, "w")])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", int(sys.argv[2]))], ir_version=8)
started = time.process_time()
"""

_END = """
written = time.process_time()
assert np.array_equal(found()["w"], values)
read = time.process_time()
print(written - started, read - written, 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""

_FORMATS = {
    "model.onnx": "sparse_onnx.write(path, model, {}); found = lambda: sparse_onnx.read(path)",
    "model.opset12.onnx": "sparse_onnx.write(path, model, {}); found = lambda: sparse_onnx.read(path)",
    "model.dense.onnx": "dense_onnx.write(path, model); found = lambda: dense_onnx.read(path)",
    "model.packed.onnx": "packed_onnx.write(path, model, {'w': grid}); found = lambda: packed_onnx.read(path)",
    "model.bp": "bp.write(path, model, {'w': grid}); found = lambda: bp.read(path)",
    "weights.safetensors": "csr.write(path, {'w': values}); found = lambda: csr.read(path)",
}


@pytest.mark.parametrize("name", list(_FORMATS))
def test_written_and_read_within_a_minute_and_four_gib(tmp_path: Path, name: str) -> None:
    command = [sys.executable, "-W", "ignore", "-c", _START + _FORMATS[name] + _END, tmp_path / name, "12" if "12" in name else "17"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    writing, reading, peak_bytes = map(float, done.stdout.split())
    print(f"{name}: written in {writing:.1f} s, read in {reading:.1f} s, at most {peak_bytes / 2**30:.2f} GiB")
    assert max(writing, reading) < 60
    assert peak_bytes < 4 * 2**30
