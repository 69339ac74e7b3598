"""Rows of embedding tables that are 0: one of them stands for all. The ids that come in stay as they are; a Gather says where each lies."""

from collections import defaultdict

import numpy as np
from onnx import ModelProto, NodeProto, helper

from compressor.graph.names import FreshNames
from compressor.graph.reader import ONNX_DOMAINS
from compressor.graph.write import float_tensors
from compressor.structure.rewrite import constant_node, insert_before, write_tensors
from compressor.structure.units import Array

_PLACE = np.dtype(np.int32)
_OVERHEAD_BYTES = 128  # of two nodes more in the file


def merge_zero_rows(model: ModelProto) -> ModelProto:
    """The graph with one row of zeros in each table that has many, wherever that takes fewer bytes with dense tensors.

    Only of tables that nothing but Gathers of their rows read; ids that count from the end find the same rows, too.

    Args:    model: from parse_model; it stays as it is.
    Returns: a graph with the same outputs, bit for bit: no number is computed anew.
    """
    merged = ModelProto()
    merged.CopyFrom(model)
    readers: defaultdict[str, list[NodeProto]] = defaultdict(list)
    for node in merged.graph.node:
        for name in node.input:
            readers[name].append(node)
    outputs = {info.name for info in merged.graph.output}
    fresh = FreshNames(merged)
    smaller: dict[str, Array] = {}
    inserted: dict[str, list[NodeProto]] = {}
    for name, table in float_tensors(merged).items():
        if name in outputs or not readers[name] or not all(_looks_up(node, name, table.ndim) for node in readers[name]):
            continue
        zero = ~(table.reshape(len(table), -1) != 0).any(1)
        saved = (np.count_nonzero(zero) - 1) * (table.nbytes // len(table)) if zero.any() else 0
        if saved > len(table) * _PLACE.itemsize + _OVERHEAD_BYTES:
            shared = int(np.argmax(zero))
            kept = ~zero
            kept[shared] = True
            smaller[name] = table[kept]
            places = fresh.like(f"{name}_places")
            for node in readers[name]:
                found = fresh.like(f"{name}_place")
                inserted[node.output[0]] = [helper.make_node("Gather", [places, node.input[1]], [found])]
                node.input[1] = found
            numbers = np.where(zero, shared, np.cumsum(kept) - 1).astype(_PLACE)
            inserted[readers[name][0].output[0]].insert(0, constant_node(places, numbers))
    write_tensors(merged, smaller)
    insert_before(merged, inserted)
    return merged


def _looks_up(node: NodeProto, table: str, rank: int) -> bool:
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
    is_gather = node.op_type == "Gather" and node.domain in ONNX_DOMAINS
    return is_gather and axis in (0, -rank) and node.input[0] == table
