"""Elementwise functions as one loop over memory: compiled where a C++ compiler is at hand and the work is worth its seconds."""

import shutil
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from compressor.config import Prior

# Compiling took 3 to 22 s, by what else the machine did. What the loop then saves of the work operator by operator, for each element of a
# tensor that the caches do not hold, and what a call of it costs in Python; one thread.
_COMPILE_S = 20.0
_SAVED_S: dict[Prior, float] = {"ard": 4e-10, "log_uniform": 2e-9, "log_uniform_exact": 8e-9}
_CALL_S = 1.5e-4
# Each prior, dtype and number of threads is a graph of its own; sizes are not, but tensors of one element are.
_RECOMPILE_LIMIT = 64


def worth_fusing(prior: Prior, tensors: Mapping[str, Tensor], num_steps: int) -> frozenset[str]:
    """The weights whose KL gradient is to be compiled in a run of so many steps: none without a compiler, or where it does not pay.

    Counted, not timed, so that the same run does the same sums.
    """
    saved = {name: _SAVED_S[prior] * tensor.numel() - _CALL_S for name, tensor in tensors.items() if tensor.device.type == "cpu"}
    gain = num_steps * sum(max(0.0, seconds) for seconds in saved.values())
    if gain < _COMPILE_S or shutil.which("g++") is None:
        return frozenset()
    return frozenset(name for name, seconds in saved.items() if seconds > 0)


class Fused:
    """`function`, which changes tensors of one shape in place, compiled at its first call and for all sizes."""

    def __init__(self, function: Callable[..., None]) -> None:
        self._function = function
        self._compiled: Callable[..., None] | None = None
        self._has_failed = False

    def __call__(self, setting: str, *tensors: Tensor, factor: float) -> bool:
        """function(setting, *tensors, factor) over flat views, factor as a tensor of one element.

        Returns: False where nothing was done: a tensor has no flat view, or compiling has failed, which stderr is told once.
        """
        if self._has_failed or not all(tensor.is_contiguous() for tensor in tensors):
            return False
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the compiler's, of its own code
                if self._compiled is None:
                    self._compiled = _compile(self._function)
                self._compiled(setting, *(tensor.detach().view(-1) for tensor in tensors), tensors[0].new_tensor(factor))
        except Exception as error:  # of a compiler, a cache folder, an address space that is too small
            self._has_failed = True
            print(f"not compiled, goes on without: {type(error).__name__}: {str(error)[:200]}", file=sys.stderr)  # noqa: T201
            return False
        return True


def _compile(function: Callable[..., None]) -> Callable[..., None]:
    from torch import _dynamo, _inductor  # two seconds, which only a run that compiles waits for

    settings: Any = _dynamo.config
    settings.recompile_limit = max(settings.recompile_limit, _RECOMPILE_LIMIT)
    inductor: Any = _inductor.config
    inductor.compile_threads = 1  # no pool of processes for a single loop
    return torch.compile(function, dynamic=True)
