"""The default: buffered updates, each weighed by how rarely its device is heard and how stale it is for that device."""

from dataclasses import dataclass

from aggregator.fold.rules.base import Arrival


@dataclass(frozen=True, slots=True, kw_only=True)
class Buffered:
    """w = min(w_max, p ḡ / (m · work)), times s / s̄ of the device; clipped to w_max = K / η_g at the end.

    An update staler than is usual for its device counts less; a device that is always slow is not punished for it.
    `relative` off multiplies by s itself, which brings back part of the bias against slow devices.
    """

    buffer_size: int
    backlog_buffer_size: int
    weight_limit: float
    relative: bool

    def weight(self, arrival: Arrival) -> float:
        """The contribution weight of one update."""
        weight = min(self.weight_limit, arrival.correction / arrival.work)
        freshness = arrival.freshness / arrival.usual_freshness if self.relative else arrival.freshness
        return min(self.weight_limit, weight * freshness)
