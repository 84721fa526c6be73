"""FedAsync in delta form: every update is a server step of its own.

Source:  Xie, Koyejo, Gupta 2019, arXiv:1903.03934; x ← x + α s(τ) Δ, which needs no ring of old models.
"""

from dataclasses import dataclass

from aggregator.fold.rules.base import Arrival


@dataclass(frozen=True, slots=True, kw_only=True)
class FedAsync:
    """weight = α s(τ), times the device's share where examples count; K is 1, also in a backlog."""

    mixing: float
    weight_limit: float

    @property
    def buffer_size(self) -> int:
        """One update, one step."""
        return 1

    @property
    def backlog_buffer_size(self) -> int:
        """One update, one step: a mean of many would be another rule."""
        return 1

    def weight(self, arrival: Arrival) -> float:
        """The contribution weight of one update."""
        return min(self.weight_limit, self.mixing * arrival.share * arrival.freshness)
