"""Mutants of a model file: damaged bytes, or a message in which something no longer fits. All from the random generator that is given."""

import struct
from collections.abc import Callable
from random import Random

import numpy as np
from google.protobuf.message import DecodeError
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from compressor.graph.ops import OPERATORS

_NUMBERS = (-1, 0, 1, 2, 3, 4, 7, -2, -3, 255, 1000, 2**16, 2**31 - 1, 2**31, -(2**31), 2**32, 2**40, 2**62, 2**63 - 1, -(2**63))
_SMALL = (-2, -1, 0, 1, 2, 3, 4, 5, 8, 9)
_FLOATS = (0.0, -1.0, 1e-30, 1e30, -1e30, 0.5, 2.0, float("nan"), float("inf"), float("-inf"))
_TYPES = (*range(1, 17), 17, 22, 999)
_OPSETS = (10, 11, 12, 13, 14, 16, 17, 18, 19, 20, 21, 22, 23, 24)

Mutation = Callable[[ModelProto, Random], None]


def mutant(data: bytes, random: Random, other: bytes) -> bytes:
    """`data`, changed in one to four places; `other` is a file from which parts may come."""
    if random.random() < 0.3:
        return _damaged(data, random, other)
    try:
        model, donor = ModelProto.FromString(data), ModelProto.FromString(other)
    except DecodeError:
        return _damaged(data, random, other)
    for _ in range(random.choice((1, 1, 1, 2, 3, 4))):
        if random.random() < 0.05:
            _transplant(model, donor, random)
        else:
            random.choice(_MUTATIONS)(model, random)
    return model.SerializeToString()


def _damaged(data: bytes, random: Random, other: bytes) -> bytes:
    made = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 4, 8))):
        place = random.randrange(len(made) or 1)
        match random.randrange(7):
            case 0:
                made[place : place + 1] = bytes([random.randrange(256)])
            case 1:
                made[place : place + 1] = bytes([(made[place] if made else 0) ^ (1 << random.randrange(8))])
            case 2:
                made[place:place] = random.randbytes(random.randrange(9))
            case 3:
                del made[place : place + random.randrange(1, 9)]
            case 4:
                made[place : place + 8] = struct.pack("<q", random.choice(_NUMBERS))
            case 5:
                start, length = random.randrange(len(other)), random.randrange(1, 200)
                made[place : place + length] = other[start : start + length]
            case 6:
                del made[place + random.randrange(2000) :]
    return bytes(made)


def _number(random: Random) -> int:
    return random.choice(_SMALL if random.random() < 0.6 else _NUMBERS)


def _node(model: ModelProto, random: Random) -> NodeProto:
    if not model.graph.node:
        model.graph.node.add(op_type="Identity")
    return random.choice(model.graph.node)


def _names(model: ModelProto) -> list[str]:
    graph = model.graph
    made = [name for node in graph.node for name in node.output]
    return ["", *made, *(tensor.name for tensor in graph.initializer), *(info.name for info in graph.input)]


def _swap_nodes(model: ModelProto, random: Random) -> None:
    first, second = _node(model, random), _node(model, random)
    kept = NodeProto()
    kept.CopyFrom(first)
    first.CopyFrom(second)
    second.CopyFrom(kept)


def _drop_node(model: ModelProto, random: Random) -> None:
    if model.graph.node:
        del model.graph.node[random.randrange(len(model.graph.node))]


def _double_node(model: ModelProto, random: Random) -> None:
    node = _node(model, random)
    copy = model.graph.node.add()
    copy.CopyFrom(node)
    if random.random() < 0.7:
        copy.output[:] = [f"{name}_again" for name in copy.output]


def _bypass_node(model: ModelProto, random: Random) -> None:
    """Whoever read the node's output reads its input."""
    node = _node(model, random)
    if node.input and node.output:
        for reader in model.graph.node:
            reader.input[:] = [node.input[0] if name == node.output[0] else name for name in reader.input]


def _other_operator(model: ModelProto, random: Random) -> None:
    _node(model, random).op_type = random.choice(sorted(OPERATORS))


def _cross_names(model: ModelProto, random: Random) -> None:
    node, names = _node(model, random), _names(model)
    if node.input:
        node.input[random.randrange(len(node.input))] = random.choice(names)


def _more_inputs(model: ModelProto, random: Random) -> None:
    _node(model, random).input.append(random.choice(_names(model)))


def _fewer_inputs(model: ModelProto, random: Random) -> None:
    node = _node(model, random)
    if node.input:
        del node.input[random.randrange(len(node.input))]


def _swap_inputs(model: ModelProto, random: Random) -> None:
    node = _node(model, random)
    names = list(node.input)
    random.shuffle(names)
    node.input[:] = names


def _other_outputs(model: ModelProto, random: Random) -> None:
    node = _node(model, random)
    if random.random() < 0.5:
        node.output.append(random.choice(("", "more", *node.output)))
    elif node.output:
        node.output[random.randrange(len(node.output))] = random.choice(_names(model))


def _rename_node(model: ModelProto, random: Random) -> None:
    _node(model, random).name = random.choice(("", "{}", "%s", "\0", "ü" * 500, "a\nb", *_names(model)))


def _change_attribute(model: ModelProto, random: Random) -> None:
    candidates = [attribute for node in model.graph.node if node.op_type != "Constant" for attribute in node.attribute]
    if not candidates:
        return
    attribute = random.choice(candidates)
    match attribute.type:
        case AttributeProto.INT:
            attribute.i = _number(random)
        case AttributeProto.INTS:
            _change_list(attribute.ints, random)
        case AttributeProto.FLOAT:
            attribute.f = random.choice(_FLOATS)
        case AttributeProto.FLOATS:
            attribute.floats[:] = [random.choice(_FLOATS) for _ in attribute.floats]
        case AttributeProto.STRING:
            attribute.s = random.choice(
                (b"", b"linear", b"SAME_UPPER", b"VALID", b"reflect", b"\xff\xfe", b"i,j->ij", b"x" * 50, attribute.s[::-1])
            )
        case AttributeProto.TENSOR:
            _change_tensor(attribute.t, random)


def _change_list(numbers: "list[int]", random: Random) -> None:
    match random.randrange(4):
        case 0 if numbers:
            numbers[random.randrange(len(numbers))] = _number(random)
        case 1:
            numbers.append(_number(random))
        case 2 if numbers:
            del numbers[random.randrange(len(numbers))]
        case _:
            numbers[:] = [_number(random) for _ in numbers]


def _other_type_of_attribute(model: ModelProto, random: Random) -> None:
    node = _node(model, random)
    if not node.attribute:
        return
    index = random.randrange(len(node.attribute))
    values = (_number(random), random.choice(_FLOATS), "text", [_number(random)], [1.0], numpy_helper.from_array(np.zeros(2, np.float32)))
    node.attribute[index].CopyFrom(helper.make_attribute(node.attribute[index].name, random.choice(values)))


def _new_attribute(model: ModelProto, random: Random) -> None:
    name = random.choice(
        (
            "axis",
            "axes",
            "keepdims",
            "pads",
            "strides",
            "dilations",
            "group",
            "perm",
            "to",
            "auto_pad",
            "mode",
            "epsilon",
            "transA",
            "alpha",
        )
        + ("direction", "hidden_size", "layout", "clip", "ceil_mode", "output_padding", "output_shape", "num_heads", "start", "end", "k")
    )
    value = random.choice((_number(random), [_number(random) for _ in range(random.randrange(1, 5))], random.choice(_FLOATS), "SAME_LOWER"))
    _node(model, random).attribute.append(helper.make_attribute(name, value))


def _drop_attribute(model: ModelProto, random: Random) -> None:
    node = _node(model, random)
    if node.attribute:
        del node.attribute[random.randrange(len(node.attribute))]


def _change_initialiser(model: ModelProto, random: Random) -> None:
    tensors = [
        *model.graph.initializer,
        *(a.t for n in model.graph.node if n.op_type == "Constant" for a in n.attribute if a.HasField("t")),
    ]
    if tensors:
        _change_tensor(random.choice(tensors), random)


def _change_tensor(tensor: TensorProto, random: Random) -> None:
    match random.randrange(8):
        case 0:
            tensor.data_type = random.choice(_TYPES)
        case 1:
            tensor.raw_data = tensor.raw_data[: random.randrange(len(tensor.raw_data) + 1)]
        case 2:
            _change_list(tensor.dims, random)
        case 3:
            dims = list(tensor.dims)
            random.shuffle(dims)
            tensor.dims[:] = dims
        case 4:
            tensor.dims[:] = random.choice(([1, *tensor.dims], [*tensor.dims, 1], [int(np.prod(tensor.dims, dtype=np.int64) % 2**31)]))
        case _:
            _change_values(tensor, random)


def _change_values(tensor: TensorProto, random: Random) -> None:
    """Numbers that are extreme, or a tensor of another type or shape that is in order in itself."""
    try:
        array = numpy_helper.to_array(tensor).copy()
    except Exception:  # an earlier mutation has spoilt it
        return
    if array.size == 0 or array.dtype.kind not in "fiub":
        return
    match random.randrange(4):
        case 0:
            array.flat[random.randrange(array.size)] = random.choice(_FLOATS) if array.dtype.kind == "f" else _number(random) % 2**31
        case 1 if array.dtype.kind == "i":
            array.flat[random.randrange(array.size)] = _number(random) if array.dtype == np.int64 else 1
        case 2:
            array = array.astype(random.choice((np.float32, np.float64, np.float16, np.int64, np.int32, np.uint8, np.bool_)))
        case _:
            array = np.resize(array, [random.randrange(5) for _ in range(random.randrange(4))])
    with np.errstate(all="ignore"):
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _change_input(model: ModelProto, random: Random) -> None:
    infos = random.choice((model.graph.input, model.graph.input, model.graph.output))
    if not infos:
        return
    tensor = random.choice(infos).type.tensor_type
    match random.randrange(4):
        case 0:
            tensor.elem_type = random.choice(_TYPES)
        case 1 if tensor.shape.dim:
            random.choice(tensor.shape.dim).dim_value = _number(random)
        case 2 if tensor.shape.dim:
            random.choice(tensor.shape.dim).dim_param = random.choice(("n", "size", "batch"))
        case _:
            if random.random() < 0.5 and tensor.shape.dim:
                del tensor.shape.dim[random.randrange(len(tensor.shape.dim))]
            else:
                tensor.shape.dim.add(dim_value=_number(random))


def _other_graph_output(model: ModelProto, random: Random) -> None:
    name = random.choice(_names(model))
    info = helper.make_tensor_value_info(name, TensorProto.FLOAT, random.choice((None, [None], [None, None], [2, 3])))
    if random.random() < 0.5 or not model.graph.output:
        model.graph.output.append(info)
    else:
        model.graph.output[0].CopyFrom(info)


def _initialiser_as_input(model: ModelProto, random: Random) -> None:
    if not model.graph.initializer:
        return
    index = random.randrange(len(model.graph.initializer))
    tensor = model.graph.initializer[index]
    model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    if random.random() < 0.5:
        del model.graph.initializer[index]


def _other_opset(model: ModelProto, random: Random) -> None:
    for entry in model.opset_import:
        entry.version = random.choice(_OPSETS)


def _note_shape(model: ModelProto, random: Random) -> None:
    shape = [_number(random) for _ in range(random.randrange(5))]
    model.graph.value_info.append(helper.make_tensor_value_info(random.choice(_names(model)), random.choice((1, 7, 10)), shape))


def _transplant(model: ModelProto, donor: ModelProto, random: Random) -> None:
    """A node of another model, reading values of this one."""
    if not donor.graph.node:
        return
    node = model.graph.node.add()
    node.CopyFrom(random.choice(donor.graph.node))
    names = _names(model)
    node.input[:] = [random.choice(names) for _ in node.input]
    if model.graph.output and node.output and random.random() < 0.7:
        node.output[0] = "transplanted"
        model.graph.output[0].name = "transplanted"


_MUTATIONS: tuple[Mutation, ...] = (
    *(_swap_nodes, _drop_node, _double_node, _bypass_node, _other_operator, _cross_names, _cross_names, _more_inputs, _fewer_inputs),
    *(_swap_inputs, _other_outputs, _rename_node, _change_attribute, _change_attribute, _change_attribute, _other_type_of_attribute),
    *(_new_attribute, _drop_attribute, _change_initialiser, _change_initialiser, _change_initialiser, _change_input, _change_input),
    *(_other_graph_output, _initialiser_as_input, _other_opset, _note_shape),
)
