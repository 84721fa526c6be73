"""How rarely each device is heard, so that slow ones count as much as fast ones.

Asynchrony hears fast devices more often, which biases the model towards their data. The gap between a device's accepted
updates, counted in accepted updates of the whole fleet, estimates how rare it is; a weight in proportion takes the bias
out. No list of devices is needed, and one small entry each.
"""

from dataclasses import dataclass

from broker_topics.errors import RejectCode, WireError

_GAP_RATE = 0.3
_FLEET_RATE = 0.002
_FRESHNESS_RATE = 0.1
_LONGEST_GAP = 10.0

UNSEEN = 0.0
"""Gap of a device that was heard once: the fleet's own mean stands for it, as it is by then."""


@dataclass(slots=True)
class Habit:
    """What is usual for one device.

    last_arrival: number of its newest accepted update, counted over the fleet from 1.
    gap: ḡ, running mean of the accepted updates of the fleet from one of its own to the next; UNSEEN before the second.
    freshness: s̄, running mean of its staleness weights, in (0, 1].
    share: p, what it counts in the objective, ≥ 1.
    """

    last_arrival: int
    gap: float
    freshness: float
    share: int


@dataclass(slots=True)
class Fairness:
    """The fleet's own figures; with equal shares `population` and `objective` are one number, m.

    arrivals: u, accepted updates so far.
    population: running estimate of how many devices take part.
    objective: m, running mean of p ḡ over arrivals; it settles at the sum of all shares.
    clients, shares: devices remembered and the exact sum of their shares.
    """

    arrivals: int = 0
    population: float = 0.0
    objective: float = 0.0
    clients: int = 0
    shares: int = 0

    def arrive(self, habit: Habit | None, *, share: int, freshness: float) -> Habit:
        """Count one accepted update.

        Args:    habit: what was known of the device, changed in place; None at its first accepted update.
                 share: p ≥ 1. freshness: s(τ) of the update.
        Returns: the device's habit after the update.

        g = min(u − last, 10 m); ḡ ← 0.7 ḡ + 0.3 g; m ← m + 0.002 (p ḡ − m). Until its first gap is known a device has
        ḡ = m, and at its first update it raises m by its own share: m starts as the number of distinct devices seen,
        and whoever joins later disturbs the others by no more than that.
        """
        self.arrivals += 1
        if habit is None:
            self.clients += 1
            self.shares += share
            self.population += 1.0
            self.objective += share
            habit = Habit(self.arrivals, UNSEEN, freshness, share)
        else:
            gap = min(float(self.arrivals - habit.last_arrival), _LONGEST_GAP * self.population)
            habit.gap = (1.0 - _GAP_RATE) * self._gap(habit) + _GAP_RATE * gap
            habit.freshness += _FRESHNESS_RATE * (freshness - habit.freshness)
            habit.last_arrival = self.arrivals
            self.shares += share - habit.share
            habit.share = share
        gap = self._gap(habit)
        self.population += _FLEET_RATE * (gap - self.population)
        self.objective += _FLEET_RATE * (share * gap - self.objective)
        return habit

    def _gap(self, habit: Habit) -> float:
        return habit.gap or self.population

    def forget(self, habit: Habit) -> None:
        """Take a device that is no longer remembered out of the exact sums; the running means follow by themselves."""
        self.clients -= 1
        self.shares -= habit.share

    def correction(self, habit: Habit) -> float:
        """The factor p ḡ / m: about 1 on average, more for a device that is rarely heard or has a larger share."""
        return habit.share * self._gap(habit) / self.objective

    def relative_share(self, habit: Habit) -> float:
        """The share p over the mean share of all remembered devices; exactly 1 where shares are equal."""
        return habit.share * self.clients / self.shares

    def to_row(self) -> list[int | float]:
        """All figures, for the keyframe."""
        return [self.arrivals, self.population, self.objective, self.clients, self.shares]

    @classmethod
    def from_row(cls, row: object) -> "Fairness":
        """Read what `to_row` wrote; raises WireError (malformed) on anything else."""
        match row:
            case [int(arrivals), float(population), float(objective), int(clients), int(shares)]:
                return cls(arrivals, population, objective, clients, shares)
        raise WireError(RejectCode.MALFORMED, "the fleet's figures in a keyframe cannot be read")
