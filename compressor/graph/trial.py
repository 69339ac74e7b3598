"""The first run of an imported graph, on random rows: first without content, under a meter, then for real.

What fails, fails here, before any row of the client's is read; and only a run shows whether a fixed batch size is merely declared.
"""

import copy
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from compressor.errors import ClientError, CompressionError, InvalidModel, UnsupportedModel
from compressor.graph.content import check_count
from compressor.graph.cost import measure_cost, to_meta
from compressor.graph.meter import RunLimits
from compressor.graph.ops.table import MAX_MADE_ELEMENTS, Flow

if TYPE_CHECKING:
    from compressor.graph.module import OnnxModule, ValueSpec

TRIAL_ROWS = 3  # one and two are built into more graphs than say so
# Of these rows, for a network without parameters; and what takes two seconds of planning has thousands of operators, no two of them alike.
_LIMITS = RunLimits(2**31, live_bytes=2**29, flops=2**38, elements=2**31, seconds=2.0, remedy="Export the model for smaller inputs.")
# More for each parameter: who asks for much has brought much. Of each, a transformer makes 2**11 operations for 512 tokens, a U-Net 2**15
# for 512 x 512 pixels.
_PER_PARAMETER = RunLimits(2**10, live_bytes=2**5, flops=2**15, elements=2**8)
# A dynamic size other than the batch, such as the length of a sentence or the side of an image, is one of these, the first that runs.
_GUESSED_SIZES = (32, 64, 16, 224, 128, 8, 256, 4)
# Of the runs that look for weights that must not be zero.
_MAX_BYTES_OF_RUNS, _MAX_FLOPS_OF_RUNS = 2**30, 2**38
_BYTES_AS_LONG_AS_A_NODE = 2**14
# How far two batches may differ from each of them alone.
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Settled:
    """What the trial has shown.

    Attributes:
        example: the random rows; None where no guess of the dynamic sizes made the graph run.
        output_shape: sizes of the output behind the batch; None with the example.
        built_in_batch: the batch size that is built into the graph, so that rows must be run as many at a time; None where any is taken.
    """

    example: tuple[Tensor, ...] | None
    output_shape: tuple[int, ...] | None
    built_in_batch: int | None


def trial_limits(module: "OnnxModule", times: int = 1) -> RunLimits:
    """What a run of `times` the rows of a trial may take."""
    return _LIMITS.plus(_PER_PARAMETER.times(sum(tensor.numel() for tensor in module.parameters()))).times(times)


class Planning:
    """Runs of one graph without content, which share one limit of time."""

    def __init__(self) -> None:
        self._seconds = _LIMITS.seconds or 0.0

    @property
    def is_over(self) -> bool:
        return self._seconds <= 0

    def check(self, module: "OnnxModule", rows: Sequence[Tensor], times: int = 1) -> None:
        """Runs `module` in inference mode over tensors of the shapes of `rows`, which are `times` those of a trial.

        Raises: GraphTooLarge, UnsupportedModel, as measure_cost; whatever else the client's graph makes torch raise.
        """
        twin, without = without_content(module).eval(), to_meta(rows)
        limits = replace(trial_limits(module, times), seconds=self._seconds)
        started = time.thread_time()
        try:
            with torch.no_grad():
                measure_cost(partial(twin, *without), limits.bytes, limits, without)
        finally:
            self._seconds -= time.thread_time() - started


@torch.no_grad()
def settle(module: "OnnxModule", static_batch: int | None) -> Settled:
    """Runs `module` in inference mode, in the declared batch size or, where that is open, with a few rows.

    Raises:
        InvalidModel: the graph does not run.
        GraphTooLarge: it asks for more memory or time than these rows may take.
        UnsupportedModel: a batch size other than 1 is built into it, or a size depends on the values of the input.
    """
    training, module.training = module.training, False
    planning = Planning()
    try:
        example = _example_that_runs(module, static_batch or TRIAL_ROWS, planning)
        if example is None:
            return Settled(None, None, built_in_batch=1 if static_batch == 1 else None)
        result = _run(module, example)
        is_built_in = static_batch is not None and _is_built_in(module, example, result, static_batch, planning)
        return Settled(example, tuple(result.shape[1:]), static_batch if is_built_in else None)
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
        usual = bool(computed) and bool(_run(module, module.example).isfinite().all())
        return set(_Bisection(module, module.example).without_number(computed)) if usual else set()
    finally:
        module.training = training


class _Bisection:
    """Looks for the weights without which no number comes out: first all of them at once are zero, then halves of those that matter."""

    def __init__(self, module: "OnnxModule", example: Sequence[Tensor]) -> None:
        self._module, self._example, self._tensors = module, example, module.tensors()
        twin, without = without_content(module), to_meta(example)
        cost = measure_cost(partial(twin, *without), _LIMITS.bytes * _MAX_BYTES_OF_RUNS)
        size = cost.bytes + _BYTES_AS_LONG_AS_A_NODE * sum(module.operators.values())
        self._runs_left = max(1, min(_MAX_BYTES_OF_RUNS // size, _MAX_FLOPS_OF_RUNS // max(1, cost.flops)))

    def without_number(self, names: Sequence[str]) -> list[str]:
        """Those of `names`; all of them where to look further would take too long."""
        if not names or self._gives_numbers(names):
            return []
        if len(names) == 1:
            return list(names)
        half = len(names) // 2
        return [*self.without_number(names[:half]), *self.without_number(names[half:])]

    def _gives_numbers(self, names: Sequence[str]) -> bool:
        if self._runs_left == 0:
            return False
        self._runs_left -= 1
        values = {name: torch.zeros_like(self._tensors[name]) for name in names}
        return bool(self._module(*self._example, values=values).isfinite().all())


def without_content(module: "OnnxModule") -> "OnnxModule":
    """The module on device `meta`; what it shares with `module` is not changed by running it."""
    twin = copy.copy(module)
    # nn.Module keeps its tensors in dictionaries, which a shallow copy would share.
    twin.__dict__["_parameters"] = {name: nn.Parameter(to_meta([tensor])[0]) for name, tensor in module.named_parameters()}
    twin.__dict__["_buffers"] = {name: to_meta([tensor])[0] for name, tensor in module.named_buffers()}
    return twin


def _example_that_runs(module: "OnnxModule", rows: int, planning: Planning) -> tuple[Tensor, ...] | None:
    """Random rows of the declared sizes or, where some are open, of guessed ones; None where none of these fits.

    Raises: where sizes are open, what every one of them was refused for; a size that does not fit is no refusal.
    """
    is_dynamic = any(size is None for spec in module.inputs for size in spec.shape[1:])
    refusal: CompressionError | None = None
    misfits = 0
    for size in _GUESSED_SIZES if is_dynamic else (0,):
        if misfits and planning.is_over:
            break  # what the rows of the client show, is seen when they are there
        shapes = [(rows, *(size if given is None else given for given in spec.shape[1:])) for spec in module.inputs]
        try:
            planning.check(module, [_empty_rows(spec, shape) for spec, shape in zip(module.inputs, shapes, strict=True)])
        except ClientError as error:
            refusal = error
        except MemoryError:
            raise
        except Exception as error:  # the graph is the client's: torch may raise anything
            if not is_dynamic:
                raise does_not_run(error) from error
            misfits += 1
        else:
            return _random_rows(module.inputs, shapes)
    if refusal is not None and not misfits:
        raise refusal
    return None


def _empty_rows(spec: "ValueSpec", shape: tuple[int, ...]) -> Tensor:
    check_count("elements in a batch of the input", math.prod(shape), MAX_MADE_ELEMENTS, spec.name)
    return torch.empty(shape, dtype=spec.dtype, device="meta")


def _random_rows(inputs: Sequence["ValueSpec"], shapes: Sequence[tuple[int, ...]]) -> tuple[Tensor, ...]:
    """From a generator of their own; integers are 0 and 1, which are tokens, masks and positions alike."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for spec, shape in zip(inputs, shapes, strict=True):
        if spec.dtype.is_floating_point:
            rows.append(torch.randn(shape, generator=generator, dtype=torch.float32).to(spec.dtype))
        else:
            rows.append(torch.randint(0, 2, shape, generator=generator).to(spec.dtype))
    return tuple(rows)


def _run(module: "OnnxModule", example: Sequence[Tensor]) -> Tensor:
    try:
        result = module(*example)
    except (ClientError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise does_not_run(error) from error
    if not isinstance(result, Tensor) or result.dim() == 0:
        raise UnsupportedModel(
            f"The output {module.output.name!r} is not a tensor with a batch axis.",
            param=module.output.name,
            suggestion="Export the model with one row of scores for each row of its input.",
        )
    return result


def does_not_run(error: Exception) -> InvalidModel:
    """What is raised in place of an error of torch's."""
    where = " ".join(getattr(error, "__notes__", []))
    return InvalidModel(
        f"The graph does not run on random rows of its declared shape: {str(error)[:300]} {where}",
        param="model",
        suggestion="Check that the file runs in ONNX Runtime on one batch of the declared input shapes.",
    )


def _is_built_in(module: "OnnxModule", first: Sequence[Tensor], result: Tensor, batch: int, planning: Planning) -> bool:
    """Whether no other batch size runs as it is, but batches of this one, which the module is left with, do."""
    second = [tensor.flip(-1) if tensor.is_floating_point() else (1 - tensor.long()).to(tensor.dtype) for tensor in first]
    joined = [torch.cat(pair) for pair in zip(first, second, strict=True)]
    expected = torch.cat([result, _run(module, second)])
    if _gives(module, joined, expected, planning):
        return False
    module.built_in_batch = batch
    if len(result) == batch and _gives(module, joined, expected, planning):
        return True
    raise UnsupportedModel(
        f"The batch size {batch} is built into the graph, which does not run batch by batch either.",
        param=module.inputs[0].name,
        suggestion="Export the model with a dynamic batch size (dynamic_shapes of torch.onnx.export).",
    )


def _gives(module: "OnnxModule", inputs: Sequence[Tensor], expected: Tensor, planning: Planning) -> bool:
    try:
        planning.check(module, inputs, times=2)
        result = module(*inputs)
    except Exception:  # whatever a graph of another batch size trips over
        return False
    tolerance = _TOLERANCE * float(expected[expected.isfinite()].abs().amax()) if expected.isfinite().any() else 0.0
    return result.shape == expected.shape and torch.allclose(result, expected, rtol=0.0, atol=tolerance, equal_nan=True)
