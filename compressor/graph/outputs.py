"""The outputs beside the one that is compressed: ONNX Runtime computes them with every run, so they are bounded like that one."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from onnx import ModelProto, TensorProto
from torch import Tensor

from compressor.errors import CompressionError, UnsupportedModel
from compressor.graph.cost import measure_cost, to_meta
from compressor.graph.meter import MAX_HOST_ELEMENTS, RunLimits
from compressor.graph.node import Node
from compressor.graph.program import Program
from compressor.graph.reader import Constant, Graph, read_graph
from compressor.graph.roles import numbers_of
from compressor.graph.tensors import FLOAT_TYPES, in_compute, to_torch, torch_dtype

# Operators of ai.onnx.ml that scikit-learn's label output is made of, and what has a result of the same size.
_STAND_INS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "ArrayFeatureExtractor": ("Gather", {"axis": -1}),
    "LabelEncoder": ("Identity", {}),
    "ZipMap": ("Identity", {}),
}

_WITHOUT_OTHERS = "Export the model without its other outputs, or name another one with the option `output`."


def check_other_outputs(model: ModelProto, chosen: str, rows: Sequence[Tensor], limits: RunLimits) -> None:
    """Runs all outputs over `rows` without content.

    Args:
        model: a model whose output `chosen` is known to run.
        rows: one tensor for each input.
        limits: what all outputs together may take.
    Raises:
        UnsupportedOperator: an output is computed by an operator whose size is not known.
        UnsupportedModel: an output does not run on these rows.
        GraphTooLarge: the outputs take too much.
    """
    graph = read_graph(model)
    names = [info.name for info in graph.outputs if info.name != chosen]
    nodes = [_stand_in(node) for node in graph.needed_nodes([*names, chosen])]
    if not names or not nodes:
        return
    last = next(filter(None, nodes[-1].outputs))  # the step after which all outputs are there
    try:
        program = Program(nodes, [*names, chosen, last])
        values = list(_values(program, graph, nodes, rows))
        meta = torch.device("meta")
        measure_cost(lambda: program.run(last, values, training=False, device=meta), limits.bytes, limits, to_meta(rows))
    except CompressionError as error:
        detail = f"The model has outputs beside {chosen!r}: {error.detail}"
        raise type(error)(detail, param=error.param, suggestion=_WITHOUT_OTHERS) from error
    except Exception as error:  # the graph is the client's: torch may raise anything
        raise UnsupportedModel(
            f"The model has outputs beside {chosen!r} that do not run: {str(error)[:300]}", param=names[0], suggestion=_WITHOUT_OTHERS
        ) from error


def _stand_in(node: Node) -> Node:
    if node.domain == "ai.onnx.ml" and node.op_type in _STAND_INS:
        operator, attributes = _STAND_INS[node.op_type]
        return replace(node, op_type=operator, domain="", attributes=attributes)
    if node.op_type == "Cast" and node.attributes.get("to") == TensorProto.STRING:
        return replace(node, op_type="Identity", attributes={})
    return node


def _values(program: Program, graph: Graph, nodes: Sequence[Node], rows: Sequence[Tensor]) -> Iterator[tuple[int, Tensor]]:
    read = {name for node in nodes for name in node.inputs}
    numbers = numbers_of(nodes)
    for info, tensor in zip(graph.inputs, to_meta(rows), strict=True):
        yield program.slot(info.name), tensor.to(in_compute(torch_dtype(info.type.tensor_type.elem_type, info.name)))
    for name, constant in graph.constants.items():
        if name in read:
            yield program.slot(name), _shaped(constant, name, is_number=name in numbers)


def _shaped(constant: Constant, name: str, *, is_number: bool) -> Tensor:
    """Numbers and small integers as they are, since they may be sizes; of anything else only the shape. Strings count as integers."""
    loaded = constant.load()
    if loaded is None:
        return torch.empty(1, dtype=torch.int64, device="meta")
    array, kind = loaded
    if kind == TensorProto.STRING:
        return torch.empty(array.shape, dtype=torch.int64, device="meta")
    if array.size <= MAX_HOST_ELEMENTS and (is_number or array.ndim == 0 or kind not in FLOAT_TYPES):
        return to_torch(array, kind, name)
    return torch.empty(array.shape, dtype=in_compute(torch_dtype(kind, name)), device="meta")
