"""`inspect`: what a run would make of a model, found out without rows and without training."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from onnx import ModelProto, TensorProto, ValueInfoProto

from compressor.admission import AdmittedModel, admit
from compressor.config import CompressionConfig
from compressor.estimate import estimate_training
from compressor.graph.module import OnnxModule
from compressor.graph.reader import ONNX_DOMAINS
from compressor.graph.tensors import FLOAT_TYPES, TORCH_DTYPES
from compressor.graph.write import float_tensors
from compressor.inspection import (
    Batch,
    Estimate,
    Head,
    InputTensor,
    Inspection,
    ModelFile,
    OutputTensor,
    ParameterCounts,
    Treatment,
    UncoveredTensor,
    VariationalWeight,
)
from compressor.machine import resolve_device
from compressor.progress import ProgressTracker, ignore
from compressor.protocol import OnProgress
from compressor.training.readout import read_head, readings_of

_LOW_COVERAGE = 0.5
_MUCH = 0.1  # of the variational elements
_HALF_BYTES = 2
# In this order; the words are those of compressor.graph.ops.Flow.
_TREATMENTS: tuple[Treatment, ...] = (
    "local reparameterisation",
    "drawn for each half of the batch, or local reparameterisation where that is cheaper",
    "noise for each lookup",
    "sampled once",
)
_SAMPLED = _TREATMENTS[-1]


def inspect(model_path: Path | str, config: CompressionConfig | None = None, on_progress: OnProgress = ignore) -> Inspection:
    """What `compress` would do with a model: the same checks, and none of the training.

    Args:
        model_path: an ONNX file, or a safetensors file and `config.architecture`.
        config: of its options `task`, `output`, `architecture`, `image_size`, `batch_size` and `device` count; the defaults where it is
            None.
        on_progress: told of the phases.
    Returns: the inspection; it writes nothing.
    Raises: ModelError, UnsupportedTask or DeviceUnavailable, as `compress` would before it reads any row.
    """
    path, options = Path(model_path), config or CompressionConfig()
    tracker = ProgressTracker(on_progress)

    tracker.enter("validate")
    device = resolve_device(options.device)
    model = admit(path, options)
    readings = readings_of(model.module.output.shape, model.module.head, options.task)

    tracker.enter("estimate")
    estimate = _estimate(model.module, options, device)
    arrays = float_tensors(model.proto)
    weights, not_covered = _weights(model.module), _not_covered(model.module, arrays)
    parameters = _count(model.module, arrays)
    coverage = parameters.variational / (parameters.variational + sum(tensor.numel for tensor in not_covered))
    file, head = _file(path, model), _head(model.module)
    outputs = [_output(info, model.module) for info in model.proto.graph.output]
    return Inspection(
        verdict=_verdict(parameters, len(weights), coverage, estimate),
        warnings=[
            *_warnings_of_graph(model.module, head, file, arrays, outputs, is_named=options.output is not None),
            *_warnings_of_weights(weights, coverage),
            *_warnings_of_size(model.module, estimate),
        ],
        file=file,
        inputs=[InputTensor(name=spec.name, dtype=_dtype_name(spec.dtype), shape=spec.shape) for spec in model.module.inputs],
        outputs=outputs,
        head=head,
        tasks=readings.tasks,
        num_classes=max(readings.classes, 2) if readings.classes else None,
        batch=_batch(model.module),
        parameters=parameters,
        weights=weights,
        treatments=_totals(weights),
        coverage=coverage,
        not_covered=not_covered,
        estimate=estimate,
    )


def _file(path: Path, model: AdmittedModel) -> ModelFile:
    proto, nodes = model.proto, [node for node in model.proto.graph.node if node.op_type != "Constant" or node.domain not in ONNX_DOMAINS]
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    operators = model.module.operators
    return ModelFile(
        bytes=path.stat().st_size,
        sha256=digest,
        opset=_opset(proto),
        producer=f"{proto.producer_name} {proto.producer_version}".strip(),
        operators=dict(sorted(operators.items())),
        num_nodes_left_out=len(nodes) - sum(operators.values()),
    )


def _opset(proto: ModelProto) -> int:
    return next(int(entry.version) for entry in proto.opset_import if entry.domain in ONNX_DOMAINS)


def _output(info: ValueInfoProto, module: OnnxModule) -> OutputTensor:
    taken = info.name == module.output.name
    if not info.type.HasField("tensor_type"):
        return OutputTensor(name=info.name, dtype=str(info.type.WhichOneof("value")), shape=None, taken=False, selectable=False)
    tensor = info.type.tensor_type
    declared = tuple(dim.dim_value if dim.dim_value > 0 else None for dim in tensor.shape.dim)
    return OutputTensor(
        name=info.name,
        dtype=_element_name(tensor.elem_type),
        shape=module.output.shape if taken else declared,
        taken=taken,
        selectable=tensor.elem_type in FLOAT_TYPES,
    )


def _element_name(elem_type: int) -> str:
    if elem_type in TORCH_DTYPES:
        return _dtype_name(TORCH_DTYPES[elem_type])
    return TensorProto.DataType.Name(elem_type).lower() if elem_type in TensorProto.DataType.values() else str(elem_type)


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


@torch.no_grad()
def _head(module: OnnxModule) -> Head:
    """As a run reads it: distributions that no Softmax has made are told by their values."""
    return module.head if module.example is None else read_head(module.head, module.eval()(*module.example))


def _batch(module: OnnxModule) -> Batch:
    if module.static_batch is None:
        return "dynamic"
    return "declared" if module.built_in_batch is None else "built in"


def _weights(module: OnnxModule) -> list[VariationalWeight]:
    tensors = module.tensors()
    return [
        VariationalWeight(
            name=name,
            shape=tuple(tensors[name].shape),
            numel=tensors[name].numel(),
            treatments=sorted((flow.value for flow in module.treatments[name]), key=_TREATMENTS.index),
        )
        for name in module.weight_names
    ]


def _totals(weights: list[VariationalWeight]) -> dict[Treatment, int]:
    found = {treatment: sum(weight.numel for weight in weights if treatment in weight.treatments) for treatment in _TREATMENTS}
    return {treatment: numel for treatment, numel in found.items() if numel}


def _not_covered(module: OnnxModule, arrays: Mapping[str, np.ndarray]) -> list[UncoveredTensor]:
    unread = f"the output {module.output.name!r} does not need it"
    trained, weights = module.tensors(), set(module.weight_names)
    return [
        UncoveredTensor(name=name, shape=array.shape, numel=array.size, trained=name in trained, reason=module.uncovered.get(name, unread))
        for name, array in arrays.items()
        if array.ndim >= 2 and name not in weights
    ]


def _count(module: OnnxModule, arrays: Mapping[str, np.ndarray]) -> ParameterCounts:
    trained, weights = module.tensors(), set(module.weight_names)
    numel = sum(array.size for array in arrays.values())
    variational = sum(array.size for name, array in arrays.items() if name in weights)
    without_noise = sum(array.size for name, array in arrays.items() if name in trained and name not in weights)
    return ParameterCounts(numel=numel, variational=variational, without_noise=without_noise, fixed=numel - variational - without_noise)


def _estimate(module: OnnxModule, options: CompressionConfig, device: torch.device) -> Estimate | None:
    if module.example is None:
        return None
    return estimate_training(module, module.example, options.batch_size, on_cpu=device.type == "cpu")


def _verdict(parameters: ParameterCounts, num_weights: int, coverage: float, estimate: Estimate | None) -> str:
    said = (
        f"{parameters.variational:,} of {parameters.numel:,} parameters, in {num_weights} tensors, will be variational: {coverage:.1%} of "
        "the elements of all tensors of two or more dimensions"
    )
    if estimate is None or estimate.seconds_per_1000_rows is None:
        return f"{said}."
    return f"{said}; an epoch takes about {_rounded(estimate.seconds_per_1000_rows)} s for every 1,000 rows on this machine."


def _rounded(seconds: float) -> str:
    """Two digits, and no exponent."""
    return f"{float(f'{seconds:.2g}'):,g}"


def _warnings_of_graph(
    module: OnnxModule, head: Head, file: ModelFile, arrays: Mapping[str, np.ndarray], outputs: list[OutputTensor], *, is_named: bool
) -> list[str]:
    found = []
    others = [output.name for output in outputs if output.selectable and not output.taken]
    if others and not is_named:
        found.append(f"The output {module.output.name!r} is taken; the option `output` names another one: {', '.join(map(repr, others))}.")
    if file.num_nodes_left_out:
        found.append(f"{file.num_nodes_left_out} nodes are left out: the output {module.output.name!r} does not need them.")
    if module.built_in_batch is not None:
        how = "one by one" if module.built_in_batch == 1 else f"{module.built_in_batch} at a time"
        found.append(
            f"A batch size of {module.built_in_batch} is built into the graph, so that rows run {how}: export it with a dynamic batch size."
        )
    if head == "probabilities":
        found.append("The output holds probabilities that no final Softmax makes: training takes their logarithm.")
    if any(array.dtype.itemsize == _HALF_BYTES for array in arrays.values()):
        found.append("Half precision is trained in float32 and written back as it was.")
    return found


def _warnings_of_weights(weights: list[VariationalWeight], coverage: float) -> list[str]:
    found = []
    if coverage < _LOW_COVERAGE:
        found.append(f"Only {coverage:.1%} of the elements can become zero: see not_covered for the others.")
    sampled = sum(weight.numel for weight in weights if _SAMPLED in weight.treatments) / sum(weight.numel for weight in weights)
    if sampled >= _MUCH:
        found.append(f"{sampled:.1%} of the variational elements are sampled once for a whole batch, which trains with more noise.")
    return found


def _warnings_of_size(module: OnnxModule, estimate: Estimate | None) -> list[str]:
    if estimate is None and module.example is None:
        return ["The graph ran with none of the sizes that were tried for its dynamic dimensions; only rows can show what it takes."]
    if estimate is None:
        return ["Not even four rows of a step of training fit into the memory of this machine: a run would be refused, or have fewer."]
    found = []
    if estimate.assumed_shapes:
        shapes = ", ".join(f"{name}: {list(shape)}" for name, shape in estimate.assumed_shapes.items())
        found.append(f"Memory and time are for rows of assumed sizes ({shapes}).")
    if estimate.largest_batch_size < estimate.batch_size:
        found.append(
            f"A batch of {estimate.batch_size} rows takes {estimate.training_bytes / 2**30:.1f} GiB, which is more than this machine has: "
            f"set batch_size to {estimate.largest_batch_size} or less."
        )
    return found
