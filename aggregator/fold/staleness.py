"""How much an update counts that was trained from an older model: s(τ), with s(0) = 1 exactly.

Source:  Xie et al. 2019, arXiv:1903.03934; Nguyen et al. 2022, arXiv:2106.06639.
"""

import math
from collections.abc import Callable
from functools import lru_cache

from broker_topics.errors import InvariantError
from broker_topics.task import TaskSettings

StalenessWeight = Callable[[int], float]
"""s(τ), 0 < s ≤ 1, of a staleness τ ≥ 0 in versions."""

_STEPS = 1024
_BITS = 10
_REMEMBERED = 1_000


def staleness_weight(settings: TaskSettings) -> StalenessWeight:
    """The staleness weight that a task's settings choose.

    >>> staleness_weight(TaskSettings(staleness="polynomial", staleness_exponent=0.5))(3)
    0.5
    """
    if settings.staleness == "constant":
        return lambda tau: 1.0
    if settings.staleness == "hinge":
        start, slope = settings.hinge_start, settings.hinge_slope
        return lambda tau: 1.0 if tau <= start else 1.0 / (1.0 + slope * (tau - start))
    exponent = int(settings.staleness_exponent * _STEPS)
    return lru_cache(maxsize=_REMEMBERED)(lambda tau: 1.0 / power(1.0 + tau, exponent))


def power(base: float, exponent: int) -> float:
    """Raise base to exponent / 1024 by products and square roots alone: the same bits on every machine.

    Args:    base: ≥ 1. exponent: ≥ 0, in 1024ths.
    Raises:  InvariantError: outside these ranges.

    >>> power(4.0, 512), power(3.0, 2048), power(7.0, 0)
    (2.0, 9.0, 1.0)
    """
    if base < 1.0 or exponent < 0:
        raise InvariantError(f"{base} ^ ({exponent} / 1024) is outside what staleness weights need")
    whole, fraction = divmod(exponent, _STEPS)
    result = 1.0
    for _ in range(whole):
        result *= base
    root = base
    for bit in range(_BITS - 1, -1, -1):
        if not fraction & ((2 << bit) - 1):
            break
        root = math.sqrt(root)
        if fraction >> bit & 1:
            result *= root
    return result
