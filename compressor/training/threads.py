"""How many threads a run is worth: a small network on many threads spends its time waiting for them."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Noisy forward pass of one batch. On two idle cores a second thread took a quarter off a step of LeNet-300-100 at batch 256 (2.7e8); where
# both cores had other work it made the step 1.6 to 3.2 times as long, since threads that wait for each other spin. LeNet-5 has 2.4e9.
_FLOPS_PER_THREAD = 4e8


def useful_threads(flops: float, available: int) -> int:
    """One thread for every 4e8 floating-point operations of a noisy forward pass, at most as many as there are."""
    return max(1, min(available, int(flops / _FLOPS_PER_THREAD)))


@contextmanager
def sensible_threads(flops: float) -> Iterator[int]:
    """Limits torch to the threads that so much work keeps busy. Counted, not timed, so that the same run does the same sums."""
    before = torch.get_num_threads()
    threads = useful_threads(flops, before)
    torch.set_num_threads(threads)
    try:
        yield threads
    finally:
        torch.set_num_threads(before)
