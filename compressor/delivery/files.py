"""The files of a delivered model: its graph made smaller, written in every form, and read back before anything is said of them."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from onnx import ModelProto

from compressor.admission import AdmittedModel, to_numpy
from compressor.artifacts import bp, csr, dense_onnx, packed_onnx, sparse_onnx
from compressor.artifacts.proof import doubt
from compressor.artifacts.verify import HALF_TOLERANCE, TOLERANCE, check_tensors, verify_outputs, verify_weights
from compressor.config import CompressionConfig
from compressor.errors import ArtifactMismatch, CompressionError, InvalidArtifact
from compressor.graph.module import OnnxModule
from compressor.graph.write import drop_notes, float_tensors
from compressor.intake import Baseline
from compressor.progress import ProgressTracker
from compressor.quantisation import Quantised, Quantiser
from compressor.search import Outcome
from compressor.structure import Compaction, compact, keep_all, merge_zero_rows
from compressor.training.objective import Objective

MODEL, DENSE, PACKED, BP, WEIGHTS = "model.onnx", "model.dense.onnx", "model.packed.onnx", "model.bp", "weights.safetensors"

Arrays = dict[str, npt.NDArray[Any]]
Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Delivered:
    """A pruned model as its files have it.

    Attributes:
        model: the client's graph in inference mode without its dead units and without its exporter's notes, with dense tensors.
        compaction: the way between its tensors and the uploaded ones.
        uploaded: the client's graph in inference mode, with its own tensors.
        sigmas: of its weights that have a posterior, by name in its shapes.
        quantised: the same graph with rounded values; None where no file of it is wanted or could be had.
        warnings: why a form that was wanted is missing or larger than it might be, or dead units are not gone.
        weights: names of what was pruned, which is what may be stored as float16.
    """

    model: ModelProto
    compaction: Compaction
    uploaded: ModelProto
    sigmas: Arrays
    quantised: Quantised | None = None
    warnings: tuple[str, ...] = ()
    weights: frozenset[str] = frozenset()

    def whole(self, arrays: Arrays) -> Arrays:
        """Tensors of `model` in the uploaded shapes, 0 where it has none."""
        there = {name: array for name, array in arrays.items() if name in self.compaction.folded}
        return {name: np.zeros_like(array) for name, array in self.compaction.folded.items()} | self.compaction.expand(there)

    def whole_graph(self) -> ModelProto:
        """The uploaded graph, with its dead units, which gives the outputs of `model`."""
        return keep_all(self.uploaded, self.compaction.folded).model


def deliver(upload: AdmittedModel, tensors: Tensors, log_sigma2: Tensors, rows: Sequence[npt.NDArray[Any]] | None = None) -> Delivered:
    """The smallest graph that gives the outputs of the uploaded one with these tensors.

    Args:
        tensors: everything that training changes, by ONNX name in the uploaded shapes.
        log_sigma2: of the posterior, by name of the weights that have one.
        rows: on which both graphs must give the same; the random ones of the import where it is None. Where they do not, or there are
            none, the dead units stay.
    """
    arrays = {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}
    compaction, whole = compact(upload.inference, arrays), keep_all(upload.inference, arrays)
    rows = to_numpy(upload.module.example or ()) if rows is None else rows
    why = doubt(whole.model, compaction.model, rows, upload.module.output.name)
    compaction = compaction if why is None else whole
    model = ModelProto()
    model.CopyFrom(compaction.model)
    drop_notes(model)
    left = float_tensors(model)
    sigmas = {name: np.exp(tensor.detach().cpu().double().numpy() / 2) for name, tensor in log_sigma2.items() if name in left}
    weights = frozenset(upload.module.weight_names)
    return Delivered(model, compaction, upload.inference, compaction.shrink(sigmas), warnings=_warnings(why), weights=weights)


def _warnings(why: str | None) -> tuple[str, ...]:
    if why is None:
        return ()
    return (f"Dead units are still in the graph, since it was not proven that without them its outputs are the same: {why}.",)


def quantise(
    delivered: Delivered,
    output: str,
    outcome: Outcome,
    baseline: Baseline,
    config: CompressionConfig,
    objective: Objective,
    tracker: ProgressTracker,
) -> Delivered:
    """The same with its values on grids as well; where they cannot be had, with the reason, since that must not cost the run."""
    try:
        quantiser = Quantiser(
            delivered.model, output, delivered.sigmas, outcome.metric, baseline, config, objective, outcome.training, tracker
        )
        quantised = quantiser.run()
    except CompressionError as error:
        return replace(
            delivered,
            warnings=(*delivered.warnings, f"There is no file of quantised values: {error.detail} {error.suggestion or ''}".rstrip()),
        )
    return replace(delivered, quantised=quantised, warnings=(*delivered.warnings, *_on_values(quantised, config)))


def _on_values(quantised: Quantised, config: CompressionConfig) -> tuple[str, ...]:
    """Why the files are larger than one might expect."""
    if quantised.values == "grids":
        return ()
    is_packed = "packed" in config.formats and config.packed_values == "quantised"
    files = [*([PACKED] if is_packed else []), *([BP] if "bp" in config.formats else [])]
    held = "float16" if quantised.values == "float16" else "the numbers of model.onnx, since float16 does not keep to it either"
    return (f"No grid of at most 8 bits keeps to the budget; values in {' and '.join(files)}: {held}.",)


def write_model(out_dir: Path, delivered: Delivered, config: CompressionConfig) -> tuple[str, ...]:
    """Writes the model in all forms that are wanted. Returns: the names of the files."""
    names = forms_of(delivered, config)
    for name in names:
        write_form(out_dir / name, delivered, config)
    return names


def forms_of(delivered: Delivered, config: CompressionConfig) -> tuple[str, ...]:
    """Names of the files that are wanted, in the order in which they are written."""
    is_quantised = delivered.quantised is not None
    has_packed = "packed" in config.formats and (is_quantised or config.packed_values == "float16")
    has_bp = "bp" in config.formats and is_quantised
    return (MODEL, DENSE, WEIGHTS, *([PACKED] if has_packed else []), *([BP] if has_bp else []))


def write_form(path: Path, delivered: Delivered, config: CompressionConfig) -> None:
    """Writes the form that has the name of `path`; weights.safetensors takes what model.onnx beside it holds."""
    quantised = delivered.quantised
    match path.name:
        case "model.onnx":
            sparse_onnx.write(path, delivered.model, {})
        case "model.dense.onnx":
            dense_onnx.write(path, merge_zero_rows(delivered.model), halves=_halves(delivered, config))
        case "weights.safetensors":
            csr.write(path, sparse_onnx.read(path.with_name(MODEL)), delivered.sigmas if config.posterior_sigma else None)
        case "model.packed.onnx" if config.packed_values == "float16":
            packed_onnx.write(path, delivered.model, None)
        case "model.packed.onnx" if quantised is not None:
            packed_onnx.write(path, quantised.model, quantised.grids)
        case "model.bp" if quantised is not None:
            bp.write(path, quantised.model, quantised.grids or {})


def _halves(delivered: Delivered, config: CompressionConfig) -> frozenset[str]:
    return delivered.weights if config.weight_dtype == "float16" else frozenset()


def verify_files(
    out_dir: Path,
    delivered: Delivered,
    config: CompressionConfig,
    names: Sequence[str],
    rows: Sequence[npt.NDArray[Any]],
    expected: npt.NDArray[Any] | None,
    output: str,
) -> dict[str, tuple[str, ...]]:
    """Reads every form back, and compares its tensors and its outputs with those of the trained model.

    Args:
        names: of the files, as `write_model` gives them.
        rows: what to run on.
        expected: what the trained module, in the uploaded shapes, gives for these; None where no rows are known that it gives finite
            numbers for: then tensors alone are compared.
        output: name of the output.
    Returns: the runtimes in which each form was run.
    Raises: ArtifactMismatch.
    """
    quantised = delivered.quantised
    needs_quantised = quantised is not None and expected is not None and not {PACKED, BP}.isdisjoint(names)
    of_quantised = _outputs(quantised.model, rows, output) if quantised is not None and needs_quantised else None
    whole = None if expected is None else lambda: (delivered.whole_graph(), expected)
    checked = {}
    for name in names:
        if name == WEIGHTS:
            continue
        form = _read_form(out_dir / name, delivered, config)
        check_tensors(name, form.expected, form.found)
        reference = of_quantised if form.is_quantised else expected
        checked[name] = (
            ()
            if reference is None
            else verify_outputs(name, form.data, form.materialised, rows, reference, output=output, tolerance=form.tolerance, whole=whole)
        )
    if WEIGHTS in names:
        verify_weights(out_dir / WEIGHTS, sparse_onnx.read(out_dir / MODEL), delivered.sigmas if config.posterior_sigma else {})
    return checked


@dataclass(frozen=True)
class _Form:
    """A file read back: what it should hold, what it holds, and as what it runs."""

    expected: Mapping[str, npt.NDArray[Any]]
    found: Mapping[str, npt.NDArray[Any]]
    data: bytes
    materialised: ModelProto
    tolerance: float
    is_quantised: bool = False


def _read_form(path: Path, delivered: Delivered, config: CompressionConfig) -> _Form:
    arrays, quantised = float_tensors(delivered.model), delivered.quantised
    tolerance = HALF_TOLERANCE if any(array.dtype == np.float16 for array in arrays.values()) else TOLERANCE
    try:
        match path.name:
            case "model.onnx":
                return _Form(arrays, sparse_onnx.read(path), path.read_bytes(), delivered.model, tolerance)
            case "model.dense.onnx":
                data, weights = path.read_bytes(), _halves(delivered, config)
                expected = dense_onnx.to_halves(float_tensors(merge_zero_rows(delivered.model)), weights)
                dense = ModelProto.FromString(data)
                return _Form(expected, dense_onnx.read(path), data, dense, HALF_TOLERANCE if weights else tolerance)
            case "model.packed.onnx":
                is_quantised = quantised is not None and config.packed_values == "quantised"
                found, unpacked = packed_onnx.read(path), packed_onnx.unpack(path)
                if is_quantised and quantised is not None:
                    return _Form(float_tensors(quantised.model), found, path.read_bytes(), unpacked, tolerance, True)
                # A tensor without zeros, or beyond float16, is as it was.
                halves = {name: _to_half(array) for name, array in arrays.items()}
                expected = {name: halves[name] if np.array_equal(found.get(name, []), halves[name]) else arrays[name] for name in arrays}
                return _Form(expected, found, path.read_bytes(), unpacked, HALF_TOLERANCE)
            case _:
                data = bp.unpack(path)
                expected = {} if quantised is None else float_tensors(quantised.model)
                return _Form(expected, bp.read(path), data, ModelProto.FromString(data), tolerance, True)
    except InvalidArtifact as error:
        raise ArtifactMismatch(f"{path.name} cannot be read back: {error.detail}", param=path.name) from error


def _to_half(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """What is left of a float32 weight in float16."""
    with np.errstate(over="ignore"):
        return array.astype(np.float16).astype(array.dtype) if array.ndim >= 2 and array.dtype == np.float32 else array


def _outputs(model: ModelProto, rows: Sequence[npt.NDArray[Any]], output: str) -> npt.NDArray[Any] | None:
    return finite_outputs(OnnxModule(model, output), [torch.from_numpy(array) for array in rows])


@torch.no_grad()
def finite_outputs(module: OnnxModule, rows: Sequence[torch.Tensor]) -> npt.NDArray[Any] | None:
    """What our own interpreter gives for these; None where not all of it is finite."""
    outputs = module.eval()(*rows).cpu().double().numpy()
    return outputs if np.isfinite(outputs).all() else None


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
