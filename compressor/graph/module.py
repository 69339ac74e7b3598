"""`OnnxModule`: an ONNX graph as one trainable torch module."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from onnx import ModelProto, ValueInfoProto
from torch import Tensor, nn

from compressor.errors import ClientError, GraphTooLarge, InvalidModel, NoWeights, UnsupportedModel, UnsupportedTask
from compressor.graph.gaussian import GaussianValue
from compressor.graph.node import Node
from compressor.graph.ops.layout import casts_to_integers
from compressor.graph.ops.table import MAX_MADE_ELEMENTS, Flow
from compressor.graph.program import Program
from compressor.graph.reader import Graph, read_graph
from compressor.graph.roles import Role, numbers_of, roles_of, treatments_of
from compressor.graph.tensors import FLOAT_TYPES, in_compute, to_torch, torch_dtype

# Rows of the trial run that every module makes once, and how far a batch may differ from its rows taken one by one.
_TRIAL_ROWS = 2
_TRIAL_TOLERANCE = 1e-3


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
    drawn where it is read.

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
        logits = _logits(nodes, chosen.name)
        self._logits_name = logits
        self._build(graph, nodes, {chosen.name, logits})
        self._per_row = False
        self._try_out()

    def _build(self, graph: Graph, nodes: Sequence[Node], outputs: set[str]) -> None:
        read = {name for node in nodes for name in node.inputs}.union(outputs)
        loaded = {name: constant.load() for name, constant in graph.constants.items() if name in read}
        arrays = {name: found for name, found in loaded.items() if found is not None}
        floats = {name: array for name, (array, kind) in arrays.items() if kind in FLOAT_TYPES}
        program = Program(nodes, outputs, floats)
        inputs = [spec.name for spec in self.inputs]
        roles = roles_of(nodes, outputs, floats, inputs)
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
                host.append((slot, tensor))
        self._program, self._parameter_bindings, self._buffer_bindings, self._host = program, tuple(parameters), tuple(buffers), tuple(host)
        self._trainable = frozenset(binding.name for binding in parameters)
        self.weight_names: tuple[str, ...] = tuple(name for name, role in roles.items() if role is Role.WEIGHT)
        self.treatments: dict[str, frozenset[Flow]] = treatments_of(nodes, outputs, self.weight_names, inputs)
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

    def forward(self, *inputs: Tensor, values: Mapping[str, Tensor | GaussianValue] | None = None, logits: bool = False) -> Tensor:
        """The output for a batch of any size.

        Args:
            inputs: one tensor for each of `self.inputs`, batch first, on the module's device; cast where the dtype differs.
            values: tensors by ONNX name that take the place of those in `tensors()`; a GaussianValue draws noise as it flows.
            logits: the input of the final Softmax or LogSoftmax, where the output is one.

        Raises: ValueError where the number of inputs or a name in `values` is wrong.
        """
        replaced = {} if values is None else values
        if len(inputs) != len(self.inputs):
            raise ValueError(f"The model has {len(self.inputs)} inputs, {len(inputs)} were given.")
        if unknown := replaced.keys() - self._trainable:
            raise ValueError(f"Not a trainable tensor of the model: {sorted(unknown)}.")
        name = self._logits_name if logits else self.output.name
        if not self._per_row:
            return self._run(name, inputs, replaced)
        rows = [tensor.unsqueeze(1) for tensor in inputs]
        run_row = torch.func.vmap(lambda *row: self._run(name, row, replaced), randomness="different")
        result: Tensor = run_row(*rows)
        return result.squeeze(1)

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

    @torch.no_grad()
    def _try_out(self) -> None:
        """Runs the graph once on random rows: what fails, fails here; finds out whether a fixed batch size is only declared."""
        example = self._example(self.static_batch or _TRIAL_ROWS)
        if example is None:
            self._per_row = self.static_batch == 1
            return
        training, self.training = self.training, False
        try:
            result = self._trial(example)
            if self.static_batch is not None:
                self._settle_static_batch(example, result, self.static_batch)
        finally:
            self.training = training
        self._complete_output(result)

    def _settle_static_batch(self, first: Sequence[Tensor], result: Tensor, batch: int) -> None:
        """Finds out whether other batch sizes run too; where only 1 does, rows are run one by one by vmap from now on."""
        second = [tensor.flip(-1) if tensor.is_floating_point() else 1 - tensor for tensor in first]
        joined = [torch.cat(pair) for pair in zip(first, second, strict=True)]
        expected = torch.cat([result, self._trial(second)])
        if self._gives(joined, expected):
            return
        self._per_row = batch == 1
        if not self._per_row or not self._gives(joined, expected):
            raise UnsupportedModel(
                f"The batch size {batch} is built into the graph.",
                param=self.inputs[0].name,
                suggestion="Export the model with a dynamic batch size (dynamic_shapes of torch.onnx.export).",
            )

    def _gives(self, inputs: Sequence[Tensor], expected: Tensor) -> bool:
        try:
            result = self.forward(*inputs)
        except Exception:  # whatever a graph of another batch size trips over
            return False
        tolerance = _TRIAL_TOLERANCE * float(expected.abs().max())
        return result.shape == expected.shape and torch.allclose(result, expected, rtol=0.0, atol=tolerance, equal_nan=True)

    def _trial(self, example: Sequence[Tensor]) -> Tensor:
        try:
            return self.forward(*example)
        except (ClientError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # the graph is the client's: torch may raise anything
            where = " ".join(getattr(error, "__notes__", []))
            raise InvalidModel(
                f"The graph does not run on random rows of its declared shape: {error} {where}",
                param="model",
                suggestion="Check that the file runs in ONNX Runtime on one batch of the declared input shapes.",
            ) from error

    def _example(self, rows: int) -> list[Tensor] | None:
        """Random rows for each input, from a generator of its own; None where a size other than the batch is dynamic."""
        generator = torch.Generator().manual_seed(0)
        example = []
        for spec in self.inputs:
            sizes = [size for size in spec.shape[1:] if size is not None]
            if len(sizes) < len(spec.shape) - 1:
                return None
            _check_input_size(spec, rows, sizes)
            if spec.dtype.is_floating_point:
                example.append(torch.randn(rows, *sizes, generator=generator, dtype=torch.float32).to(spec.dtype))
            else:
                example.append(torch.randint(0, 2, (rows, *sizes), generator=generator).to(spec.dtype))
        return example

    def _complete_output(self, result: Tensor) -> None:
        """Exporters often leave sizes of the output open that the run has shown."""
        first = self.output.shape[0] if self.output.shape else None
        self.output = replace(self.output, shape=(first, *result.shape[1:]))


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


def _check_input_size(spec: ValueSpec, rows: int, sizes: Sequence[int]) -> None:
    if rows * math.prod(sizes) > MAX_MADE_ELEMENTS:
        raise GraphTooLarge(
            f"A batch of the input {spec.name!r} has {rows * math.prod(sizes):,} elements; at most {MAX_MADE_ELEMENTS:,} are taken.",
            param=spec.name,
            suggestion="Export the model with smaller inputs.",
        )


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


def _logits(nodes: Sequence[Node], output: str) -> str:
    """The input of the Softmax or LogSoftmax that gives `output`, be it as another float type; `output` itself where there is none."""
    producers = {name: node for node in nodes for name in node.outputs}
    name = output
    while name in producers and producers[name].op_type in ("Identity", "Cast") and not casts_to_integers(producers[name]):
        name = producers[name].inputs[0]
    last = producers.get(name)
    return last.inputs[0] if last is not None and last.op_type in ("Softmax", "LogSoftmax") else output
