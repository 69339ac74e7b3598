"""`OnnxModule`: an ONNX graph as one trainable torch module."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from onnx import ModelProto, ValueInfoProto
from torch import Tensor, nn

from compressor.errors import NoWeights, UnsupportedModel, UnsupportedTask
from compressor.graph.content import check_count
from compressor.graph.gaussian import GaussianValue
from compressor.graph.groups import GroupAxis, group_axes_of
from compressor.graph.node import Node
from compressor.graph.ops.activation import softmax_axis
from compressor.graph.ops.layout import casts_to_integers
from compressor.graph.ops.normalization import has_live_statistics
from compressor.graph.ops.table import Flow
from compressor.graph.program import Program
from compressor.graph.reader import Graph, read_graph
from compressor.graph.roles import Role, check_finite_roles, numbers_of, roles_of, treatments_of, uncovered_of
from compressor.graph.tensors import FLOAT_TYPES, in_compute, to_torch, torch_dtype
from compressor.graph.trial import indivisible_weights, settle

# What the graph ends in, where that says how the output is meant.
Head = Literal["scores", "softmax", "sigmoid"]
_MAX_NUMBERS = 2**20  # of a constant that is read as sizes, axes or bounds
_SAME_NUMBERS = ("Identity", "Cast")
_RESHAPING = ("Flatten", "Reshape", "Squeeze", "Unsqueeze")
_HEADS: dict[str, Head] = {"Softmax": "softmax", "LogSoftmax": "softmax", "Sigmoid": "sigmoid"}


@dataclass(frozen=True)
class ValueSpec:
    """An input or the output of a model. `dtype` is the file's; None in `shape` is a dynamic size; the first axis is the batch."""

    name: str
    dtype: torch.dtype
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class _Binding:
    name: str
    slot: int
    key: str


class OnnxModule(nn.Module):
    """Runs a model that parse_model has let through, with its float constants as parameters.

    Parameters are called p0, p1, ... and buffers c0, c1, ...: no string of the file becomes an attribute. Batch normalisation uses the
    stored statistics, which stay fixed; half precision is computed in float32. `treatments` says how a Gaussian value of each weight is
    drawn where it is read, `group_axes` where its neurons, filters, rows or heads lie, `uncovered` why another tensor of two or more
    dimensions is no weight, `operators` what the output needs.

    Args:
        model: from parse_model.
        output: name of the output to compute; the first float output where it is None. Nodes that it does not need are left out.

    Raises:
        UnsupportedOperator: naming every operator that is missing.
        UnsupportedModel: a feature that is missing, or a fixed batch size other than 1 that is built into the graph.
        UnsupportedTask: no float output, or none called `output`.
        NoWeights: nothing that could be compressed.
        InvalidModel: the graph does not run.
    """

    def __init__(self, model: ModelProto, output: str | None = None) -> None:
        super().__init__()
        graph = read_graph(model)
        chosen = _choose_output(graph, output)
        self.inputs = tuple(_value_spec(info) for info in graph.inputs)
        self.output = _value_spec(chosen)
        self.static_batch = _static_batch(self.inputs)
        nodes = graph.needed_nodes([chosen.name])
        self.head, self._logits_name = _find_logits(nodes, chosen.name)
        self.weight_names: tuple[str, ...] = ()
        self.treatments: dict[str, frozenset[Flow]] = {}
        self.group_axes: dict[str, GroupAxis] = {}
        self._build(graph, nodes, {chosen.name, self._logits_name})
        self.built_in_batch: int | None = None
        settled = settle(self, self.static_batch)
        self.built_in_batch, self.example = settled.built_in_batch, settled.example
        if settled.output_shape is not None:  # exporters often leave sizes of the output open that the run has shown
            batch = self.output.shape[0] if self.output.shape else None
            self.output = replace(self.output, shape=(batch, *settled.output_shape))
        self._leave_out(indivisible_weights(self))

    def _leave_out(self, names: Collection[str]) -> None:
        """These are no weights after all."""
        self.weight_names = tuple(name for name in self.weight_names if name not in names)
        self.treatments = {name: flows for name, flows in self.treatments.items() if name not in names}
        self.group_axes = {name: axis for name, axis in self.group_axes.items() if name not in names}
        self.uncovered |= dict.fromkeys(names, "it is divided by its own size, which is 0 where all of it is pruned")
        if not self.weight_names:
            raise NoWeights(
                "Every weight is divided by its own size, and cannot be pruned so.",
                param="model",
                suggestion="Remove weight normalisation before the export (torch.nn.utils.parametrize.remove_parametrizations).",
            )

    def _build(self, graph: Graph, nodes: Sequence[Node], outputs: set[str]) -> None:
        read = {name for node in nodes for name in node.inputs}.union(outputs)
        loaded = {name: constant.load() for name, constant in graph.constants.items() if name in read}
        if strings := [name for name, found in loaded.items() if found is None]:
            raise UnsupportedModel(f"The constant {strings[0]!r} holds text.", param=strings[0], suggestion="Export a model of numbers.")
        arrays = {name: found for name, found in loaded.items() if found is not None}
        floats = {name: array for name, (array, kind) in arrays.items() if kind in FLOAT_TYPES}
        program = Program(nodes, outputs, floats)
        inputs = [spec.name for spec in self.inputs]
        roles = roles_of(nodes, outputs, floats, inputs)
        check_finite_roles(roles, floats)
        numbers = numbers_of(nodes)
        parameters: list[_Binding] = []
        buffers: list[_Binding] = []
        host: list[tuple[int, Tensor]] = []
        for name, (array, kind) in arrays.items():
            tensor, slot = to_torch(array, kind, name), program.slot(name)
            if name in roles and roles[name] is not Role.FIXED:
                key = f"p{len(parameters)}"
                self.register_parameter(key, nn.Parameter(tensor))
                parameters.append(_Binding(name, slot, key))
            elif name in roles and name not in numbers and tensor.dim() > 0:
                key = f"c{len(buffers)}"
                self.register_buffer(key, tensor)
                buffers.append(_Binding(name, slot, key))
            else:
                if name in numbers:  # each becomes an object of Python
                    check_count("plain numbers in a tensor", tensor.numel(), _MAX_NUMBERS, name)
                host.append((slot, tensor))
        self._program, self._parameter_bindings, self._buffer_bindings, self._host = program, tuple(parameters), tuple(buffers), tuple(host)
        live = {name for node in nodes if has_live_statistics(node) for name in node.inputs[3:5]}
        self._statistics = tuple(binding for binding in buffers if binding.name in live)
        self._trainable = frozenset(binding.name for binding in parameters)
        self.weight_names = tuple(name for name, role in roles.items() if role is Role.WEIGHT)
        self.treatments = treatments_of(nodes, outputs, self.weight_names, inputs)
        integers = {name: array for name, (array, kind) in arrays.items() if kind not in FLOAT_TYPES and array.ndim == 1}
        self.group_axes = group_axes_of(nodes, {name: floats[name].shape for name in self.weight_names}, integers)
        self.uncovered: dict[str, str] = uncovered_of(nodes, outputs, floats, inputs)
        self.operators: dict[str, int] = dict(Counter(node.op_type for node in nodes))
        self._sampled = frozenset(name for name, flows in self.treatments.items() if flows == {Flow.SAMPLED})
        if not self.weight_names:
            raise NoWeights(
                "No float tensor of two or more dimensions reaches a linear operator from which a gradient of the output comes back.",
                param="model",
                suggestion="Export the model with its weights in the file (export_params=True), as initialisers or constants.",
            )
        self._input_slots = tuple(program.slot(spec.name) for spec in self.inputs)
        self._input_dtypes = tuple(in_compute(spec.dtype) for spec in self.inputs)

    def tensors(self) -> dict[str, nn.Parameter]:
        """Every trainable float tensor of the graph under its ONNX name: an initialiser, or the output of a Constant node."""
        return {binding.name: self.get_parameter(binding.key) for binding in self._parameter_bindings}

    def state(self) -> dict[str, Tensor]:
        """Everything that training changes, under its ONNX name: `tensors()`, and the statistics of live batch normalisation."""
        statistics = {binding.name: self.get_buffer(binding.key) for binding in self._statistics}
        return {**self.tensors(), **statistics}

    def forward(self, *inputs: Tensor, values: Mapping[str, Tensor | GaussianValue] | None = None, logits: bool = False) -> Tensor:
        """The output for a batch of any size.

        Args:
            inputs: one tensor for each of `self.inputs`, batch first, on the module's device; cast where the dtype differs.
            values: tensors by ONNX name that take the place of those in `tensors()`; a GaussianValue draws noise as it flows.
            logits: the input of the final Softmax, LogSoftmax or Sigmoid, where the output is one (`head`).

        Raises: ValueError where the number of inputs or a name in `values` is wrong.
        """
        replaced = {} if values is None else values
        if len(inputs) != len(self.inputs):
            raise ValueError(f"The model has {len(self.inputs)} inputs, {len(inputs)} were given.")
        if unknown := replaced.keys() - self._trainable:
            raise ValueError(f"Not a trainable tensor of the model: {sorted(unknown)}.")
        name = self._logits_name if logits else self.output.name
        if self.built_in_batch is None:
            return self._run(name, inputs, replaced)
        # A weight drawn for each batch would make as many groups of one convolution.
        whole = {key: replace(value, in_halves=False) if isinstance(value, GaussianValue) else value for key, value in replaced.items()}
        run_batch = torch.func.vmap(lambda *batch: self._run(name, batch, whole), randomness="different")
        result: Tensor = run_batch(*(_in_batches(tensor, self.built_in_batch) for tensor in inputs))
        return result.flatten(0, 1)[: len(inputs[0])]

    def _run(self, name: str, inputs: Sequence[Tensor], replaced: Mapping[str, Tensor | GaussianValue]) -> Tensor:
        return self._program.run(name, self._values(inputs, replaced), training=self.training, device=inputs[0].device)

    def _values(self, inputs: Sequence[Tensor], replaced: Mapping[str, Tensor | GaussianValue]) -> Iterator[tuple[int, Any]]:
        for slot, dtype, tensor in zip(self._input_slots, self._input_dtypes, inputs, strict=True):
            yield slot, tensor.to(dtype)
        for binding in self._parameter_bindings:
            value = replaced.get(binding.name)
            if isinstance(value, GaussianValue) and binding.name in self._sampled:
                value = value.sample()  # one draw, for all nodes that read it
            yield binding.slot, getattr(self, binding.key) if value is None else value
        for binding in self._buffer_bindings:
            yield binding.slot, getattr(self, binding.key)
        yield from self._host


def _in_batches(rows: Tensor, size: int) -> Tensor:
    """[N, ...] as [batches, size, ...], the last batch filled up with the last row."""
    missing = -len(rows) % size
    filled = rows if missing == 0 else torch.cat([rows, rows[-1:].expand(missing, *rows.shape[1:])])
    return filled.reshape(-1, size, *rows.shape[1:])


def _choose_output(graph: Graph, name: str | None) -> ValueInfoProto:
    floats = [info for info in graph.outputs if info.type.HasField("tensor_type") and info.type.tensor_type.elem_type in FLOAT_TYPES]
    for info in floats:
        if name is None or info.name == name:
            return info
    known = ", ".join(repr(info.name) for info in floats)
    if name is None or not floats:
        raise UnsupportedTask(
            "The model has no float output.", param="model", suggestion="Export a model that gives class scores or probabilities."
        )
    raise UnsupportedTask(f"The model has no float output {name!r}.", param="output", suggestion=f"The float outputs are: {known}.")


def _value_spec(info: ValueInfoProto) -> ValueSpec:
    if not info.type.HasField("tensor_type"):
        raise UnsupportedModel(f"{info.name!r} is not a tensor.", param=info.name, suggestion="Export a model whose inputs are tensors.")
    tensor = info.type.tensor_type
    # Some exporters write 0 or -1 for a dynamic size.
    shape = tuple(dim.dim_value if dim.dim_value > 0 else None for dim in tensor.shape.dim)
    return ValueSpec(info.name, torch_dtype(tensor.elem_type, info.name), shape)


def _static_batch(inputs: Sequence[ValueSpec]) -> int | None:
    if not inputs:
        raise UnsupportedModel(
            "The model has no input.", param="model", suggestion="Export a model that computes its output from an input."
        )
    for spec in inputs:
        if not spec.shape:
            raise UnsupportedModel(
                f"The input {spec.name!r} has no batch axis.",
                param=spec.name,
                suggestion="Export the model with inputs whose first axis is the batch.",
            )
    first = {spec.shape[0] for spec in inputs}
    if len(first) > 1:
        raise UnsupportedModel(
            "The inputs have different batch sizes.",
            param="model",
            suggestion="Export the model with one batch axis, first in every input.",
        )
    return first.pop()


def _find_logits(nodes: Sequence[Node], output: str) -> tuple[Head, str]:
    """The head, and the input of the node that gives `output`, be it as another float type; `output` itself where there is none.

    A sigmoid may be reshaped afterwards, since it takes every element for itself; a softmax must be over the classes, which come second.
    """
    producers = {name: node for node in nodes for name in node.outputs}
    last, reshaped = producers.get(output), False
    while last is not None and last.op_type in (*_SAME_NUMBERS, *_RESHAPING) and not casts_to_integers(last):
        reshaped |= last.op_type in _RESHAPING
        last = producers.get(last.inputs[0])
    if last is None or last.op_type not in _HEADS:
        return "scores", output
    head = _HEADS[last.op_type]
    if head == "softmax" and (reshaped or softmax_axis(last)[0] not in (1, -1)):
        return "scores", output
    return head, last.inputs[0]
