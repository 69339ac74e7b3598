"""How many threads a run is worth: a small network on many threads spends its time waiting for them."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from compressor.training.rows import Rows

# Forward pass of one batch. On two idle cores a second thread took a quarter off a step of LeNet-300-100 at batch 256 (1.4e8); where both
# cores had other work it made the step 1.6 to 3.2 times as long, since threads that wait for each other spin. LeNet-5 has 1.2e9.
_FLOPS_PER_THREAD = 2e8


def useful_threads(flops: float, available: int) -> int:
    """One thread for every 2e8 floating-point operations of a batch, at most as many as there are."""
    return max(1, min(available, int(flops / _FLOPS_PER_THREAD)))


@contextmanager
def sensible_threads(module: nn.Module, rows: Rows, batch_size: int) -> Iterator[int]:
    """Limits torch to the threads that a batch of this size keeps busy. Counted, not timed, so that the same run does the same sums."""
    before = torch.get_num_threads()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(*rows.take(slice(0, batch_size))[0])
    threads = useful_threads(counter.get_total_flops(), before)
    torch.set_num_threads(threads)
    try:
        yield threads
    finally:
        torch.set_num_threads(before)
