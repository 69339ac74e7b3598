"""One node on random input, here and in stock ONNX Runtime."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnxruntime
import torch
from onnx import ModelProto

from compressor.graph.program import Program
from compressor.graph.reader import read_graph
from compressor.graph.tensors import to_torch
from compressor.graph.validate import parse_model
from tests.compressor.graph.models import model_of, node


@dataclass(frozen=True)
class Case:
    """One node on one input; the others are constants. `ranks` are those of the outputs, where they are not that of the input."""

    operator: str
    opset: int
    shape: tuple[int, ...]
    constants: tuple[object, ...] = ()
    attributes: Mapping[str, object] = field(default_factory=dict)
    outputs: int = 1
    ranks: tuple[int, ...] = ()
    types: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        options = ",".join(f"{key}={value}" for key, value in self.attributes.items())
        given = ",".join("-" if value is None else _shown(np.array(value)) for value in self.constants)
        return f"{self.operator}-{self.opset}-{self.shape}-({given})-{options}".replace(" ", "")

    def model(self) -> ModelProto:
        names = [f"c{index}" for index in range(len(self.constants))]
        arrays = {name: np.array(value) for name, value in zip(names, self.constants, strict=True) if value is not None}
        inputs = ["x", *(name if name in arrays else "" for name in names)]
        outputs = [f"y{index}" for index in range(self.outputs)]
        ranks = self.ranks or [len(self.shape)] * self.outputs
        shapes = {name: [None] * rank for name, rank in zip(outputs, ranks, strict=True)}
        made = node(self.operator, inputs, outputs, **self.attributes)
        return model_of([made], {"x": self.shape}, shapes, arrays, self.opset, self.types)


def _shown(array: np.ndarray) -> str:
    return str(array.tolist() if array.size <= 8 else array.shape)


def run_ours(model: ModelProto, x: np.ndarray) -> list[np.ndarray]:
    graph = read_graph(model)
    names = [info.name for info in graph.outputs]
    program = Program(graph.nodes, names)
    bound = [(program.slot("x"), torch.from_numpy(x))]
    for name, constant in graph.constants.items():
        loaded = constant.load()
        assert loaded is not None
        bound.append((program.slot(name), to_torch(*loaded)))
    return [program.run(name, bound, training=False, device=torch.device("cpu")).numpy() for name in names]


def run_stock(model: ModelProto, x: np.ndarray) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(None, {"x": x})


def assert_equals_onnx_runtime(case: Case, x: np.ndarray, tolerance: float = 1e-5) -> None:
    model = parse_model(case.model().SerializeToString())
    for ours, theirs in zip(run_ours(model, x), run_stock(model, x), strict=True):
        assert ours.shape == theirs.shape
        assert ours.dtype == theirs.dtype
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance / 10)
