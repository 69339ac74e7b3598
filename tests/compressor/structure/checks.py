"""What must hold of every compaction, in stock ONNX Runtime, and masks that leave units dead."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import torch
from onnx import ModelProto

from compressor.artifacts import runtime
from compressor.graph.validate import parse_model
from compressor.graph.write import float_tensors, to_inference, write_arrays
from compressor.structure import Compaction, compact

Rows = np.ndarray | Sequence[np.ndarray]
TOLERANCE = 1e-5  # of the largest number of an output

Arrays = dict[str, np.ndarray]


def check(model: ModelProto, arrays: Mapping[str, np.ndarray], rows: Rows, *, drop_dead_inputs: bool = False) -> Compaction:
    """Compacts, and asserts all that must hold of it."""
    arrays = {name: array for name, array in arrays.items() if np.isfinite(array).all()}  # masks of infinities are no tensors to prune
    before = model.SerializeToString(deterministic=True)
    given_arrays = {name: array.copy() for name, array in arrays.items()}
    found = compact(model, arrays, drop_dead_inputs=drop_dead_inputs)
    assert model.SerializeToString(deterministic=True) == before
    assert all(np.array_equal(arrays[name], given_arrays[name]) for name in arrays)
    small = parse_model(found.model.SerializeToString())
    onnx.checker.check_model(small, full_check=True)
    expected = outputs_of(write_arrays(model, arrays), rows)
    scale = max(1e-6, *(float(np.abs(each).max()) for each in expected))
    folded = {name: found.folded[name] for name in arrays}
    for other in (write_arrays(model, folded), to_inference(small)):
        for ours, theirs in zip(outputs_of(other, rows), expected, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=TOLERANCE * scale)
    tensors = float_tensors(small)
    shrunk = found.shrink(found.folded)
    assert all(np.array_equal(tensors[name], shrunk[name]) for name in tensors)
    _check_expansion(model, found, small, rows)
    return found


def _check_expansion(model: ModelProto, found: Compaction, small: ModelProto, rows: Rows) -> None:
    """Whatever the tensors of the smaller graph become, those of the original shapes give its outputs."""
    rng = np.random.default_rng(7)
    trained = {
        name: (array * rng.uniform(0.5, 1.5, array.shape)).astype(array.dtype)
        if any(axis is not None for axis in found.kept[name])
        else array
        for name, array in float_tensors(small).items()
        if np.isfinite(array).all()
    }
    expanded = found.expand(trained)
    assert {name: array.shape for name, array in expanded.items()} == {name: found.folded[name].shape for name in expanded}
    assert all(np.array_equal(array, trained[name]) for name, array in found.shrink(expanded).items())
    tensors = found.expand({name: torch.tensor(array) for name, array in trained.items()})
    assert all(np.array_equal(tensor.numpy(), expanded[name]) for name, tensor in tensors.items())
    for ours, theirs in zip(outputs_of(write_arrays(model, expanded), rows), outputs_of(write_arrays(small, trained), rows), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=TOLERANCE * max(1e-6, float(np.abs(theirs).max())))


def outputs_of(model: ModelProto, rows: Rows) -> list[np.ndarray]:
    data = model.SerializeToString()
    return [runtime.run(data, [rows] if isinstance(rows, np.ndarray) else rows, output=info.name) for info in model.graph.output]


def pruned(arrays: Mapping[str, np.ndarray], seed: int = 0, *, dead: float = 0.4, kept: float = 0.5) -> Arrays:
    """Of every weight, units of both sides and single elements zeroed at random; of a recurrent one, columns too."""
    rng = np.random.default_rng(seed)
    made = {}
    for name, array in arrays.items():
        made[name] = array.copy()
        if array.ndim >= 2:
            for axis in range(3 if array.ndim == 3 else 2):
                np.moveaxis(made[name], axis, 0)[rng.random(array.shape[axis]) < dead / 2] = 0
            made[name] *= rng.random(array.shape) < kept
    return made


def sizes(found: Compaction) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in float_tensors(found.model).items()}
