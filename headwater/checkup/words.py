"""Times and counts as people say them."""

import math


def span(seconds: float) -> str:
    """A length of time in one unit.

    >>> [span(0.4), span(75), span(5400), span(7 * 86400.0), span(float("inf"))]
    ['0.4 s', '75 s', '90 min', '7 d', 'for ever']
    """
    if math.isinf(seconds):
        return "for ever"
    if seconds < 10:
        return f"{max(0.0, seconds):.1f} s"
    for limit, unit, length in ((120, "s", 1), (7200, "min", 60), (172_800, "h", 3600)):
        if seconds < limit:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"


def many(count: int, noun: str) -> str:
    """A count with its noun.

    >>> many(1, "update"), many(1200, "update")
    ('1 update', '1,200 updates')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
