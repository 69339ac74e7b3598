"""The first run of an imported graph, on random rows: first without content, under a counter of bytes, then for real.

What fails, fails here, before any row of the client's is read; and only a run shows whether a fixed batch size is merely declared.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from compressor.errors import ClientError, GraphTooLarge, InvalidModel, UnsupportedModel
from compressor.graph.cost import measure_cost, to_meta
from compressor.graph.ops.table import MAX_MADE_ELEMENTS, Flow

if TYPE_CHECKING:
    from compressor.graph.module import OnnxModule, ValueSpec

_ROWS = 2
_MAX_BYTES = 2 * 2**30  # of all tensors of these rows; most are gone again before the next is made
# A dynamic size other than the batch, such as the length of a sentence or the side of an image, is one of these, the first that runs.
_GUESSED_SIZES = (32, 64, 16, 224, 128, 8, 256, 4)
# How far a batch may differ from its rows taken one by one.
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Settled:
    """What the trial has shown.

    Attributes:
        example: the random rows; None where no guess of the dynamic sizes made the graph run.
        output_shape: sizes of the output behind the batch; None with the example.
        per_row: rows must be run one by one, since a batch size of 1 is built into the graph.
    """

    example: tuple[Tensor, ...] | None
    output_shape: tuple[int, ...] | None
    per_row: bool


@torch.no_grad()
def settle(module: "OnnxModule", static_batch: int | None) -> Settled:
    """Runs `module` in inference mode, in the declared batch size or, where that is open, with two rows.

    Raises:
        InvalidModel: the graph does not run.
        GraphTooLarge: it asks for more memory than two rows may take.
        UnsupportedModel: a batch size other than 1 is built into it, or a size depends on the values of the input.
    """
    training, module.training = module.training, False
    try:
        example = _example_that_runs(module, static_batch or _ROWS)
        if example is None:
            return Settled(None, None, per_row=static_batch == 1)
        result = _run(module, example)
        per_row = static_batch is not None and _needs_rows_one_by_one(module, example, result, static_batch)
        return Settled(example, tuple(result.shape[1:]), per_row)
    finally:
        module.training = training


@torch.no_grad()
def indivisible_weights(module: "OnnxModule") -> set[str]:
    """The weights that the graph divides by their own norm, or the like: no number comes out where one of them is zero all over."""
    if module.example is None:
        return set()
    computed = [name for name, flows in module.treatments.items() if Flow.SAMPLED in flows]
    training, module.training = module.training, False
    try:
        usual = bool(_run(module, module.example).isfinite().all())
        tensors = module.tensors()
        zeros = {name: {name: torch.zeros_like(tensors[name])} for name in computed if usual}
        return {name for name, values in zeros.items() if not bool(module(*module.example, values=values).isfinite().all())}
    finally:
        module.training = training


def without_content(module: "OnnxModule") -> "OnnxModule":
    """The module on device `meta`; what it shares with `module` is not changed by running it."""
    twin = copy.copy(module)
    # nn.Module keeps its tensors in dictionaries, which a shallow copy would share.
    twin.__dict__["_parameters"] = {name: nn.Parameter(to_meta([tensor])[0]) for name, tensor in module.named_parameters()}
    twin.__dict__["_buffers"] = {name: to_meta([tensor])[0] for name, tensor in module.named_buffers()}
    return twin


def make_example(inputs: Sequence["ValueSpec"], rows: int, dynamic_size: int) -> tuple[Tensor, ...]:
    """Random rows for each input, from a generator of its own; integers are 0 and 1, which are tokens, masks and positions alike.

    Raises: GraphTooLarge.
    """
    generator = torch.Generator().manual_seed(0)
    example = []
    for spec in inputs:
        sizes = [dynamic_size if size is None else size for size in spec.shape[1:]]
        if rows * math.prod(sizes) > MAX_MADE_ELEMENTS:
            raise GraphTooLarge(
                f"A batch of the input {spec.name!r} has {rows * math.prod(sizes):,} elements; at most {MAX_MADE_ELEMENTS:,} are taken.",
                param=spec.name,
                suggestion="Export the model with smaller inputs.",
            )
        if spec.dtype.is_floating_point:
            example.append(torch.randn(rows, *sizes, generator=generator, dtype=torch.float32).to(spec.dtype))
        else:
            example.append(torch.randint(0, 2, (rows, *sizes), generator=generator).to(spec.dtype))
    return tuple(example)


def _example_that_runs(module: "OnnxModule", rows: int) -> tuple[Tensor, ...] | None:
    is_dynamic = any(size is None for spec in module.inputs for size in spec.shape[1:])
    twin = without_content(module)
    for size in _GUESSED_SIZES if is_dynamic else (0,):
        example = make_example(module.inputs, rows, size)
        try:
            measure_cost(partial(twin, *to_meta(example)), _MAX_BYTES)
        except (ClientError, MemoryError):
            if not is_dynamic:
                raise
        except Exception as error:  # the graph is the client's: torch may raise anything
            if not is_dynamic:
                raise _does_not_run(error) from error
        else:
            return example
    return None


def _run(module: "OnnxModule", example: Sequence[Tensor]) -> Tensor:
    try:
        result: Tensor = module(*example)
        return result
    except (ClientError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise _does_not_run(error) from error


def _does_not_run(error: Exception) -> InvalidModel:
    where = " ".join(getattr(error, "__notes__", []))
    return InvalidModel(
        f"The graph does not run on random rows of its declared shape: {str(error)[:300]} {where}",
        param="model",
        suggestion="Check that the file runs in ONNX Runtime on one batch of the declared input shapes.",
    )


def _needs_rows_one_by_one(module: "OnnxModule", first: Sequence[Tensor], result: Tensor, batch: int) -> bool:
    """Whether no other batch size runs as it is, but rows one by one do."""
    second = [tensor.flip(-1) if tensor.is_floating_point() else 1 - tensor for tensor in first]
    joined = [torch.cat(pair) for pair in zip(first, second, strict=True)]
    expected = torch.cat([result, _run(module, second)])
    if _gives(module, joined, expected):
        return False
    if batch == 1:
        module.per_row = True
        if _gives(module, joined, expected):
            return True
    raise UnsupportedModel(
        f"The batch size {batch} is built into the graph.",
        param=module.inputs[0].name,
        suggestion="Export the model with a dynamic batch size (dynamic_shapes of torch.onnx.export).",
    )


def _gives(module: "OnnxModule", inputs: Sequence[Tensor], expected: Tensor) -> bool:
    try:
        result = module(*inputs)
    except Exception:  # whatever a graph of another batch size trips over
        return False
    tolerance = _TOLERANCE * float(expected.abs().max())
    return result.shape == expected.shape and torch.allclose(result, expected, rtol=0.0, atol=tolerance, equal_nan=True)
