"""Damaged copies of a file, for the tests of every format's reader."""

from collections.abc import Iterator

import numpy as np


def mutants(data: bytes, count: int) -> Iterator[bytes]:
    """One in five is cut off; in all of them one to three bits are flipped. None is the file itself."""
    random = np.random.default_rng(0)
    while count:
        mutant = bytearray(data)
        if random.random() < 0.2:
            del mutant[random.integers(len(mutant)) :]
        for _ in range(random.integers(1, 4)):
            if mutant:
                mutant[random.integers(len(mutant))] ^= 1 << random.integers(8)
        if mutant != data:
            count -= 1
            yield bytes(mutant)
