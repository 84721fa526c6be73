"""FedBuff: a buffer of updates, each weighed by its staleness alone.

Source:  Nguyen et al. 2022, arXiv:2106.06639.
"""

from dataclasses import dataclass

from aggregator.fold.rules.base import Arrival


@dataclass(frozen=True, slots=True, kw_only=True)
class FedBuff:
    """weight = s(τ), times the device's share where examples count; never more than w_max = K / η_g."""

    buffer_size: int
    backlog_buffer_size: int
    weight_limit: float

    def weight(self, arrival: Arrival) -> float:
        """The contribution weight of one update."""
        return min(self.weight_limit, arrival.share * arrival.freshness)
