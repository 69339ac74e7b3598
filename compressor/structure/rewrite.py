"""A graph made smaller: tensors cut, and sizes that nodes hold set anew."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from compressor.graph.names import FreshNames
from compressor.graph.reader import ONNX_DOMAINS
from compressor.graph.tensors import constant_array, numpy_dtype
from compressor.graph.write import drop_leftovers
from compressor.structure.grouped import num_groups
from compressor.structure.heads import num_heads
from compressor.structure.recurrent import FIRST_STATE
from compressor.structure.units import (
    Array,
    Attend,
    Depthwise,
    Grouped,
    Linear,
    Mask,
    Move,
    Recurrent,
    Sections,
    Step,
    Target,
    Trace,
    Units,
    View,
)


def rewrite(model: ModelProto, trace: Trace, stays: Mask, arrays: Mapping[str, Array]) -> None:
    """Makes `model` one of the units that stay, and takes out what its outputs do not need.

    Args:
        model: changed in place.
        trace: of its units.
        stays: by unit.
        arrays: the float tensors that differ, already cut; cast to the type that the file has for them.
    """
    read = _names_read(model)
    write_tensors(model, arrays)
    made_by = {name: node for node in model.graph.node for name in node.output}
    changes = _Changes(trace, stays, FreshNames(model))
    inserted: dict[str, list[NodeProto]] = {}  # before the node with this output
    for step in trace.steps:
        output = next(filter(None, step.node.outputs))
        inserted[output] = inserted.get(output, []) + changes.make(step, made_by[output], output)
    insert_before(model, inserted)
    drop_leftovers(model)
    _drop_constants(model, read - _names_read(model))


@dataclass(frozen=True)
class _Changes:
    """What becomes of single nodes; arguments as of rewrite."""

    trace: Trace
    stays: Mask
    fresh: FreshNames

    def make(self, step: Step, node: NodeProto, output: str) -> list[NodeProto]:
        """Changes the node of a step, of which `output` is the first output. Returns: new nodes, to stand before it."""
        match step:
            case Depthwise():
                _set(node, "group", self._count(self.trace.layouts[output].units))
            case Grouped():
                _set(node, "group", num_groups(step, self.stays))
            case View(target=Target() as target) | Move(target=Target() as target):
                return self._resize(node, target, self.trace.layouts[output].units, output)
            case Sections() if self._some_go(self.trace.layouts[node.input[0]].units):
                return self._cut_sections(node, step, output)
            case Attend() if self.trace.layouts[output].rank == 3:
                for slot, name in enumerate(("q_num_heads", "kv_num_heads")):
                    heads = self.trace.layouts[node.input[slot]].units.reshape(num_heads(step.node, slot), -1)
                    _set(node, name, self._count(heads[:, 0]))
            case Recurrent() if self._some_go(step.units):
                _set(node, "hidden_size", self._count(step.units))
                for slot, begin in enumerate(step.begins, FIRST_STATE):
                    if begin is None and slot < len(node.input):
                        node.input[slot] = ""  # 0 is what it begins with in any case
            case Linear(units=features) if features is not None and output in self.trace.features and self._some_go(features):
                return self._gather(node, np.flatnonzero(self.stays[features]), output)
            case _:
                pass
        return []

    def _count(self, units: Units) -> int:
        return int(self.stays[units].sum())

    def _some_go(self, units: Units) -> bool:
        return not self.stays[units].all()

    def _resize(self, node: NodeProto, target: Target, units: Units, output: str) -> list[NodeProto]:
        if not any(self._some_go(counted) for counted in (units, *target.counted)):
            return []
        sizes = list(target.sizes)
        if not target.repeats:
            sizes[target.axis] = self._count(units)
        if 0 in sizes:
            _set(node, "allowzero", None)
        node.input[target.slot] = self.fresh.like(f"{output}_shape")
        return [constant_node(node.input[target.slot], np.array(sizes, np.int64))]

    def _cut_sections(self, node: NodeProto, step: Sections, output: str) -> list[NodeProto]:
        """Gives Split its lengths, and Slice its bounds."""
        layout = self.trace.layouts[node.input[0]]
        bounds = [(self._count(layout.units[:start]), self._count(layout.units[:stop])) for start, stop in step.bounds.values()]
        if node.op_type == "Slice":
            numbers = [[bounds[0][0]], [bounds[0][1]], [layout.axis], [1]]
        else:
            numbers = [[stop - start for start, stop in bounds]]
            _set(node, "num_outputs", None)
            if step.node.opset < 13:
                _set(node, "split", numbers.pop())
        names = [self.fresh.like(f"{output}_part") for _ in numbers]
        node.input[:] = [node.input[0], *names]
        return [constant_node(name, np.array(each, np.int64)) for name, each in zip(names, numbers, strict=True)]

    def _gather(self, node: NodeProto, features: Array, output: str) -> list[NodeProto]:
        """Puts a Gather of these features before a node."""
        constant, gathered = self.fresh.like(f"{output}_features"), self.fresh.like(f"{output}_gathered")
        given, node.input[0] = node.input[0], gathered
        return [
            constant_node(constant, features),
            helper.make_node("Gather", [given, constant], [gathered], axis=self.trace.layouts[output].axis),
        ]


def _set(node: NodeProto, name: str, number: int | list[int] | None) -> None:
    """Gives an attribute another value; None takes it away."""
    index = next((index for index, attribute in enumerate(node.attribute) if attribute.name == name), None)
    if number is None:
        if index is not None:
            del node.attribute[index]
        return
    place = node.attribute.add() if index is None else node.attribute[index]
    place.CopyFrom(helper.make_attribute(name, number))


def write_tensors(model: ModelProto, arrays: Mapping[str, Array]) -> None:
    """Puts arrays, of any shape, in the place of the constants with their names; cast to the type that the file has for them."""
    for tensor in model.graph.initializer:
        if tensor.name in arrays:
            new = _tensor(arrays[tensor.name], tensor.data_type, tensor.name)
            new.doc_string = tensor.doc_string
            new.metadata_props.extend(tensor.metadata_props)
            tensor.CopyFrom(new)
    for node in model.graph.node:
        found = constant_array(node) if _is_constant(node) and node.output[0] in arrays else None
        if found is not None:
            attribute = node.attribute[0]
            attribute.Clear()
            attribute.name, attribute.type = "value", AttributeProto.TENSOR
            attribute.t.CopyFrom(_tensor(arrays[node.output[0]], found[1]))
    for info in (*model.graph.input, *model.graph.value_info):
        if info.name in arrays:
            elem_type = info.type.tensor_type.elem_type
            info.CopyFrom(helper.make_tensor_value_info(info.name, elem_type, arrays[info.name].shape))


def _tensor(array: Array, elem_type: int, name: str = "") -> TensorProto:
    return numpy_helper.from_array(np.ascontiguousarray(array.astype(numpy_dtype(elem_type))), name)


def constant_node(name: str, array: Array) -> NodeProto:
    # An initialiser would have to stand among the inputs of an old file, too.
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array))


def _is_constant(node: NodeProto) -> bool:
    return node.op_type == "Constant" and node.domain in ONNX_DOMAINS


def insert_before(model: ModelProto, inserted: Mapping[str, list[NodeProto]]) -> None:
    """Puts nodes before the one whose first output is the key."""
    if any(inserted.values()):
        nodes = [NodeProto.FromString(node.SerializeToString()) for node in model.graph.node]
        del model.graph.node[:]
        for node in nodes:
            model.graph.node.extend([*inserted.get(next(filter(None, node.output), ""), ()), node])


def _names_read(model: ModelProto) -> set[str]:
    return {name for node in model.graph.node for name in node.input}.union(info.name for info in model.graph.output)


def _drop_constants(model: ModelProto, idle: set[str]) -> None:
    """Those of these names, which nobody reads any longer."""
    graph = model.graph
    dropped = {tensor.name for tensor in graph.initializer}.intersection(idle)
    for entries in (graph.initializer, graph.input):  # old files list their initialisers among the inputs
        for index in reversed(range(len(entries))):
            if entries[index].name in dropped:
                del entries[index]
    for index in reversed(range(len(graph.node))):
        if _is_constant(graph.node[index]) and graph.node[index].output[0] in idle:
            del graph.node[index]
