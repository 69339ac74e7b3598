"""Arrays back into the client's own graph: the same names, operators, opset, types and metadata, with other numbers."""

from collections.abc import Mapping

import numpy as np
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, numpy_helper

from compressor.errors import ArtifactMismatch
from compressor.graph.reader import ONNX_DOMAINS, Constant
from compressor.graph.tensors import FLOAT_TYPES, numpy_dtype

_EXPORTERS_NOTES = ("pkg.torch.", "pkg.onnxscript.", "namespace")
_OUR_NOTES = "bayespress_"  # of a delivered file that was sent again: its digest is not that of the next one
_WITH_TRAINING_MODE = ("BatchNormalization", "Dropout")


def float_tensors(model: ModelProto) -> dict[str, np.ndarray]:
    """All float tensors of rank 1 or more, by name of the initialiser or output of the Constant node.

    Args:     model: from parse_model.
    Returns:  dense arrays in the dtype of the file; what a Constant holds as sparse_value is made dense.
    """
    constants = {tensor.name: Constant(tensor) for tensor in model.graph.initializer}
    constants |= {node.output[0]: Constant(node) for node in model.graph.node if _is_constant(node)}
    loaded = {name: constant.load() for name, constant in constants.items()}
    return {name: found[0] for name, found in loaded.items() if found is not None and found[1] in FLOAT_TYPES and found[0].ndim > 0}


def write_arrays(model: ModelProto, arrays: Mapping[str, np.ndarray]) -> ModelProto:
    """A copy of `model` with `arrays` in place, in inference mode.

    Args:
        model: from parse_model; it stays as it is.
        arrays: dense float arrays by name, of the shapes that float_tensors gives; each is cast to the type that the file has for it.
            A Constant with sparse_value becomes one with a dense value.

    Returns:  the copy; BatchNormalization and Dropout nodes are taken out of training mode.
    Raises:
        KeyError: a name that the model does not have.
        ValueError: a shape that differs.
        ArtifactMismatch: a number that the file's type cannot hold.
    """
    written = ModelProto()
    written.CopyFrom(model)
    places: dict[str, TensorProto | NodeProto] = {tensor.name: tensor for tensor in written.graph.initializer}
    places |= {node.output[0]: node for node in written.graph.node if _is_constant(node)}
    for name, array in arrays.items():
        place = places[name]
        if isinstance(place, TensorProto):
            _replace(place, array)
        else:
            _replace_constant(place, array)
    for node in written.graph.node:
        _to_inference(node)
    return written


def to_inference(model: ModelProto) -> ModelProto:
    """`model` with BatchNormalization and Dropout out of training mode: a copy where one of them is in it, else `model` itself."""
    if all(node.op_type not in _WITH_TRAINING_MODE for node in model.graph.node):
        return model
    return write_arrays(model, {})


def drop_leftovers(model: ModelProto) -> None:
    """Takes out of `model` what ONNX Runtime would go by or compute, but nobody has asked for.

    It runs nodes that lead to no output too, and where value_info or the declared sizes of an output that is read again say so, it
    believes that a tensor has a terabyte, and makes the constants that follow from it as it loads the file.
    """
    graph = model.graph
    graph.ClearField("value_info")
    needed = {info.name for info in graph.output}
    nodes = []
    for node in reversed(graph.node):
        if _is_constant(node) or needed.intersection(node.output):
            needed.update(filter(None, node.input))
            nodes.append(node)
            while node.input and not node.input[-1]:  # ONNX Runtime 1.32 crashes over a bias that is named, and not there
                del node.input[-1]
    read = {name for node in nodes for name in node.input}
    for info in graph.output:
        if info.name in read and info.type.HasField("tensor_type"):
            for size in info.type.tensor_type.shape.dim:
                size.ClearField("dim_value")
    if len(nodes) < len(graph.node):
        left = [NodeProto.FromString(node.SerializeToString()) for node in reversed(nodes)]
        del graph.node[:]
        graph.node.extend(left)


def drop_notes(model: ModelProto) -> None:
    """Takes out of `model` what its exporter noted for the developer: stack traces, names of classes, shapes in between.

    PyTorch's notes take several kilobytes, paths on the exporting machine among them. Names stay, and so does what is said of tensors and
    of the model as a whole, where people keep the names of their classes.
    """
    own = [note for note in model.metadata_props if not note.key.startswith(_OUR_NOTES)]
    model.ClearField("metadata_props")
    model.metadata_props.extend(own)
    graph = model.graph
    graph.ClearField("value_info")
    values = (*graph.input, *graph.output, *graph.initializer)
    for noted in (graph, *graph.node, *values):
        kept = [note for note in noted.metadata_props if not note.key.startswith(_EXPORTERS_NOTES)]
        noted.ClearField("metadata_props")
        noted.metadata_props.extend(kept)
    for node in graph.node:
        node.ClearField("doc_string")
        for attribute in node.attribute:
            attribute.ClearField("doc_string")
    for value in values:
        if not value.doc_string:  # PyTorch writes empty ones
            value.ClearField("doc_string")


def _is_constant(node: NodeProto) -> bool:
    return node.op_type == "Constant" and node.domain in ONNX_DOMAINS


def _replace(tensor: TensorProto, array: np.ndarray) -> None:
    if tuple(tensor.dims) != array.shape:
        raise ValueError(f"{tensor.name!r} has shape {tuple(tensor.dims)}, not {array.shape}.")
    new = numpy_helper.from_array(_cast(array, tensor.data_type, tensor.name), tensor.name)
    new.doc_string = tensor.doc_string
    new.metadata_props.extend(tensor.metadata_props)
    tensor.CopyFrom(new)


def _replace_constant(node: NodeProto, array: np.ndarray) -> None:
    found = Constant(node).load()
    if found is None or found[0].shape != array.shape:
        raise ValueError(f"The constant {node.output[0]!r} does not have shape {array.shape}.")
    attribute = node.attribute[0]
    if attribute.name == "value":
        _replace(attribute.t, array)
        return
    tensor = numpy_helper.from_array(_cast(array, found[1], node.output[0]))
    attribute.Clear()
    attribute.name, attribute.type = "value", AttributeProto.TENSOR
    attribute.t.CopyFrom(tensor)


def _cast(array: np.ndarray, elem_type: int, name: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        cast = np.ascontiguousarray(array).astype(numpy_dtype(elem_type)).reshape(array.shape)
    if not np.isfinite(cast.astype(np.float64)).all():
        raise ArtifactMismatch(
            f"A value of {name!r} is not finite in the type of the file.", param=name, suggestion="Upload the model in float32 instead."
        )
    return cast


def _to_inference(node: NodeProto) -> None:
    if node.domain not in ONNX_DOMAINS:
        return
    if node.op_type == "BatchNormalization":
        del node.output[1:]  # only training gives statistics
        kept = [attribute for attribute in node.attribute if attribute.name != "training_mode"]
        del node.attribute[:]
        node.attribute.extend(kept)
    elif node.op_type == "Dropout":
        del node.input[2:]  # data, ratio, training_mode
