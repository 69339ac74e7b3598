"""An untrusted model file let in, step by step, each cheaper than the harm that it prevents: bytes, structure, checker, import, a run
without content, a run on random rows, the same rows in ONNX Runtime."""

import mmap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch

from compressor.architecture import export_architecture
from compressor.artifacts import runtime
from compressor.config import WEIGHTS_SUFFIX, CompressionConfig, check_architecture
from compressor.errors import CompressionError, GraphTooLarge, UnsupportedModel
from compressor.graph.cost import Cost, measure_cost, to_meta
from compressor.graph.gaussian import GaussianValue
from compressor.graph.module import OnnxModule
from compressor.graph.outputs import check_other_outputs
from compressor.graph.trial import TRIAL_ROWS, does_not_run, trial_limits, without_content
from compressor.graph.validate import parse_model
from compressor.graph.write import drop_leftovers, to_inference
from compressor.machine import available_bytes

MAX_MODEL_BYTES = 2**31 - 1  # what protobuf can hold

# How far our outputs may lie from those of ONNX Runtime, as a part of the largest.
_TOLERANCE = 1e-3
_HALF_TOLERANCE = 1e-2

# Bytes of training per element of a weight: mean, log variance, their gradients, and Adam's two moments of each, in float32.
_BYTES_PER_WEIGHT = 32
_BYTES_PER_PARAMETER = 16


@dataclass(frozen=True)
class AdmittedModel:
    """A model that runs, here and in ONNX Runtime, alike.

    Attributes:
        path: the client's file.
        proto: its graph as it came, or as it was built from the architecture, but for nodes that no output needs and for what the exporter
            noted of shapes in between.
        inference: its graph with BatchNormalization and Dropout out of training mode, which is what its metric and speed are measured on.
        module: the graph as a trainable module, on the CPU.
    """

    path: Path
    proto: onnx.ModelProto
    inference: onnx.ModelProto
    module: OnnxModule


def admit(path: Path, config: CompressionConfig | None = None) -> AdmittedModel:
    """The model of an untrusted file.

    Args:
        path: an ONNX file, or a safetensors file of the weights of `config.architecture`.
        config: of its options `output`, `architecture` and `image_size` count; the defaults where it is None.
    Raises: ModelError, InvalidConfig or UnsupportedTask, by the subclass that says what is wrong, with the place and the remedy.
    """
    config = config or CompressionConfig()
    is_weights_alone = path.suffix.lower() == WEIGHTS_SUFFIX
    check_architecture(config, is_weights_alone)
    size = path.stat().st_size
    if size > MAX_MODEL_BYTES:
        raise GraphTooLarge(
            f"The file has {size:,} bytes; at most {MAX_MODEL_BYTES:,} are taken.", param="model", suggestion="Upload a smaller model."
        )
    if is_weights_alone and config.architecture is not None:
        data: bytes | mmap.mmap = export_architecture(path, config.architecture, config.image_size)
    else:
        data = _mapped(path) if size else b""
    proto = parse_model(data)
    module = OnnxModule(proto, config.output)
    drop_leftovers(proto)
    inference = to_inference(proto)
    if module.example is not None:
        check_parity(module, inference, module.example)
    return AdmittedModel(path, proto, inference, module)


def check_parity(module: OnnxModule, inference: onnx.ModelProto, rows: Sequence[torch.Tensor]) -> None:
    """What we train must be what ONNX Runtime runs: an operator that we read otherwise must not show only after hours of training.

    Args:
        module: a module that runs on `rows`.
        inference: the graph that ONNX Runtime gets; without leftovers.
        rows: one tensor for each input.
    Raises:
        UnsupportedModel: ONNX Runtime does not run the model, or gives other outputs.
        UnsupportedOperator, GraphTooLarge: what it would compute beside the module's output is not known, or too much.
    """
    check_other_outputs(inference, module.output.name, rows, trial_limits(module, _batches_in(rows, module.static_batch)))
    module.eval()
    with torch.no_grad():
        ours = module(*rows).cpu().double().numpy()
    found = runtime.run(inference.SerializeToString(), to_numpy(rows), output=module.output.name)
    if ours.shape != found.shape:
        raise _disagreement(f"shape {list(found.shape)} instead of {list(ours.shape)}")
    _compare(ours, found)


def to_numpy(rows: Sequence[torch.Tensor]) -> list[npt.NDArray[Any]]:
    """Rows as ONNX Runtime takes them; numpy has no bfloat16."""
    return [tensor.cpu().float().numpy() if tensor.dtype == torch.bfloat16 else tensor.cpu().numpy() for tensor in rows]


def _compare(ours: npt.NDArray[np.float64], found: npt.NDArray[Any]) -> None:
    half = found.dtype == np.float16
    tolerance = _HALF_TOLERANCE if half else _TOLERANCE
    if half:  # what half precision cannot hold is infinite there
        with np.errstate(over="ignore"):
            ours = ours.astype(np.float16).astype(np.float64)
    theirs = found.astype(np.float64)
    # Random rows may lead to a logarithm of something negative, here as there.
    finite = np.isfinite(ours) & np.isfinite(theirs)
    if not np.array_equal(ours[~finite], theirs[~finite], equal_nan=True):
        raise _disagreement("values that are finite here and not there, or the other way round")
    scale = float(np.abs(ours[finite]).max(initial=0.0)) or 1.0
    difference = float(np.abs(ours[finite] - theirs[finite]).max(initial=0.0)) / scale
    if difference > tolerance:
        raise _disagreement(f"values that differ by {difference:.1e} of the largest; {tolerance:.0e} is accepted")


def training_cost(module: OnnxModule, rows: Sequence[torch.Tensor]) -> Cost:
    """One noisy forward pass over `rows` as training takes it, without content, and all that training keeps beside it.

    Returns: flops of the pass; bytes of its tensors, of parameters, gradients and optimiser.
    Raises:
        GraphTooLarge: these are more than this process can have.
        InvalidModel: the graph does not run in training mode, or not with noise.
        UnsupportedModel: as `measure_cost`.
    """
    twin = without_content(module).train()
    tensors = twin.tensors()
    values = {name: GaussianValue(tensors[name], torch.empty_like(tensors[name])) for name in twin.weight_names}
    kept = _BYTES_PER_PARAMETER * sum(tensor.numel() for tensor in tensors.values())
    kept += (_BYTES_PER_WEIGHT - _BYTES_PER_PARAMETER) * sum(tensors[name].numel() for name in twin.weight_names)
    available = available_bytes()
    try:
        cost = measure_cost(lambda: twin(*to_meta(rows), values=values, logits=True), max(0, available - kept))
    except (CompressionError, MemoryError):
        raise
    except Exception as error:  # the graph is the client's: torch may raise anything
        raise does_not_run(error) from error
    return replace(cost, bytes=cost.bytes + kept)


def _mapped(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _batches_in(rows: Sequence[torch.Tensor], static_batch: int | None) -> int:
    """How many times the rows of a trial these are."""
    return -(-len(rows[0]) // (static_batch or TRIAL_ROWS))


def _disagreement(how: str) -> UnsupportedModel:
    return UnsupportedModel(
        f"ONNX Runtime gives other outputs than our interpreter on the same rows: {how}.",
        param="model",
        suggestion="Report it with the model; exported by another exporter or opset it may be in order.",
    )
