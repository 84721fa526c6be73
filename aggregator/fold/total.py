"""The weighted sum of a buffer's updates, added up in the order in which they were accepted."""

import numpy as np

from broker_topics.codecs import Decoded, Gathered, prepare
from broker_topics.layout import Vector


class Total:
    """Σ weight · update over float32[n], to the same bits however many are added in one go."""

    def __init__(self, size: int) -> None:
        self._sum: Vector = np.empty(size, dtype=np.float32)
        self._sum.fill(0.0)  # finding the memory takes the machine a while: here, not under the first update
        prepare(self._sum)
        self._gathered = Gathered(self._sum)

    def add(self, decoded: Decoded, weight: float) -> None:
        """Take in one update."""
        if not self._gathered.take(decoded, weight):
            self._gathered.flush()
            decoded.add_to(self._sum, weight)

    def vector(self) -> Vector:
        """The sum itself, not a copy: whoever has used it up may overwrite it, and then must `clear`."""
        self._gathered.flush()
        return self._sum

    def clear(self) -> None:
        """Begin the next buffer."""
        self._sum.fill(0.0)
