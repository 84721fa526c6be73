"""How rarely a device is heard is estimated from the gaps between its updates alone."""

import pytest

from aggregator.fold.fairness import Fairness, Habit
from broker_topics.errors import WireError


def test_the_fleet_is_as_many_devices_as_were_heard() -> None:
    fairness = Fairness()
    for _ in range(7):
        fairness.arrive(None, share=1, freshness=1.0)
    assert (fairness.population, fairness.objective, fairness.clients, fairness.shares) == (7.0, 7.0, 7, 7)


def test_with_equal_shares_both_means_are_one_number() -> None:
    fairness = Fairness()
    habits: list[Habit | None] = [None] * 5
    for arrival in range(1000):
        which = arrival * arrival % 5 if arrival % 3 else 0
        habits[which] = fairness.arrive(habits[which], share=1, freshness=1.0)
        assert fairness.population == fairness.objective


def test_a_gap_is_the_count_of_the_fleets_updates_between_two_of_a_device() -> None:
    fairness = Fairness()
    slow = fairness.arrive(None, share=1, freshness=1.0)
    fast = fairness.arrive(None, share=1, freshness=1.0)
    for _ in range(3):
        fairness.arrive(fast, share=1, freshness=1.0)
    before = fairness.population
    fairness.arrive(slow, share=1, freshness=1.0)
    assert slow.gap == pytest.approx(0.7 * before + 0.3 * 5)
    assert slow.last_arrival == 6


def test_a_fleet_heard_in_turn_has_no_transient() -> None:
    """Whoever came first must not weigh less for having come when the fleet seemed small."""
    fairness, habits = Fairness(), []
    for _ in range(10):
        habits.append(fairness.arrive(None, share=1, freshness=1.0))
    for _ in range(3):
        for habit in habits:
            fairness.arrive(habit, share=1, freshness=1.0)
            assert fairness.correction(habit) == 1.0


def test_a_device_that_is_forgotten_leaves_the_exact_sums() -> None:
    fairness = Fairness()
    kept = fairness.arrive(None, share=30, freshness=1.0)
    fairness.forget(fairness.arrive(None, share=90, freshness=1.0))
    assert (fairness.clients, fairness.shares, fairness.relative_share(kept)) == (1, 30, 1.0)


def test_a_changed_share_counts_from_then_on() -> None:
    fairness = Fairness()
    first = fairness.arrive(None, share=10, freshness=1.0)
    second = fairness.arrive(None, share=10, freshness=1.0)
    fairness.arrive(first, share=30, freshness=1.0)
    assert (fairness.relative_share(first), fairness.relative_share(second)) == (1.5, 0.5)


def test_a_row_comes_back_as_the_same_figures() -> None:
    fairness = Fairness()
    fairness.arrive(fairness.arrive(None, share=3, freshness=1.0), share=3, freshness=0.5)
    assert Fairness.from_row(fairness.to_row()) == fairness
    with pytest.raises(WireError):
        Fairness.from_row([1, 2, 3])
