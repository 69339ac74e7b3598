"""Graphs in which a node, a name or a shape no longer fits."""

from random import Random

from onnx import ModelProto, NodeProto, TensorProto, defs, helper

from compressor.graph.ops import OPERATORS
from tests.benchmarks.fuzz.values import TYPES, any_node, new_attribute, number, small_tensor

_OPSETS = (10, 11, 12, 13, 14, 16, 17, 18, 19, 20, 21, 22, 23, 24)


def names_in(model: ModelProto) -> list[str]:
    """Of all values of the graph, and the empty one."""
    graph = model.graph
    made = [name for node in graph.node for name in node.output]
    return ["", *made, *(tensor.name for tensor in graph.initializer), *(info.name for info in graph.input)]


def insert_node(model: ModelProto, random: Random) -> None:
    """A node of the table between a value and its readers, as sensible as its definition tells."""
    nodes = model.graph.node
    if not nodes:
        return
    opset = next((entry.version for entry in model.opset_import if entry.domain == ""), 17)
    operator = random.choice(sorted(OPERATORS))
    try:
        schema = defs.get_schema(operator, opset)
    except defs.SchemaError:
        return
    place = random.randrange(len(nodes))
    if not nodes[place].output or not nodes[place].output[0]:
        return
    value = nodes[place].output[0]
    wanted = random.randint(schema.min_input, min(schema.max_input, schema.min_input + 3))
    inputs = [value]
    for _ in range(wanted - 1):
        if random.random() < 0.6:
            inputs.append(f"constant{random.randrange(10**9)}")
            model.graph.initializer.append(small_tensor(random, inputs[-1]))
        else:
            inputs.append(random.choice((*names_in(model), value)))
    made = NodeProto(op_type=operator, input=inputs, output=[f"inserted{random.randrange(10**9)}"])
    required = [name for name, attribute in schema.attributes.items() if attribute.required]
    for _ in range(3 * len(required) + random.randrange(3)):
        attribute = new_attribute(operator, opset, random)
        if attribute is not None and attribute.name not in [given.name for given in made.attribute]:
            made.attribute.append(attribute)
    later = [NodeProto.FromString(node.SerializeToString()) for node in nodes[place + 1 :]]
    del nodes[place + 1 :]
    for node in later:
        node.input[:] = [made.output[0] if name == value else name for name in node.input]
    nodes.extend([made, *later])
    for info in model.graph.output:
        if info.name == value:
            info.name = made.output[0]
            info.type.tensor_type.ClearField("shape")


def attribute_of_its_own(model: ModelProto, random: Random) -> None:
    """An attribute that the operator has, with another value."""
    node = any_node(model, random)
    opset = next((entry.version for entry in model.opset_import if entry.domain == ""), 17)
    attribute = new_attribute(node.op_type, opset, random)
    if attribute is not None:
        left = [given for given in node.attribute if given.name != attribute.name]
        del node.attribute[:]
        node.attribute.extend([*left, attribute])


def swap_nodes(model: ModelProto, random: Random) -> None:
    first, second = any_node(model, random), any_node(model, random)
    kept = NodeProto()
    kept.CopyFrom(first)
    first.CopyFrom(second)
    second.CopyFrom(kept)


def drop_node(model: ModelProto, random: Random) -> None:
    if model.graph.node:
        del model.graph.node[random.randrange(len(model.graph.node))]


def double_node(model: ModelProto, random: Random) -> None:
    node = any_node(model, random)
    copy = model.graph.node.add()
    copy.CopyFrom(node)
    if random.random() < 0.7:
        copy.output[:] = [f"{name}_again" for name in copy.output]


def bypass_node(model: ModelProto, random: Random) -> None:
    """Whoever read the node's output reads its input."""
    node = any_node(model, random)
    if node.input and node.output:
        for reader in model.graph.node:
            reader.input[:] = [node.input[0] if name == node.output[0] else name for name in reader.input]


def other_operator(model: ModelProto, random: Random) -> None:
    any_node(model, random).op_type = random.choice(sorted(OPERATORS))


def cross_names(model: ModelProto, random: Random) -> None:
    node, names = any_node(model, random), names_in(model)
    if node.input:
        node.input[random.randrange(len(node.input))] = random.choice(names)


def more_inputs(model: ModelProto, random: Random) -> None:
    any_node(model, random).input.append(random.choice(names_in(model)))


def fewer_inputs(model: ModelProto, random: Random) -> None:
    node = any_node(model, random)
    if node.input:
        del node.input[random.randrange(len(node.input))]


def swap_inputs(model: ModelProto, random: Random) -> None:
    node = any_node(model, random)
    names = list(node.input)
    random.shuffle(names)
    node.input[:] = names


def other_outputs(model: ModelProto, random: Random) -> None:
    node = any_node(model, random)
    if random.random() < 0.5:
        node.output.append(random.choice(("", "more", *node.output)))
    elif node.output:
        node.output[random.randrange(len(node.output))] = random.choice(names_in(model))


def rename_node(model: ModelProto, random: Random) -> None:
    any_node(model, random).name = random.choice(("", "{}", "%s", "\0", "ü" * 500, "a\nb", *names_in(model)))


def change_input(model: ModelProto, random: Random) -> None:
    infos = random.choice((model.graph.input, model.graph.input, model.graph.output))
    if not infos:
        return
    tensor = random.choice(infos).type.tensor_type
    match random.randrange(4):
        case 0:
            tensor.elem_type = random.choice(TYPES)
        case 1 if tensor.shape.dim:
            random.choice(tensor.shape.dim).dim_value = number(random)
        case 2 if tensor.shape.dim:
            random.choice(tensor.shape.dim).dim_param = random.choice(("n", "size", "batch"))
        case _:
            if random.random() < 0.5 and tensor.shape.dim:
                del tensor.shape.dim[random.randrange(len(tensor.shape.dim))]
            else:
                tensor.shape.dim.add(dim_value=number(random))


def other_graph_output(model: ModelProto, random: Random) -> None:
    name = random.choice(names_in(model))
    info = helper.make_tensor_value_info(name, TensorProto.FLOAT, random.choice((None, [None], [None, None], [2, 3])))
    if random.random() < 0.5 or not model.graph.output:
        model.graph.output.append(info)
    else:
        model.graph.output[0].CopyFrom(info)


def initialiser_as_input(model: ModelProto, random: Random) -> None:
    if not model.graph.initializer:
        return
    index = random.randrange(len(model.graph.initializer))
    tensor = model.graph.initializer[index]
    model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    if random.random() < 0.5:
        del model.graph.initializer[index]


def other_opset(model: ModelProto, random: Random) -> None:
    for entry in model.opset_import:
        entry.version = random.choice(_OPSETS)


def note_shape(model: ModelProto, random: Random) -> None:
    shape = [number(random) for _ in range(random.randrange(5))]
    model.graph.value_info.append(helper.make_tensor_value_info(random.choice(names_in(model)), random.choice((1, 7, 10)), shape))


def transplant(model: ModelProto, donor: ModelProto, random: Random) -> None:
    """A node of another model, reading values of this one."""
    if not donor.graph.node:
        return
    node = model.graph.node.add()
    node.CopyFrom(random.choice(donor.graph.node))
    names = names_in(model)
    node.input[:] = [random.choice(names) for _ in node.input]
    if model.graph.output and node.output and random.random() < 0.7:
        node.output[0] = "transplanted"
        model.graph.output[0].name = "transplanted"
