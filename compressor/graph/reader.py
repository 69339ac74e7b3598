"""The graph of a validated file: real inputs, outputs, constants and nodes, and the part of it that one output needs."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, numpy_helper

from compressor.errors import InvalidModel
from compressor.graph.node import Node
from compressor.graph.tensors import constant_array

ONNX_DOMAINS = ("", "ai.onnx")


@dataclass(frozen=True)
class Constant:
    """An initialiser, or what a Constant node holds; decoded only when asked for."""

    source: TensorProto | NodeProto

    def load(self) -> tuple[np.ndarray, int] | None:
        """The dense array and its ONNX element type; None where a Constant node holds strings."""
        if isinstance(self.source, TensorProto):
            return numpy_helper.to_array(self.source), self.source.data_type
        return constant_array(self.source)


@dataclass(frozen=True)
class Graph:
    """A graph without its Constant nodes, which stand among the constants. Nodes are in an order in which they can run."""

    opset: int
    inputs: tuple[ValueInfoProto, ...]
    outputs: tuple[ValueInfoProto, ...]
    constants: Mapping[str, Constant]
    nodes: tuple[Node, ...]

    def needed_nodes(self, outputs: Collection[str]) -> tuple[Node, ...]:
        """The nodes that `outputs` depend on."""
        wanted = set(outputs)
        needed = []
        for node in reversed(self.nodes):
            if wanted.intersection(node.outputs):
                wanted.update(name for name in node.inputs if name)
                needed.append(node)
        return tuple(reversed(needed))


def opset_of(model: ModelProto) -> int:
    """The version of the ONNX operators; 1 where the model names none."""
    return max((entry.version for entry in model.opset_import if entry.domain in ONNX_DOMAINS), default=1)


def read_graph(model: ModelProto) -> Graph:
    """The graph of a model that parse_model has let through.

    Raises: InvalidModel where a name is defined twice.
    """
    opset = opset_of(model)
    constants: dict[str, Constant] = {tensor.name: Constant(tensor) for tensor in model.graph.initializer}
    nodes: list[Node] = []
    for proto in model.graph.node:
        for name in proto.output:
            if name in constants:
                raise InvalidModel(f"{name!r} is defined twice.", param=name, suggestion="Give every value one name.")
        if proto.op_type == "Constant" and proto.domain in ONNX_DOMAINS:
            constants[proto.output[0]] = Constant(proto)
        else:
            nodes.append(Node.from_proto(proto, opset))
    inputs = tuple(info for info in model.graph.input if info.name not in constants)
    return Graph(opset, inputs, tuple(model.graph.output), constants, tuple(nodes))
