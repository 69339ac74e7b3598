"""When a message that has not arrived is sent again."""

import random
from collections.abc import Callable, Sequence

# Seconds from each failed attempt to the next: the specification's 5 s, 5 min, 30 min, 2, 5, 10, 14, 20 and 24 hours. The first attempt is
# made at once.
SCHEDULE_S = (5.0, 300.0, 1800.0, 7200.0, 18000.0, 36000.0, 50400.0, 72000.0, 86400.0)
# Receivers that were away together must not all be asked again in the same second.
JITTER = (0.9, 1.1)
MAX_RETRY_AFTER_S = 86400.0


def next_delay_s(
    schedule_s: Sequence[float], failed: int, retry_after_s: float | None, uniform: Callable[[float, float], float] = random.uniform
) -> float | None:
    """Seconds from the failure of attempt number `failed` to the next attempt; None where that was the last.

    What a receiver asks for with Retry-After is a lower bound.
    """
    if failed > len(schedule_s):
        return None
    return max(schedule_s[failed - 1] * uniform(*JITTER), min(retry_after_s or 0.0, MAX_RETRY_AFTER_S))
