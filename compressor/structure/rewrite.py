"""A graph made smaller: tensors cut, and sizes that nodes hold set anew."""

from collections.abc import Mapping
from itertools import count

import numpy as np
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from compressor.graph.reader import ONNX_DOMAINS
from compressor.graph.tensors import constant_array, numpy_dtype
from compressor.graph.write import drop_leftovers
from compressor.structure.grouped import num_groups
from compressor.structure.units import Array, Depthwise, Grouped, Linear, Mask, Sections, Target, Trace, View


def rewrite(model: ModelProto, trace: Trace, stays: Mask, arrays: Mapping[str, Array]) -> None:
    """Makes `model` one of the units that stay, and takes out what its outputs do not need.

    Args:
        model: changed in place.
        trace: of its units.
        stays: by unit.
        arrays: the float tensors that differ, already cut; cast to the type that the file has for them.
    """
    read = _names_read(model)
    _write(model, arrays)
    made_by = {name: node for node in model.graph.node for name in node.output}
    fresh = _FreshNames(model)
    inserted: dict[str, list[NodeProto]] = {}  # before the node with this output
    for step in trace.steps:
        output = step.node.outputs[0]
        node = made_by[output]
        match step:
            case Depthwise():
                _set(node, "group", int(stays[trace.layouts[output].units].sum()))
            case Grouped():
                _set(node, "group", num_groups(step, stays))
            case View(target=Target() as target) if not _all_stay(target, trace.layouts[output].units, stays):
                sizes = _resized(target, int(stays[trace.layouts[output].units].sum()))
                name = fresh.like(f"{output}_shape")
                inserted[output] = [_constant(name, sizes)]
                node.input[target.slot] = name
                if 0 in sizes:
                    _set(node, "allowzero", None)
            case Sections() if not stays[trace.layouts[step.node.inputs[0]].units].all():
                inserted[output] = _cut_sections(node, step, trace, stays, fresh)
            case Linear(units=features) if output in trace.features and features is not None and not stays[features].all():
                indices, gathered = fresh.like(f"{output}_features"), fresh.like(f"{output}_input")
                inserted[output] = [
                    _constant(indices, np.flatnonzero(stays[features]).tolist()),
                    helper.make_node("Gather", [node.input[0], indices], [gathered], axis=trace.layouts[output].axis),
                ]
                node.input[0] = gathered
            case _:
                pass
    _insert(model, inserted)
    drop_leftovers(model)
    _drop_constants(model, read - _names_read(model))


def _all_stay(target: Target, units: Array, stays: Mask) -> bool:
    return bool(all(stays[some].all() for some in (units, *target.counted)))


def _resized(target: Target, kept: int) -> list[int]:
    if target.repeats:
        return list(target.sizes)
    return [*target.sizes[: target.axis], kept, *target.sizes[target.axis + 1 :]]


def _cut_sections(node: NodeProto, step: Sections, trace: Trace, stays: Mask, fresh: "_FreshNames") -> list[NodeProto]:
    """Gives Split its lengths, and Slice its bounds. Returns: the constants to stand before it."""
    layout = trace.layouts[step.node.inputs[0]]
    counts = [int(stays[layout.units[:position]].sum()) for part in step.bounds.values() for position in part]
    starts, stops = counts[::2], counts[1::2]
    if node.op_type == "Slice":
        numbers = {1: starts, 2: stops, 3: [layout.axis], 4: [1]}
    else:
        numbers = {1: [stop - start for start, stop in zip(starts, stops, strict=True)]}
        _set(node, "num_outputs", None)
        if any(attribute.name == "split" for attribute in node.attribute):
            _set(node, "split", numbers.pop(1))
    names = {slot: fresh.like(f"{step.node.outputs[0]}_part") for slot in numbers}
    del node.input[1:]
    node.input.extend(names.values())
    return [_constant(name, numbers[slot]) for slot, name in names.items()]


def _set(node: NodeProto, name: str, number: int | list[int] | None) -> None:
    """Gives an attribute another value; None takes it away."""
    others = [attribute for attribute in node.attribute if attribute.name != name]
    del node.attribute[:]
    node.attribute.extend([*others, *([] if number is None else [helper.make_attribute(name, number)])])


class _FreshNames:
    """Names that nothing in a model has."""

    def __init__(self, model: ModelProto) -> None:
        self._taken = {name for node in model.graph.node for name in (*node.input, *node.output)}
        self._taken.update(entry.name for entry in (*model.graph.input, *model.graph.output, *model.graph.initializer))

    def like(self, name: str) -> str:
        free = next(tried for tried in (f"{name}{suffix or ''}" for suffix in count()) if tried not in self._taken)
        self._taken.add(free)
        return free


def _write(model: ModelProto, arrays: Mapping[str, Array]) -> None:
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
    for info in model.graph.input:
        if info.name in arrays:
            elem_type = info.type.tensor_type.elem_type
            info.CopyFrom(helper.make_tensor_value_info(info.name, elem_type, arrays[info.name].shape))


def _tensor(array: Array, elem_type: int, name: str = "") -> TensorProto:
    return numpy_helper.from_array(np.ascontiguousarray(array.astype(numpy_dtype(elem_type))), name)


def _constant(name: str, numbers: list[int]) -> NodeProto:
    # An initialiser would have to stand among the inputs of an old file, too.
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.array(numbers, np.int64)))


def _is_constant(node: NodeProto) -> bool:
    return node.op_type == "Constant" and node.domain in ONNX_DOMAINS


def _insert(model: ModelProto, inserted: Mapping[str, list[NodeProto]]) -> None:
    if inserted:
        nodes = [NodeProto.FromString(node.SerializeToString()) for node in model.graph.node]
        del model.graph.node[:]
        for node in nodes:
            model.graph.node.extend([*inserted.get(node.output[0], ()), node])


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
