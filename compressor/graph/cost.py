"""What a run of the graph would take, found out without taking it: the module on device `meta`, where tensors have shapes and no content.

A file of two kilobytes can ask for a terabyte (ConstantOfShape, Expand, forty Concat nodes in a row), and neither the ONNX checker nor
ONNX Runtime minds. So every graph runs here first, under a meter that stops at a limit.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from compressor.errors import CompressionError, GraphTooLarge, UnsupportedModel
from compressor.graph.meter import Meter, RunLimits


@dataclass(frozen=True)
class Cost:
    """Of one forward pass: `flops` of its products, and `bytes` of all tensors that it makes, which training keeps for the way back."""

    flops: int
    bytes: int


def measure_cost(run: Callable[[], object], max_bytes: int, limits: RunLimits | None = None, inputs: Iterable[Tensor] = ()) -> Cost:
    """Runs a forward pass whose module and inputs are on device `meta`.

    Args:
        run: the pass.
        max_bytes: what its tensors may take together.
        limits: other limits, in place of that one.
        inputs: tensors that are counted with those that the pass makes.
    Raises:
        GraphTooLarge: it would take more, or one of its tensors has 2^31 elements; with the node.
        UnsupportedModel: a size depends on the values of the input.
    """
    with torch.random.fork_rng(devices=[]), Meter(limits or RunLimits(max_bytes)) as meter:
        try:
            meter.add(inputs)
            run()
        except CompressionError as error:
            if isinstance(error, GraphTooLarge) and (place := _place(error)):
                raise GraphTooLarge(f"{error.detail} ({place})", param=error.param, suggestion=error.suggestion) from None
            raise
        except (NotImplementedError, RuntimeError) as error:
            if "meta" not in str(error):
                raise
            raise UnsupportedModel(
                f"A size in the graph depends on the values of its input ({_place(error)}).",
                param="model",
                suggestion="Export the model without data-dependent shapes (no NonZero, no boolean masks).",
            ) from error
    return Cost(flops=meter.flops, bytes=meter.bytes)


def to_meta(tensors: Mapping[str, Tensor] | Sequence[Tensor]) -> Any:
    """The same tensors without their content, in the same container."""
    return tree_map_only(Tensor, lambda tensor: torch.empty_like(tensor, device="meta"), tensors)


def _place(error: BaseException) -> str:
    return " ".join(getattr(error, "__notes__", []))
