"""How old the oldest update is that the log holds and no official record has consumed."""

import math
from collections import deque
from collections.abc import Iterable, Sequence

from broker_topics.bus import BusRecord


class LogLag:
    """Remembers when the log took in what was fetched, until the chain has passed it.

    >>> from broker_topics.bus import BusRecord
    >>> lag = LogLag(partitions=2)
    >>> lag.arrived([BusRecord(topic="t", partition=1, offset=n, key=None, value=b"", timestamp_ms=n) for n in (7, 8)])
    >>> lag.oldest_ms([0, 7]), lag.oldest_ms([0, 8]), lag.oldest_ms([0, 9])
    (7.0, 8.0, inf)
    """

    def __init__(self, partitions: int) -> None:
        self._fetched: list[deque[tuple[int, int]]] = [deque() for _ in range(partitions)]

    def arrived(self, records: Iterable[BusRecord]) -> None:
        """Take note of records in the order in which they were fetched."""
        for record in records:
            self._fetched[record.partition].append((record.offset, record.timestamp_ms))

    def oldest_ms(self, vector: Sequence[int]) -> float:
        """When the log took in the oldest fetched record that lies at or beyond `vector`; infinite if there is none."""
        oldest = math.inf
        for fetched, next_offset in zip(self._fetched, vector, strict=False):
            while fetched and fetched[0][0] < next_offset:
                fetched.popleft()
            if fetched:
                oldest = min(oldest, fetched[0][1])
        return float(oldest)
