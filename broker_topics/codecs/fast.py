"""Compiled inner loops for large vectors, where the extra `fast` is installed; the same bits as numpy's.

numba is imported, and the loops are compiled or read from numba's cache, when the first large vector comes: that takes
about two seconds, once a process. Nothing here may change a result: every element is rounded to float32 after each
operation, in numpy's order, so devices and replays with and without the extra agree.
"""

import threading
from collections.abc import Callable
from functools import cache
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from broker_topics.layout import Vector

LEAST: Final = 65_536
"""Smaller vectors stay with numpy: there is too little to gain for loading a compiler."""

BLOCK: Final = 256
"""Numbers that share one scale, as in the int8 codec."""

NEAR: Final = 32_768
"""Numbers of an accumulator that stay near the processor while many vectors add to them."""

_deferred = threading.Event()

Int8s = npt.NDArray[np.int8]
Gaps = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
Symbols = npt.NDArray[np.uint8]
Ends = npt.NDArray[np.int64]
Counts = npt.NDArray[np.int64]
Groups = npt.NDArray[np.uint16] | npt.NDArray[np.uint32] | npt.NDArray[np.uint64]
Tables = npt.NDArray[np.float32]


class Kernels(NamedTuple):
    """The compiled loops. Those that add check no bounds: only checked vectors may come there. They release the GIL.

    add_int8(accumulator, numbers, scales, weight): accumulator[i] += number[i] · scale[i // 256] · weight.
    add_gaps(accumulator, gaps, ends, tables, symbols): for one vector v after the other, accumulator[place] +=
    tables[v, symbol] along its gaps, of either width; its gaps end at ends[v, 0], its symbols at ends[v, 1].
    add_in_blocks: the same, of all vectors block by block of the accumulator.
    look(gaps): how many of them carry a value, and the sum of all.
    look_up(table, numbers, found): found[i] = table[number[i]], of a table with 256 rows.
    levels(symbols, counts): counts[level] = how many of them have it; False if one lies beyond.
    The last three are too short to hand the GIL to others.
    """

    add_int8: Callable[[Vector, Int8s, Vector, np.float32], None]
    add_gaps: Callable[[Vector, Gaps, Ends, Tables, Symbols], None]
    add_in_blocks: Callable[[Vector, Gaps, Ends, Tables, Symbols], None]
    look: Callable[[Gaps], tuple[int, int]]
    look_up: Callable[[Groups, Symbols, Groups], None]
    levels: Callable[[Symbols, Counts], bool]


def kernels_for(accumulator: Vector) -> Kernels | None:
    """The loops that can add to this float32[n], or None where numpy has to: small, strided, or without numba."""
    return kernels_of_size(len(accumulator)) if accumulator.flags.carray else None


def kernels_of_size(size: int) -> Kernels | None:
    """The loops for vectors of so many numbers, or None where numpy has to: small, without numba, or deferred."""
    return None if size < LEAST or _deferred.is_set() else load_kernels()


def defer_kernels() -> None:
    """Leave all vectors to numpy until `load_deferred`: for a process that has something more urgent to do."""
    _deferred.set()


def load_deferred(size: int) -> None:
    """Load what was deferred, if vectors of this size are large enough for it."""
    if size >= LEAST:
        load_kernels()
        _deferred.clear()


@cache
def load_kernels() -> Kernels | None:
    """The loops, loaded if they are not yet; None without numba. Other threads hardly get a turn meanwhile."""
    try:
        import numba
    except ImportError:  # absent, or not made for this numpy
        return None
    try:
        return _compile(numba, keep=True)
    except (RuntimeError, OSError):  # no folder to keep the machine code in, as in a read-only container
        return _compile(numba, keep=False)


def _compile(numba: Any, *, keep: bool) -> Kernels:
    """Compile for exactly these types, so that nothing is ever compiled in the midst of adding."""

    def read(kind: Any) -> Any:
        return numba.types.Array(kind, 1, "C", readonly=True)

    def array(kind: Any) -> Any:
        return numba.types.Array(kind, 1, "C")

    sums, numbers = array(numba.float32), read(numba.float32)
    groups = numba.uint16, numba.uint32, numba.uint64
    void, jit = numba.void, numba.njit
    dense = void(sums, read(numba.int8), numbers, numba.float32)
    bytes_ = read(numba.uint8)
    widths = [bytes_, read(numba.uint16)]
    tables = numba.types.Array(numba.float32, 2, "C", readonly=True)
    ends = numba.types.Array(numba.int64, 2, "C", readonly=True)
    sparse = [void(sums, gaps, ends, tables, bytes_) for gaps in widths]
    two_counts = numba.types.UniTuple(numba.int64, 2)
    return Kernels(
        add_int8=jit(dense, cache=keep, nogil=True)(_add_int8),
        add_gaps=jit(sparse, cache=keep, nogil=True)(_add_gaps),
        add_in_blocks=jit(sparse, cache=keep, nogil=True)(_add_in_blocks),
        look=jit([two_counts(gaps) for gaps in widths], cache=keep)(_look),
        look_up=jit([void(read(kind), bytes_, array(kind)) for kind in groups], cache=keep)(_look_up),
        levels=jit(numba.boolean(bytes_, array(numba.int64)), cache=keep)(_levels),
    )


def _add_int8(accumulator: Vector, numbers: Int8s, scales: Vector, weight: np.float32) -> None:
    for block in range(len(scales)):
        row = accumulator[block * BLOCK : (block + 1) * BLOCK]  # slices of a row are what the compiler vectorises
        part = numbers[block * BLOCK : (block + 1) * BLOCK]
        scale = scales[block]
        for index in range(len(row)):
            row[index] += np.float32(part[index]) * scale * weight


def _add_gaps(accumulator: Vector, gaps: Gaps, ends: Ends, tables: Tables, symbols: Symbols) -> None:
    skip = np.uint64(2 ** (8 * gaps.itemsize) - 1)
    value = np.uint64(0)  # unsigned: no test for counting from the end
    first = 0
    for vector in range(len(ends)):
        table, own = tables[vector], gaps[first : ends[vector, 0]]
        place = np.uint64(0)
        for index in range(len(own)):
            gap = np.uint64(own[index])
            place += gap
            if gap != skip:
                accumulator[place] += table[symbols[value]]
                place += np.uint64(1)
                value += np.uint64(1)
        first = ends[vector, 0]


def _add_in_blocks(accumulator: Vector, gaps: Gaps, ends: Ends, tables: Tables, symbols: Symbols) -> None:
    skip = np.uint64(2 ** (8 * gaps.itemsize) - 1)
    next_gap, next_value = np.zeros(len(ends), np.uint64), np.zeros(len(ends), np.uint64)
    next_place = np.zeros(len(ends), np.uint64)
    for vector in range(1, len(ends)):
        next_gap[vector], next_value[vector] = ends[vector - 1, 0], ends[vector - 1, 1]
    block_end = np.uint64(0)
    while block_end < len(accumulator):
        block_end += np.uint64(NEAR)
        for vector in range(len(ends)):
            table, end = tables[vector], np.uint64(ends[vector, 0])
            index, place, value = next_gap[vector], next_place[vector], next_value[vector]
            while index < end:
                gap = np.uint64(gaps[index])
                if gap == skip:
                    place += gap
                elif place + gap >= block_end:
                    break
                else:
                    accumulator[place + gap] += table[symbols[value]]
                    place += gap + np.uint64(1)
                    value += np.uint64(1)
                index += np.uint64(1)
            next_gap[vector], next_place[vector], next_value[vector] = index, place, value


def _look(gaps: Gaps) -> tuple[int, int]:
    skip = 2 ** (8 * gaps.itemsize) - 1
    with_value = total = 0
    for index in range(len(gaps)):
        gap = gaps[index]
        with_value += gap != skip
        total += gap
    return with_value, total


def _look_up(table: Groups, numbers: Symbols, found: Groups) -> None:
    for index in range(len(numbers)):
        found[index] = table[numbers[index]]


def _levels(symbols: Symbols, counts: Counts) -> bool:
    reached = len(symbols)
    for level in range(len(counts)):
        least = np.uint8(2 * level + 2)
        above = 0
        for index in range(len(symbols)):  # level by level: a loop that the compiler vectorises
            above += symbols[index] >= least
        counts[level] = reached - above
        reached = above
        if not above:
            return True
    return False
