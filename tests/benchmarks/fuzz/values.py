"""Numbers, attributes and tensors that no longer fit."""

from collections.abc import MutableSequence
from random import Random

import numpy as np
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, defs, helper, numpy_helper

NUMBERS = (-1, 0, 1, 2, 3, 4, 7, -2, -3, 255, 1000, 2**16, 2**31 - 1, 2**31, -(2**31), 2**32, 2**40, 2**62, 2**63 - 1, -(2**63))
SMALL = (-2, -1, 0, 1, 2, 3, 4, 5, 8, 9)
FLOATS = (0.0, -1.0, 1e-30, 1e30, -1e30, 0.5, 2.0, float("nan"), float("inf"), float("-inf"))
TYPES = (*range(1, 17), 17, 22, 999)
_TEXTS = (
    *(b"", b"linear", b"SAME_UPPER", b"VALID", b"reflect", b"edge", b"cubic", b"align_corners", b"reverse", b"bidirectional"),
    *(b"\xff\xfe", b"i,j->ij", b"ij->i", b"x" * 50),
)

_ACTIVATIONS = (b"Tanh", b"Relu", b"Sigmoid", b"Elu", b"Affine", b"nothing")

_Kind = defs.OpSchema.AttrType


def number(random: Random) -> int:
    return random.choice(SMALL if random.random() < 0.6 else NUMBERS)


def any_node(model: ModelProto, random: Random) -> NodeProto:
    """One of the graph's nodes, which has one then."""
    if not model.graph.node:
        model.graph.node.add(op_type="Identity")
    return random.choice(model.graph.node)


def new_attribute(operator: str, opset: int, random: Random) -> AttributeProto | None:
    """One that the operator has, with a value of the right type, more or less sensible."""
    known = _attributes_of(operator, opset)
    if not known:
        return None
    name = random.choice(sorted(known))
    match known[name]:
        case _Kind.INT:
            return helper.make_attribute(name, number(random))
        case _Kind.INTS:
            return helper.make_attribute(name, [number(random) for _ in range(random.randrange(1, 5))])
        case _Kind.FLOAT:
            return helper.make_attribute(name, random.choice(FLOATS[:7]))
        case _Kind.FLOATS:
            return helper.make_attribute(name, [random.choice(FLOATS[:7]) for _ in range(random.randrange(1, 4))])
        case _Kind.STRING:
            return helper.make_attribute(name, random.choice(_TEXTS))
        case _Kind.STRINGS:
            return helper.make_attribute(
                name, [random.choice((b"Tanh", b"Relu", b"Sigmoid", b"Elu")) for _ in range(random.randrange(1, 4))]
            )
        case _Kind.TENSOR:
            return helper.make_attribute(name, small_tensor(random))
    return None


def _attributes_of(operator: str, opset: int) -> dict[str, defs.OpSchema.AttrType]:
    try:
        return {name: attribute.type for name, attribute in defs.get_schema(operator, opset).attributes.items()}
    except defs.SchemaError:
        return {}


def small_tensor(random: Random, name: str = "") -> TensorProto:
    """Of a few elements; integers are often such as sizes and axes are."""
    shape = [random.choice((0, 1, 1, 2, 2, 3, 4, 5)) for _ in range(random.choice((0, 1, 1, 1, 2, 3, 4)))]
    if random.random() < 0.6:
        array = np.array([number(random) if random.random() < 0.05 else random.choice(SMALL) for _ in range(int(np.prod(shape)))], np.int64)
        array = array.reshape(shape)
    else:
        array = np.random.default_rng(random.randrange(2**32)).standard_normal(shape).astype(np.float32)
    return numpy_helper.from_array(array, name)


def change_attribute(model: ModelProto, random: Random) -> None:
    candidates = [attribute for node in model.graph.node if node.op_type != "Constant" for attribute in node.attribute]
    if not candidates:
        return
    attribute = random.choice(candidates)
    match attribute.type:
        case AttributeProto.INT:
            attribute.i = number(random)
        case AttributeProto.INTS:
            change_list(attribute.ints, random)
        case AttributeProto.FLOAT:
            attribute.f = random.choice(FLOATS)
        case AttributeProto.FLOATS:
            attribute.floats[:] = [random.choice(FLOATS) for _ in attribute.floats]
        case AttributeProto.STRING:
            attribute.s = random.choice((*_TEXTS, attribute.s[::-1]))
        case AttributeProto.TENSOR:
            change_tensor(attribute.t, random)


def change_list(numbers: MutableSequence[int], random: Random) -> None:
    match random.randrange(4):
        case 0 if numbers:
            numbers[random.randrange(len(numbers))] = number(random)
        case 1:
            numbers.append(number(random))
        case 2 if numbers:
            del numbers[random.randrange(len(numbers))]
        case _:
            numbers[:] = [number(random) for _ in numbers]


def other_type_of_attribute(model: ModelProto, random: Random) -> None:
    node = any_node(model, random)
    if not node.attribute:
        return
    index = random.randrange(len(node.attribute))
    values = (number(random), random.choice(FLOATS), "text", [number(random)], [1.0], numpy_helper.from_array(np.zeros(2, np.float32)))
    node.attribute[index].CopyFrom(helper.make_attribute(node.attribute[index].name, random.choice(values)))


def drop_attribute(model: ModelProto, random: Random) -> None:
    node = any_node(model, random)
    if node.attribute:
        del node.attribute[random.randrange(len(node.attribute))]


def change_initialiser(model: ModelProto, random: Random) -> None:
    tensors = [
        *model.graph.initializer,
        *(a.t for n in model.graph.node if n.op_type == "Constant" for a in n.attribute if a.HasField("t")),
    ]
    if tensors:
        change_tensor(random.choice(tensors), random)


def change_tensor(tensor: TensorProto, random: Random) -> None:
    match random.randrange(8):
        case 0:
            tensor.data_type = random.choice(TYPES)
        case 1:
            tensor.raw_data = tensor.raw_data[: random.randrange(len(tensor.raw_data) + 1)]
        case 2:
            change_list(tensor.dims, random)
        case 3:
            dims = list(tensor.dims)
            random.shuffle(dims)
            tensor.dims[:] = dims
        case 4:
            tensor.dims[:] = random.choice(([1, *tensor.dims], [*tensor.dims, 1], [int(np.prod(tensor.dims, dtype=np.int64) % 2**31)]))
        case _:
            change_values(tensor, random)


def change_values(tensor: TensorProto, random: Random) -> None:
    """Numbers that are extreme, or a tensor of another type or shape that is in order in itself."""
    try:
        array = numpy_helper.to_array(tensor).copy()
    except Exception:  # an earlier mutation has spoilt it
        return
    if array.size == 0 or array.dtype.kind not in "fiub":
        return
    match random.randrange(4):
        case 0:
            array.flat[random.randrange(array.size)] = random.choice(FLOATS) if array.dtype.kind == "f" else number(random) % 2**31
        case 1 if array.dtype.kind == "i":
            array.flat[random.randrange(array.size)] = number(random) if array.dtype == np.int64 else 1
        case 2:
            array = array.astype(random.choice((np.float32, np.float64, np.float16, np.int64, np.int32, np.uint8, np.bool_)))
        case _:
            array = np.resize(array, [random.randrange(5) for _ in range(random.randrange(4))])
    with np.errstate(all="ignore"):
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
