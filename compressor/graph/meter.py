"""A mode of torch in which operators are planned and counted before they run, and only small ones of the CPU do run.

Everything else becomes a tensor of device `meta`: a shape without content.
"""

import math
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import flop_registry

from compressor.errors import GraphTooLarge
from compressor.graph.content import MAX_ELEMENTS
from compressor.graph.ops.table import MAX_PARTS
from compressor.graph.workspace import convolution_bytes, pooled_elements, work

# Up to here a tensor of the CPU is a shape, and is computed; beyond, it is data like any other, and only counted.
MAX_HOST_ELEMENTS = 2**16
_MAX_HOST_BYTES = 2**27  # of all of these together
_MAX_RANK = 64  # more, torch cannot compute with; and ONNX Runtime takes fewer
_MAX_REMEMBERED = 2**13

_ATEN = torch.ops.aten
# What depends on the content of a tensor, which only those of the CPU have.
_READ_CONTENT = (_ATEN._local_scalar_dense.default, _ATEN.nonzero.default)


@dataclass(frozen=True)
class RunLimits:
    """What a run may take. None: as much as it likes.

    Attributes:
        bytes: of all tensors that it makes.
        live_bytes: of those that are held at the same time, and of what a convolution needs beside them.
        flops: of its products.
        elements: that its other operators read and write.
        seconds: of the processor's time that planning it takes, which is under a millisecond for an operator.
        remedy: what to do where it is more.
    """

    bytes: int
    live_bytes: int | None = None
    flops: int | None = None
    elements: int | None = None
    seconds: float | None = None
    remedy: str = "Lower batch_size, export the model for smaller inputs, or give the trainer more memory."

    def times(self, factor: int) -> "RunLimits":
        """The limits of as many times the rows, in the same time."""
        return self._changed(self, lambda own, _: own * factor)

    def plus(self, other: "RunLimits") -> "RunLimits":
        """Both limits together, in the time of this one."""
        return self._changed(other, lambda own, others: own + others)

    def _changed(self, other: "RunLimits", change: Callable[[int, int], int]) -> "RunLimits":
        def changed(own: int | None, others: int | None) -> int | None:
            return None if own is None or others is None else change(own, others)

        return RunLimits(
            change(self.bytes, other.bytes),
            changed(self.live_bytes, other.live_bytes),
            changed(self.flops, other.flops),
            changed(self.elements, other.elements),
            self.seconds,
            self.remedy,
        )


@dataclass(frozen=True, slots=True)
class _Plan:
    """What a call takes, and what it gives: tensors of device meta in the structure of its result, None where it is not to be repeated."""

    like: Any
    flops: int
    elements: int
    workspace: int


class Meter(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves its __init_subclass__ untyped
    """Adds up what the operators take, and stops at a limit.

    Views are counted as if they were copies: in ONNX Runtime, which runs the same graph, they are.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here; where torch takes care of that, it imports its compiler, which takes two seconds

    def __init__(self, limits: RunLimits) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # as above
        self.flops = self.bytes = self.elements = 0
        self._limits = limits
        self._live_bytes = self._host_bytes = 0
        self._alive: dict[weakref.ref[Tensor], int] = {}
        self._plans: dict[Any, _Plan] = {}
        self._started = time.thread_time()

    def add(self, tensors: Iterable[Tensor]) -> None:
        """Counts tensors that exist before the run, such as its inputs."""
        for tensor in tensors:
            self._add(tensor, ())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [*_tensors(args), *_tensors(kwargs.values())]
        self._check_before(func, args)
        on_host = all(tensor.device.type == "cpu" for tensor in tensors) and str(kwargs.get("device", "cpu")) == "cpu"
        if on_host and func in _READ_CONTENT:
            result = func(*args, **kwargs)
            for leaf in _tensors((result,)):
                self._add(leaf, ())
            return result
        meta_args, meta_kwargs = (args, kwargs) if not any(map(_has_content, tensors)) else tree_map_only(Tensor, _to_meta, (args, kwargs))
        if on_host and "device" in kwargs:
            meta_kwargs = {**meta_kwargs, "device": torch.device("meta")}
        plan, result = self._plan(func, meta_args, meta_kwargs)
        self._count(plan)
        if on_host and sum(leaf.numel() for leaf in _tensors((result,))) <= MAX_HOST_ELEMENTS:
            result = func(*args, **kwargs)
        known = {id(tensor) for tensor in tensors}
        kept = tensors if _gives_views(func) else ()
        for leaf in _tensors((result,)):
            if id(leaf) not in known:
                self._add(leaf, kept)
        return result

    def _plan(self, func: Any, args: Any, kwargs: Any) -> tuple[_Plan, Any]:
        """The plan of a call whose tensors are without content, and its result. A layer that comes again is not planned again."""
        key = None if _writes(func) or _gives_views(func) else (func, *_described(args), *_described(kwargs.items()))
        plan = self._plans.get(key)
        if plan is not None:
            return plan, _made_anew(plan.like)
        result = func(*args, **kwargs)
        # FlopCounterMode would do, but imports two seconds' worth of compiler.
        count_flops = flop_registry.get(func._overloadpacket)
        flops = 0 if count_flops is None else int(count_flops(*args, **kwargs, out_val=result))
        tensors = [*_tensors(args), *_tensors(kwargs.values()), *_tensors((result,))]
        elements = 0 if flops or _gives_views(func) else sum(tensor.numel() for tensor in tensors) + pooled_elements(func, args, result)
        elements *= work(func, args)
        # Not what goes out, whose life is counted.
        plan = _Plan(None if key is None else _made_anew(result), flops, elements, convolution_bytes(func, args, result))
        if key is not None and len(self._plans) < _MAX_REMEMBERED:
            self._plans[key] = plan
        return plan, result

    def _check_before(self, func: Any, args: Sequence[Any]) -> None:
        parts = _count_parts(func, args)
        if parts > MAX_PARTS:
            self._refuse(f"cuts a tensor into {parts:,} parts; at most {MAX_PARTS:,} are taken")
        if self._limits.seconds is not None and time.thread_time() - self._started > self._limits.seconds:
            self._refuse("has too many operators: it takes too long to be planned")

    def _count(self, plan: _Plan) -> None:
        limits = self._limits
        self.flops += plan.flops
        self.elements += plan.elements
        if limits.flops is not None and self.flops > limits.flops:
            self._refuse(f"takes more than {limits.flops:,} floating-point operations")
        if limits.elements is not None and self.elements > limits.elements:
            self._refuse(f"reads and writes more than {limits.elements:,} elements")
        if limits.live_bytes is not None and self._live_bytes + plan.workspace > limits.live_bytes:
            self._refuse(f"takes more than {limits.live_bytes:,} bytes at a time")

    def _add(self, tensor: Tensor, viewed: Sequence[Tensor]) -> None:
        size = tensor.numel() * tensor.element_size()
        if tensor.dim() > _MAX_RANK:
            self._refuse(f"makes a tensor of {tensor.dim()} dimensions")
        self.bytes += size
        self._host_bytes += size if _has_content(tensor) else 0
        if self._host_bytes > _MAX_HOST_BYTES:
            self._refuse(f"makes shapes and numbers of more than {_MAX_HOST_BYTES:,} bytes")
        if self.bytes > self._limits.bytes or tensor.numel() > MAX_ELEMENTS:
            self._refuse(f"takes more than {self._limits.bytes:,} bytes")
        if self._limits.live_bytes is None:
            return
        self._live_bytes += size
        self._alive[weakref.ref(tensor, self._forget)] = size
        tensor._viewed = viewed  # type: ignore[attr-defined]  # a view of meta would not keep alive what it is a view of
        if self._live_bytes > self._limits.live_bytes:
            self._refuse(f"takes more than {self._limits.live_bytes:,} bytes at a time")

    def _forget(self, reference: "weakref.ref[Tensor]") -> None:
        self._live_bytes -= self._alive.pop(reference)

    def _refuse(self, what: str) -> NoReturn:
        raise GraphTooLarge(f"A run of the graph {what}.", param="model", suggestion=self._limits.remedy)


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """Those among the arguments of an operator, or in its lists."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _has_content(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu"


def _to_meta(tensor: Tensor) -> Tensor:
    return tensor.to("meta")


def _described(values: Iterable[Any]) -> Iterator[Any]:
    """What the shape of a result may depend on, as something that can be compared. 1, 1.0 and True are not the same."""
    for value in values:
        if isinstance(value, Tensor):
            yield value.shape, value.stride(), value.dtype, value.device
        elif isinstance(value, list | tuple):
            yield tuple(_described(value))
        else:
            yield type(value), value


def _made_anew(result: Any) -> Any:
    if isinstance(result, Tensor):
        return torch.empty_strided(result.shape, result.stride(), dtype=result.dtype, device="meta")
    return type(result)(map(_made_anew, result)) if isinstance(result, list | tuple) else result


_views: dict[Any, bool] = {}


def _gives_views(func: Any) -> bool:
    found = _views.get(func)
    if found is None:
        found = _views[func] = any(value.alias_info is not None for value in func._schema.returns)
    return found


def _writes(func: Any) -> bool:
    return bool(func._schema.is_mutable)


# How many parts an operator cuts its first argument into; the axis is the last argument.
_PARTS: Mapping[Any, Callable[[Sequence[Any]], int]] = {
    _ATEN.unbind.int: lambda args: args[0].shape[args[1] if len(args) > 1 else 0] if args[0].dim() else 0,
    _ATEN.split.Tensor: lambda args: math.ceil(args[0].shape[args[2] if len(args) > 2 else 0] / max(args[1], 1)),
    _ATEN.split_with_sizes.default: lambda args: len(args[1]),
}


def _count_parts(func: Any, args: Sequence[Any]) -> int:
    count = _PARTS.get(func)
    return 0 if count is None else count(args)
