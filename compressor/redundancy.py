"""Whether the uploaded model had more weights than its data call for, or fell to pieces only where they say nothing."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from compressor.admission import AdmittedModel
from compressor.artifacts import runtime
from compressor.config import ImageScaling
from compressor.data.dataset import Dataset
from compressor.data.scaling import to_tensor
from compressor.errors import UnsupportedModel
from compressor.graph.entry import matrices_at_input
from compressor.graph.reader import read_graph
from compressor.report import Redundancy

_LEAST_RATIO = 10.0
_LEAST_SIZE_RATIO = 2.0

Arrays = Mapping[str, npt.NDArray[Any]]


def judge_redundancy(
    dense: Arrays,
    delivered: Arrays,
    constant: Mapping[str, npt.NDArray[np.bool_]],
    *,
    beta: float,
    num_train: int,
    size_ratio: float,
    met: bool,
) -> Redundancy:
    """The verdict on a model by its weights before and after.

    Args:
        dense, delivered: the float tensors of both graphs, by name.
        constant: the weights that read a constant feature, by `constant_weights`.
        beta: of the delivered point.
        num_train: training rows.
        size_ratio: of the files.
        met: whether the budget was.
    """
    weights = {name: array for name, array in dense.items() if array.ndim >= 2}
    num_constant = sum(int(mask.sum()) for mask in constant.values())
    numel = sum(array.size for array in weights.values()) - num_constant
    nnz = sum(int(np.count_nonzero(delivered[name])) for name in weights)
    nnz -= sum(int(np.count_nonzero(delivered[name][mask])) for name, mask in constant.items())
    ratio = numel / max(1, nnz)
    per_row = sum(array.size for array in dense.values()) / num_train
    over = met and ratio >= _LEAST_RATIO and size_ratio >= _LEAST_SIZE_RATIO
    kept = f"1 weight in {ratio:.1f}" if nnz else "no weight"
    aside = f", the {num_constant:,} of input features that never change aside" if num_constant else ""
    evidence = (
        f"{'it needs' if met else 'no point was inside the budget, and the best keeps'} {kept}{aside} (beta {beta:.3g}), the file is "
        f"{size_ratio:.1f} times smaller, and the upload has {per_row:.2g} parameters for each training row"
    )
    return Redundancy(
        over_parameterised=over,
        numel=numel,
        nnz=nnz,
        ratio=ratio,
        num_constant=num_constant,
        parameters_per_row=per_row,
        evidence=evidence,
    )


def constant_weights(upload: AdmittedModel, train: Dataset, scaling: ImageScaling | None) -> dict[str, npt.NDArray[np.bool_]]:
    """The weights that a matrix product applies to an input feature which is the same in all training rows, as masks by name.

    Two rows go through the graph as far as the product, one of each feature's minimum and one of its maximum: where they are equal, all
    are.
    """
    axes = upload.module.group_axes
    tensors = upload.module.tensors()
    matrices = [name for name in upload.module.weight_names if tensors[name].ndim == 2 and name in axes]
    nodes = read_graph(upload.inference).needed_nodes([upload.module.output.name])
    inputs = [spec.name for spec in upload.module.inputs]
    at_input = matrices_at_input(nodes, matrices, inputs)
    if not at_input:
        return {}
    extremes = [to_tensor(np.stack([array.min(axis=0), array.max(axis=0)]), scaling).numpy() for array in train.inputs]
    found = {}
    for name, value in at_input.items():
        values = extremes[inputs.index(value)] if value in inputs else _run_to(value, upload.inference, extremes)
        if values is None:
            continue
        features = values.reshape(-1, values.shape[-1])
        same = (features == features[0]).all(axis=0)
        mask = np.zeros(tuple(tensors[name].shape), dtype=bool)
        mask.swapaxes(1 - axes[name].axis, 0)[same] = True
        found[name] = mask
    return found


def _run_to(value: str, model: onnx.ModelProto, rows: list[npt.NDArray[Any]]) -> npt.NDArray[Any] | None:
    """A value inside the graph; None where it is of a type that numpy does not know. No run should fail of this at its end."""
    part = onnx.ModelProto()
    part.CopyFrom(model)
    del part.graph.output[:]
    part.graph.output.append(onnx.ValueInfoProto(name=value))
    try:
        return runtime.run(part.SerializeToString(), rows, output=value)
    except UnsupportedModel:
        return None
