"""One node of the graph as the handlers see it: operator, attributes and the names that it reads and writes."""

import builtins
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from onnx import AttributeProto, NodeProto, TensorProto, helper

from compressor.errors import UnsupportedModel


@dataclass(frozen=True, eq=False)
class Node:
    """A node with its attributes as Python values. `name` is only ever shown in messages."""

    op_type: str
    domain: str
    name: str
    opset: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]

    @classmethod
    def from_proto(cls, proto: NodeProto, opset: int) -> "Node":
        attributes = {attribute.name: _value(attribute) for attribute in proto.attribute}
        return cls(proto.op_type, proto.domain, proto.name, opset, tuple(proto.input), tuple(proto.output), attributes)

    @property
    def label(self) -> str:
        """What an error gives as the place: the name or, where the exporter gave none, the first output."""
        return self.name or next(filter(None, self.outputs), self.op_type)

    def __str__(self) -> str:
        return f"{self.op_type} node {self.name or self.outputs[0]!r}"

    def has_input(self, index: int) -> bool:
        return index < len(self.inputs) and self.inputs[index] != ""

    def int(self, name: str, default: int) -> int:
        return int(self.attributes.get(name, default))

    def float(self, name: str, default: float) -> float:
        return float(self.attributes.get(name, default))

    def string(self, name: str, default: str) -> str:
        value = self.attributes.get(name)
        return default if value is None else bytes(value).decode("utf-8", "replace")

    def ints(self, name: str) -> "list[builtins.int] | None":
        value = self.attributes.get(name)
        return None if value is None else [int(item) for item in value]

    def tensor(self, name: str) -> TensorProto | None:
        return self.attributes.get(name)

    def unsupported(self, what: str) -> UnsupportedModel:
        """An error that names this node, its operator and its opset."""
        return UnsupportedModel(
            f"{self}: {what} (opset {self.opset}).",
            param=self.label,
            suggestion="Export the model again without this feature.",
        )


def _value(attribute: AttributeProto) -> Any:
    return helper.get_attribute_value(attribute)
