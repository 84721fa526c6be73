"""The heaviest keys of an endless stream in bounded memory, for instance the devices that lag most."""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

from broker_topics.errors import InvariantError


@dataclass(frozen=True, slots=True, kw_only=True)
class Heavy:
    """One heavy key: its true weight lies between `weight - error` and `weight`."""

    key: str
    weight: float
    error: float


class SpaceSaving:
    """Keeps `capacity` keys; a key with more than 1/capacity of the total weight is always among them.

    >>> top = SpaceSaving(capacity=2)
    >>> for device, late in [("slow", 9.0), ("a", 1.0), ("b", 1.0), ("slow", 8.0)]:
    ...     top.add(device, late)
    >>> [(heavy.key, heavy.weight, heavy.error) for heavy in top.top(2)]
    [('slow', 17.0, 0.0), ('b', 2.0, 1.0)]

    Source: Metwally, Agrawal, El Abbadi 2005, "Efficient computation of frequent and top-k elements in data streams",
    in its weighted form.
    """

    def __init__(self, *, capacity: int) -> None:
        if capacity < 1:
            raise InvariantError(f"capacity {capacity}: at least one key must be kept")
        self.capacity = capacity
        self._kept: dict[str, tuple[float, float]] = {}
        # Lower bounds of the kept weights: an entry is brought up to date only when it is the least.
        self._least: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, key: str, weight: float = 1.0) -> None:
        """Add `weight` >= 0 to a key; a new key takes the place of the lightest one when all places are taken."""
        if not 0.0 <= weight < float("inf"):
            raise InvariantError(f"weight {weight} of {key}: must be finite and not negative")
        if key in self._kept:
            known, error = self._kept[key]
            self._kept[key] = (known + weight, error)
            return
        inherited = self._drop_lightest() if len(self._kept) == self.capacity else 0.0
        self._kept[key] = (inherited + weight, inherited)
        heapq.heappush(self._least, (inherited + weight, key))

    def top(self, k: int) -> list[Heavy]:
        """The `k` heaviest keys, heaviest first, equal ones by key; may be called from another thread."""
        chosen = heapq.nsmallest(k, list(self._kept.items()), key=lambda item: (-item[1][0], item[0]))
        return [Heavy(key=key, weight=weight, error=error) for key, (weight, error) in chosen]

    def __iter__(self) -> Iterator[Heavy]:
        return iter(self.top(len(self._kept)))

    def _drop_lightest(self) -> float:
        while True:
            bound, key = self._least[0]
            weight, _ = self._kept[key]
            if bound == weight:
                heapq.heappop(self._least)
                del self._kept[key]
                return weight
            heapq.heapreplace(self._least, (weight, key))
