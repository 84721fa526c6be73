"""Curves and bars in text, drawn with block and braille characters."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

EIGHTHS = " ▏▎▍▌▋▊▉█"
BRAILLE = 0x2800
# Bit of each dot in a braille character, by column and row from the top.
DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))


def bar(fraction: float, width: int) -> str:
    """A horizontal bar that fills `fraction` of `width` characters, to an eighth of one.

    >>> bar(0.5, 4), bar(0.0, 2), bar(9.0, 2)
    ('██  ', '  ', '██')
    """
    eighths = round(min(1.0, max(0.0, fraction)) * width * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (EIGHTHS[rest] if rest else "")).ljust(width)


def curve(points: Sequence[tuple[float, float]], *, width: int, height: int, x_max: float) -> list[str]:
    """A line through `points`, x from 0 to `x_max`, y from 0 to 1, as `height` rows of `width` characters.

    Points that lie outside are moved to the edge; nothing is drawn before the first point.

    >>> curve([(0, 0), (4, 1)], width=2, height=1, x_max=4)
    ['⡠⠊']
    """
    columns, rows = width * 2, height * 4
    dots = [(_place(x / x_max if x_max > 0 else 0.0, columns), _place(1.0 - y, rows)) for x, y in points]
    cells = [[0] * width for _ in range(height)]
    for column, row in _joined(dots):
        cells[row // 4][column // 2] |= DOTS[column % 2][row % 4]
    return ["".join(chr(BRAILLE + cell) for cell in line) for line in cells]


def _place(fraction: float, cells: int) -> int:
    return min(cells - 1, max(0, round(fraction * (cells - 1))))


def _joined(dots: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The given dots and those on straight lines between neighbours."""
    drawn = list(dots[:1])
    for (x0, y0), (x1, y1) in pairwise(dots):
        steps = max(abs(x1 - x0), abs(y1 - y0), 1)
        drawn += [(x0 + round((x1 - x0) * i / steps), y0 + round((y1 - y0) * i / steps)) for i in range(1, steps + 1)]
    return drawn


def staleness_buckets(counts: Mapping[int, int]) -> list[tuple[str, int]]:
    """Accepted updates by staleness in ranges that double: 0, 1, 2–3, 4–7, 8–15, … up to the largest seen.

    >>> staleness_buckets({0: 2, 3: 1, 9: 4})
    [('0', 2), ('1', 0), ('2–3', 1), ('4–7', 0), ('8–15', 4)]
    """
    last = max(counts, default=0).bit_length()
    totals = [0] * (last + 1)
    for staleness, count in counts.items():
        totals[staleness.bit_length()] += count
    return [(_range_name(index), total) for index, total in enumerate(totals)]


def _range_name(bits: int) -> str:
    low, high = (0, 0) if bits == 0 else (1 << (bits - 1), (1 << bits) - 1)
    return str(low) if low == high else f"{low}–{high}"


def human_bytes(count: float) -> str:
    """A number of bytes as people say it, in powers of a thousand.

    >>> human_bytes(812), human_bytes(1_530_000), human_bytes(384_000_000)
    ('812 B', '1.5 MB', '384 MB')
    """
    if count < 1000:
        return f"{count:.0f} B"
    power = min(4, int(math.log10(count)) // 3)
    value = count / 1000**power
    return f"{value:.{1 if value < 99.95 else 0}f} {('B', 'kB', 'MB', 'GB', 'TB')[power]}"


def clock(seconds: float) -> str:
    """Minutes and seconds.

    >>> clock(75.6)
    '1:15'
    """
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
