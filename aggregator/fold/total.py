"""The weighted sum of a buffer's updates, added up in the order in which they were accepted."""

import numpy as np

from broker_topics.codecs import Decoded, add_all, prepare
from broker_topics.layout import Vector

_TOGETHER_BYTES = 128 * 1024
"""Updates wait until so many bytes of them can be added in one go, without a turn for other threads in between; with
a megabyte of small ones the event loop was seen to wait 20 ms."""


class Total:
    """Σ weight · update over float32[n], to the same bits however many are added in one go."""

    def __init__(self, size: int) -> None:
        self._sum: Vector = np.empty(size, dtype=np.float32)
        self._sum.fill(0.0)  # finding the memory takes the machine a while: here, not under the first update
        self._waiting: list[tuple[Decoded, float]] = []
        self._waiting_bytes = 0
        prepare(self._sum)

    def add(self, decoded: Decoded, weight: float, *, size: int) -> None:
        """Take in one update of `size` bytes; what it was decoded from must not change before the next `vector`."""
        self._waiting.append((decoded, weight))
        self._waiting_bytes += size
        if self._waiting_bytes >= _TOGETHER_BYTES:
            self.vector()

    def vector(self) -> Vector:
        """The sum itself, not a copy: whoever has used it up may overwrite it, and then must `clear`."""
        add_all(self._sum, self._waiting)
        self._waiting, self._waiting_bytes = [], 0
        return self._sum

    def clear(self) -> None:
        """Begin the next buffer."""
        self._sum.fill(0.0)
