"""What a run of the graph would take, found out without taking it: the module on device `meta`, where tensors have shapes and no content.

A file of two kilobytes can ask for a terabyte (ConstantOfShape, Expand, forty Concat nodes in a row), and neither the ONNX checker nor
ONNX Runtime minds. So every graph runs here first, under a counter that stops at a limit.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import flop_registry

from compressor.errors import CompressionError, GraphTooLarge, UnsupportedModel

# Up to here a tensor of the CPU is a shape, and is computed; beyond, it is data like any other, and only counted.
_MAX_HOST_ELEMENTS = 2**16
_MAX_ELEMENTS = 2**31


@dataclass(frozen=True)
class Cost:
    """Of one forward pass: `flops` of its products, and `bytes` of all tensors that it makes, which training keeps for the way back."""

    flops: int
    bytes: int


def measure_cost(run: Callable[[], object], max_bytes: int) -> Cost:
    """Runs a forward pass whose module and inputs are on device `meta`.

    Args:
        run: the pass.
        max_bytes: what its tensors may take together.
    Raises:
        GraphTooLarge: they would take more, or one of them has 2^31 elements; with the node.
        UnsupportedModel: a size depends on the values of the input.
    """
    with torch.random.fork_rng(devices=[]), _Meter(max_bytes) as meter:
        try:
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


class _Meter(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves its __init_subclass__ untyped
    """Adds up what the operators make. Larger tensors of the CPU are not made either, but become tensors of `meta`."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here; where torch takes care of that, it imports its compiler, which takes two seconds

    def __init__(self, max_bytes: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # as above
        self.flops = 0
        self.bytes = 0
        self._max_bytes = max_bytes

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        on_host = all(tensor.device.type == "cpu" for tensor in tensors) and str(kwargs.get("device", "cpu")) == "cpu"
        if not on_host:
            if any(tensor.device.type == "cpu" and tensor.dim() > 0 for tensor in tensors):
                args, kwargs = tree_map_only(Tensor, _to_meta, (args, kwargs))
            result = func(*args, **kwargs)
            # FlopCounterMode would do, but imports two seconds' worth of compiler.
            if (flops := flop_registry.get(func._overloadpacket)) is not None:
                self.flops += flops(*args, **kwargs, out_val=result)
            return self._counted(result, tensors)
        if func is torch.ops.aten._local_scalar_dense.default:
            return func(*args, **kwargs)
        planned = func(*tree_map_only(Tensor, _to_meta, args), **({**tree_map_only(Tensor, _to_meta, kwargs)} | _device(kwargs)))
        sizes = [leaf.numel() for leaf in tree_leaves(planned) if isinstance(leaf, Tensor)]
        if sum(sizes) > _MAX_HOST_ELEMENTS:
            return self._counted(planned, tensors)
        return func(*args, **kwargs)

    def _counted(self, result: Any, inputs: Sequence[Tensor]) -> Any:
        known = {id(tensor) for tensor in inputs}
        for leaf in tree_leaves(result):
            if not isinstance(leaf, Tensor) or id(leaf) in known or leaf._is_view():
                continue
            self.bytes += leaf.numel() * leaf.element_size()
            if self.bytes > self._max_bytes or leaf.numel() > _MAX_ELEMENTS:
                raise GraphTooLarge(
                    f"A run of the graph takes more than {self._max_bytes:,} bytes.",
                    param="model",
                    suggestion="Lower batch_size, export the model for smaller inputs, or give the trainer more memory.",
                )
        return result


def _to_meta(tensor: Tensor) -> Tensor:
    return tensor.to("meta")


def _device(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    return {"device": torch.device("meta")} if "device" in kwargs else {}


def _place(error: BaseException) -> str:
    return " ".join(getattr(error, "__notes__", []))
