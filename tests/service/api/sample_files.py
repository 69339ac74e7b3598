"""Small real files to upload: an ONNX model, a parquet file, an .npz file."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from onnx import TensorProto, helper


def build_model() -> bytes:
    weights = helper.make_tensor("w", TensorProto.FLOAT, (4, 3), np.arange(12, dtype=np.float32).tobytes(), raw=True)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [weights],
    )
    model = helper.make_model(graph, producer_name="a producer", opset_imports=[helper.make_opsetid("", 20)])
    data: bytes = model.SerializeToString()
    return data


def build_parquet() -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table({"x": list(range(100)), "label": [0, 1] * 50}), file)
    return file.getvalue()


def build_npz() -> bytes:
    file = io.BytesIO()
    np.savez(file, x=np.zeros((20, 3), np.float32), y=np.zeros(20, np.int64))
    return file.getvalue()


MODEL, PARQUET_FILE, NPZ_FILE = build_model(), build_parquet(), build_npz()
