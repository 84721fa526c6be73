"""Many sparse vectors added to one accumulator in one go: to the same bits, in a fraction of the time for large models.

One vector after the other finds each of its places far from the processor. Block by block, all that was gathered adds
to numbers that are near; each coordinate still takes its additions in the order of the vectors.
"""

from typing import Final

import numpy as np

from broker_topics.codecs import fast
from broker_topics.codecs.base import Decoded
from broker_topics.codecs.sparse import SparseDecoded
from broker_topics.codecs.values import MAX_LEVELS
from broker_topics.layout import Vector

_MOST_VECTORS: Final = 64
_MOST_GAPS: Final = 4 * 1024 * 1024
_WORTH_BLOCKS: Final = 0.25
"""Values for each coordinate from which a block is met often enough to be fetched for all at once."""


class Gathered:
    """What waits to be added to `accumulator`, a float32[n] that has compiled loops, or nothing is ever taken."""

    def __init__(self, accumulator: Vector) -> None:
        self._accumulator = accumulator
        self._room = min(len(accumulator) // 2, _MOST_GAPS)
        self._ends = np.zeros((_MOST_VECTORS, 2), dtype=np.int64)
        self._tables = np.zeros((_MOST_VECTORS, 2 * MAX_LEVELS), dtype=np.float32)
        self._gaps: fast.Gaps = np.empty(0, dtype=np.uint8)
        self._symbols: fast.Symbols = np.empty(0, dtype=np.uint8)
        self._vectors = self._filled = self._values = 0

    def take(self, decoded: Decoded, weight: float) -> bool:
        """Copy a vector that is to be added with a weight; False where it must be added by itself, after a `flush`.

        Raises:  InvariantError: if the accumulator is not a writable float32[size].
        """
        if not isinstance(decoded, SparseDecoded) or fast.kernels_for(self._accumulator) is None:
            return False
        gaps, symbols, table = decoded.gaps, decoded.symbols, decoded.table
        if decoded.segments or len(gaps) > self._room:
            return False
        decoded.check(self._accumulator)
        full = self._vectors == _MOST_VECTORS or self._filled + len(gaps) > self._room
        if full or gaps.dtype != self._gaps.dtype:
            self.flush()
        if not len(self._symbols):
            self._symbols = np.empty(self._room, dtype=np.uint8)
        if gaps.dtype != self._gaps.dtype or not len(self._gaps):
            self._gaps = np.empty(self._room, dtype=gaps.dtype)
        self._gaps[self._filled : self._filled + len(gaps)] = gaps
        self._symbols[self._values : self._values + len(symbols)] = symbols
        np.multiply(table, np.float32(weight), out=self._tables[self._vectors, : len(table)])
        self._filled, self._values = self._filled + len(gaps), self._values + len(symbols)
        self._ends[self._vectors] = self._filled, self._values
        self._vectors += 1
        return True

    def flush(self) -> None:
        """Add all that was taken, in order."""
        kernels = fast.kernels_for(self._accumulator)
        if kernels is None or not self._vectors:
            return
        gaps, symbols = self._gaps[: self._filled], self._symbols[: self._values]
        ends, tables = self._ends[: self._vectors], self._tables[: self._vectors]
        worth_blocks = self._values >= _WORTH_BLOCKS * len(self._accumulator)
        (kernels.add_in_blocks if worth_blocks else kernels.add_gaps)(self._accumulator, gaps, ends, tables, symbols)
        self._vectors = self._filled = self._values = 0
