"""`model.onnx`: the client's own graph with every tensor that has enough zeros in a sparse form. The layout, format_version 1:

An ONNX model. A float tensor of the client's graph, initialiser or Constant node, is sparse where that takes fewer bytes:
    opset 13 and later   a Constant node with `sparse_value`. The one sparse form that the checker passes with full_check, that stock ONNX
                         Runtime and OpenVINO load exactly, and that needs no runtime of ours. Its indices are linear, increasing, int64.
    opset 11 and 12      seven nodes (scattered), since OpenVINO reads no sparse_value there: Constant [elements], ConstantOfShape of it;
                         Constant indices, as above; Constant values; ScatterElements of these; Constant shape; Reshape to it, with the
                         tensor's name for its output. A tensor without nonzeros: Constant shape, ConstantOfShape.
Integers lie in `int64_data`, which protobuf writes as varints: a third of `raw_data`. All sparse tensors together have at most 2^28
elements, and 2^24 and 4,096 for each of their nonzeros; beyond, and beyond what an upload may have of nodes and numbers, tensors are dense.

Its metadata_props have an entry "bayespress_sparse", whose value is fields with a space between them:
    1         format_version
    prefix    only where there are nodes of the second form: one or more "_", with which all their names start, but for the outputs of
              the last ones, and no name of the client's graph
    digest    the first 32 hexadecimal digits of the SHA-256 of the model without this entry, serialised with its fields in the order of
              their numbers, as protobuf does
Runtimes do not look at it.
"""

import math
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, NodeProto, SparseTensorProto, TensorProto, helper, numpy_helper

from compressor.artifacts import scattered
from compressor.artifacts.digest import check_seal, seal
from compressor.atomic import replacing
from compressor.errors import InvalidArtifact, ModelError
from compressor.graph.content import max_sparse_elements
from compressor.graph.names import free_prefix
from compressor.graph.reader import ONNX_DOMAINS, opset_of
from compressor.graph.validate import MAX_NODES, parse_model
from compressor.graph.wire import MAX_TENSOR_NUMBERS
from compressor.graph.write import float_tensors, write_arrays

METADATA_KEY = "bayespress_sparse"

Array = npt.NDArray[Any]

# bfloat16 is left out: stock ONNX Runtime has next to no operators for it on the CPU.
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
_FIELDS = re.compile(r"1(?: (_+))?", re.ASCII)
_MAX_NONZEROS = MAX_TENSOR_NUMBERS - 2**20  # what else is in a graph stays far below a million


def write(path: Path, model: ModelProto, arrays: Mapping[str, Array]) -> None:
    """Writes `model` with `arrays` in place of its tensors, each sparse or dense, whichever takes fewer bytes.

    Args:
        path: the file; it is replaced as a whole or not at all.
        model: the uploaded model; not changed.
        arrays: new values by ONNX name, of the tensors' own shapes; tensors that are not named keep their values.
    Raises: onnx.checker.ValidationError where the result is not a valid model, which would be a fault of ours.
    """
    plain = write_arrays(model, arrays)
    sparse = to_sparse(plain)
    seal(sparse, METADATA_KEY, "1", *filter(None, [scattered.prefix_of(plain, sparse)]))
    onnx.checker.check_model(sparse, full_check=True)
    with replacing(path) as partial:
        partial.write_bytes(sparse.SerializeToString())


def to_sparse(model: ModelProto, names: Collection[str] | None = None) -> ModelProto:
    """A copy of `model` whose float tensors, initialisers and Constant nodes alike, are sparse where that takes fewer bytes.

    Args:   names: of the tensors that this is about; None: all.
    """
    result = ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    new_names = scattered.new_names(free_prefix(model)) if opset_of(model) < scattered.FIRST_OPSET_WITHOUT else None
    places = {name: place for name, place in _places(model) if names is None or name in names}
    found = {name: _smaller_form(name, place, new_names) for name, place in places.items()}
    forms = _within_limits({name: form for name, form in found.items() if form is not None}, model)
    initialisers = [tensor for tensor in graph.initializer if tensor.name in forms]
    for tensor in initialisers:
        graph.initializer.remove(tensor)
    for info in [info for info in graph.input if info.name in forms]:
        graph.input.remove(info)
    nodes = [node for tensor in initialisers for node in forms[tensor.name].nodes]
    for node in graph.node:
        nodes += forms[node.output[0]].nodes if node.op_type == "Constant" and node.output[0] in forms else [node]
    del graph.node[:]
    graph.node.extend(nodes)
    return result


def read(path: Path) -> dict[str, Array]:
    """All float tensors of rank 1 or more of a model file as dense arrays by name, whether initialiser or Constant, dense or sparse.

    Raises: InvalidArtifact where the file is damaged or not of this format.
    """
    try:
        model = parse_model(path.read_bytes())
        fields = _FIELDS.fullmatch(check_seal(model, METADATA_KEY))
        if fields is None:
            raise ValueError(f"its {METADATA_KEY} is not of format_version 1")
        if fields[1]:
            scattered.materialise(model, fields[1])
        return float_tensors(model)
    except (ModelError, ValueError, KeyError, IndexError, OSError) as error:
        raise InvalidArtifact(
            f"{path.name}: not a readable model.onnx ({error}).", param=path.name, suggestion="Download the artifact again."
        ) from error


class _Form(NamedTuple):
    """A sparse tensor as it stands in the graph."""

    nodes: list[NodeProto]
    elements: int
    nonzeros: int


def _places(model: ModelProto) -> Iterator[tuple[str, TensorProto | NodeProto]]:
    for tensor in model.graph.initializer:
        yield tensor.name, tensor
    for node in model.graph.node:
        if node.op_type == "Constant" and node.domain in ONNX_DOMAINS and node.attribute[0].name == "value":
            yield node.output[0], node


def _smaller_form(output: str, place: TensorProto | NodeProto, new_names: Iterator[str] | None) -> _Form | None:
    """The tensor in its sparse form, or None where dense takes fewer bytes or ONNX has no sparse form for it.

    Args:
        place: what holds it, from which the last node takes documentation and metadata and, where it is a node, its name.
        new_names: for the form of opset 11 and 12; None: that of later ones.
    """
    tensor = place if isinstance(place, TensorProto) else place.attribute[0].t
    # The checker refuses sparse tensors of rank 0 and with empty dimensions.
    if tensor.data_type not in _FLOATS or not tensor.dims or 0 in tensor.dims:
        return None
    array = numpy_helper.to_array(tensor)
    if new_names is None:
        nodes = [helper.make_node("Constant", [], [output], sparse_value=_encode(array, output))]
    elif array.nbytes < scattered.MAX_BYTES:
        nodes = scattered.encode(array, output, new_names)
    else:
        return None
    if sum(node.ByteSize() for node in nodes) >= tensor.ByteSize():
        return None
    if isinstance(place, NodeProto):
        nodes[-1].name = place.name
    nodes[-1].doc_string = place.doc_string
    nodes[-1].metadata_props.extend(place.metadata_props)
    return _Form(nodes, array.size, int(np.count_nonzero(array)))


def _within_limits(forms: Mapping[str, _Form], model: ModelProto) -> dict[str, _Form]:
    """As many as a reader takes, the densest first, beside the sparse tensors and the nodes that the model has already."""
    there = [attribute.sparse_tensor for node in model.graph.node for attribute in node.attribute if attribute.HasField("sparse_tensor")]
    elements, nonzeros = sum(math.prod(sparse.dims) for sparse in there), sum(math.prod(sparse.values.dims) for sparse in there)
    nodes, taken = len(model.graph.node), {}
    for name, form in sorted(forms.items(), key=lambda item: -item[1].nonzeros / item[1].elements):
        fits = elements + form.elements <= max_sparse_elements(nonzeros + form.nonzeros)
        if fits and nonzeros + form.nonzeros <= _MAX_NONZEROS and nodes + len(form.nodes) <= MAX_NODES:
            elements, nonzeros, nodes = elements + form.elements, nonzeros + form.nonzeros, nodes + len(form.nodes)
            taken[name] = form
    return taken


def _encode(array: Array, name: str) -> SparseTensorProto:
    flat = array.reshape(-1)
    positions = np.flatnonzero(flat)
    values = numpy_helper.from_array(flat[positions], name)
    indices = TensorProto(data_type=TensorProto.INT64, dims=[len(positions)])
    indices.int64_data.extend(positions.tolist())
    return helper.make_sparse_tensor(values, indices, list(array.shape))
