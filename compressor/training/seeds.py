"""Seeds of the loops: each a function of the run's seed and of what it is for, so that no state of a generator is ever stored."""

import hashlib


def derive_seed(*parts: int | str) -> int:
    """A seed in [0, 2**63) that is different for different parts, and the same for the same ones on every machine."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:8], "big") >> 1
