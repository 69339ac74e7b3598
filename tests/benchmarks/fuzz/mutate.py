"""Mutants of a model file: damaged bytes, or a message in which something no longer fits. All from the random generator that is given."""

import struct
from collections.abc import Callable
from random import Random

from google.protobuf.message import DecodeError
from onnx import ModelProto

from tests.benchmarks.fuzz import nodes, values

Mutation = Callable[[ModelProto, Random], None]

# Several times: what more often leads to a graph that still runs.
_MUTATIONS: tuple[Mutation, ...] = (
    *([nodes.insert_node] * 8),
    *([nodes.attribute_of_its_own] * 4),
    *([values.change_attribute] * 4),
    *([values.change_initialiser] * 3),
    *([nodes.change_input] * 2),
    *(nodes.swap_nodes, nodes.drop_node, nodes.double_node, nodes.bypass_node, nodes.other_operator, nodes.cross_names, nodes.more_inputs),
    *(nodes.fewer_inputs, nodes.swap_inputs, nodes.other_outputs, nodes.rename_node, nodes.other_graph_output, nodes.initialiser_as_input),
    *(nodes.other_opset, nodes.note_shape, values.other_type_of_attribute, values.drop_attribute),
)


def mutant(data: bytes, random: Random, other: bytes) -> bytes:
    """`data`, changed in one to four places; `other` is a file from which parts may come."""
    if random.random() < 0.2:
        return _damaged(data, random, other)
    try:
        model, donor = ModelProto.FromString(data), ModelProto.FromString(other)
    except DecodeError:
        return _damaged(data, random, other)
    for _ in range(random.choice((1, 1, 1, 2, 3, 4))):
        if random.random() < 0.05:
            nodes.transplant(model, donor, random)
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
                made[place : place + 8] = struct.pack("<q", random.choice(values.NUMBERS))
            case 5:
                start, length = random.randrange(len(other)), random.randrange(1, 200)
                made[place : place + length] = other[start : start + length]
            case 6:
                del made[place + random.randrange(2000) :]
    return bytes(made)
