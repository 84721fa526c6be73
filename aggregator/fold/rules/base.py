"""What a server rule is: how many updates make a step, and what each of them weighs."""

from typing import NamedTuple, Protocol


class Arrival(NamedTuple):
    """What a rule may know of an accepted update.

    correction: p ḡ / m, how rarely its device is heard, times its share; about 1 on average.
    share: p over the fleet's mean share; 1 where every device counts the same.
    freshness: s(τ) in (0, 1].
    usual_freshness: s̄, the running mean of s over the device's accepted updates, this one included.
    work: normalised trainings contained, ≥ 1.
    """

    correction: float
    share: float
    freshness: float
    usual_freshness: float
    work: float


class Rule(Protocol):
    """A server rule: x moves by (1 / max(K, count)) Σ weight · delta, times the server learning rate."""

    @property
    def buffer_size(self) -> int:
        """K: accepted updates to a server step; the divisor is never less."""

    @property
    def backlog_buffer_size(self) -> int:
        """Most updates that one step may take while more than K wait in the log."""

    @property
    def weight_limit(self) -> float:
        """w_max: no update moves x by more than its own step."""

    def weight(self, arrival: Arrival) -> float:
        """What multiplies the delta, 0 < weight ≤ weight_limit."""
