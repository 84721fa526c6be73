"""Space-Saving finds the heaviest keys in bounded memory."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_topics.errors import InvariantError
from monitoring.topk import SpaceSaving

STREAMS = st.lists(st.tuples(st.sampled_from([f"w-{n}" for n in range(20)]), st.integers(0, 9)), max_size=200)


@given(stream=STREAMS, capacity=st.integers(1, 12))
def test_true_weight_lies_between_the_bounds_and_no_heavy_key_is_missed(
    stream: list[tuple[str, int]], capacity: int
) -> None:
    top, truth = SpaceSaving(capacity=capacity), Counter[str]()
    for key, weight in stream:
        top.add(key, weight)
        truth[key] += weight

    kept = {heavy.key: heavy for heavy in top}
    assert len(kept) <= capacity
    for key, heavy in kept.items():
        assert heavy.weight - heavy.error <= truth[key] <= heavy.weight
    for key, weight in truth.items():
        if weight * capacity > truth.total():
            assert key in kept


def test_a_million_names_take_the_room_of_fifty() -> None:
    top = SpaceSaving(capacity=50)
    for number in range(20_000):
        top.add(f"w-{number}", 1)
        if number % 10 == 0:
            top.add("slow", 30)
    assert len(top) == 50
    assert len(top._least) == 50
    assert top.top(1)[0].key == "slow"
    assert top.top(1)[0].weight == 60_000


def test_equal_weights_are_ordered_by_key() -> None:
    top = SpaceSaving(capacity=3)
    for key in ("c", "a", "b"):
        top.add(key, 2)
    assert [heavy.key for heavy in top.top(2)] == ["a", "b"]


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_a_weight_that_is_none_is_refused(weight: float) -> None:
    with pytest.raises(InvariantError):
        SpaceSaving(capacity=1).add("a", weight)
