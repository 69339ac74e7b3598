"""`python -m tests.compressor.artifacts.formats.make`: a small file of each format, and what is in it, in the folder of its version."""

from pathlib import Path

import numpy as np
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper

from compressor.artifacts import bp, csr, dense_onnx, packed_onnx, points, sparse_onnx
from compressor.artifacts.grid import GridTensor
from compressor.report import CurvePoint

FOLDER = Path(__file__).parent
GRIDS = {"w": 0.25, "v": 0.0390625, "b": 0.5}


def grids() -> dict[str, GridTensor]:
    """Two sparse matrices and a bias; large enough that packing pays."""
    random = np.random.default_rng(0)
    codes = {
        "w": np.where(random.random((60, 90)) < 0.1, random.integers(-7, 8, (60, 90)), 0),
        "v": np.where(random.random((10, 60)) < 0.4, random.integers(-7, 8, (10, 60)), 0),
        "b": random.integers(-3, 4, 60),
    }
    return {name: GridTensor(array.astype(np.int8), GRIDS[name]) for name, array in codes.items()}


def network(tensors: dict[str, np.ndarray], opset: int = 17) -> ModelProto:
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["h"], transB=1),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "v"], ["y"], transB=1),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", size]) for name, size in (("x", 90), ("y", 10))]
    initializers = [numpy_helper.from_array(array, name) for name, array in tensors.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def write(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    values = {name: grid.values() for name, grid in grids().items()}
    sparse_onnx.write(folder / "model.onnx", network(values), {})
    sparse_onnx.write(folder / "model.opset12.onnx", network(values, opset=12), {})
    dense_onnx.write(folder / "model.dense.onnx", network(values))
    dense_onnx.write(folder / "model.float16.onnx", network(values), halves=("w", "v"))
    bp.write(folder / "model.bp", network(values), grids())
    packed_onnx.write(folder / "model.packed.onnx", network(values), grids())
    csr.write(folder / "weights.safetensors", values, {"w": np.full((60, 90), 0.125)})
    tensors = {name: torch.from_numpy(array) for name, array in values.items()}
    kept = points.Points()
    kept.append(tensors, {"w": torch.full((60, 90), -2.0)})
    nnz = sum(int(np.count_nonzero(array)) for array in values.values() if array.ndim >= 2)
    point = CurvePoint(beta=1.0, threshold=3.0, layer_thresholds={}, nnz=nnz, compression_ratio=6000 / nnz, metric=0.9, chosen=True)
    curve = points.Curve(
        model_sha256="0" * 64,
        architecture=None,
        image_size=None,
        output=None,
        numel=6000,
        metric="accuracy",
        dense_metric=0.91,
        fixed_nnz=0,
        tensors=points.specs_of(tensors),
        points=(point,),
    )
    points.write(folder / "curve.safetensors", curve, kept)
    np.savez_compressed(folder / "expected.npz", **values)


if __name__ == "__main__":
    write(FOLDER / "v1")
