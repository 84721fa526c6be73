"""The rules of a Lease, one contender at a time: answers in, one request or verdict out, time by hand."""

import pytest

from aggregator.leadership.election import (
    Conflict,
    Due,
    Elector,
    Failed,
    Lease,
    Read,
    Seen,
    StepDown,
    Terms,
    Wait,
    Write,
    Written,
)
from broker_topics.errors import InvariantError

TERMS = Terms.of(6)


def test_a_leader_renews_six_times_in_the_time_that_others_wait_and_gives_up_after_two_thirds() -> None:
    assert Terms.of(6) == Terms(duration_s=6, renew_deadline_s=4.0, retry_s=1.0, request_s=1.0)
    assert Terms.of(15) == Terms(duration_s=15, renew_deadline_s=10.0, retry_s=2.5, request_s=2.0)


def lease(holder: str, version: str, transitions: int = 0) -> Lease:
    return Lease(holder=holder, duration_s=6, transitions=transitions, version=version)


def leader(sent_s: float = 0.0) -> Elector:
    """A contender that made the Lease with a write sent at this time."""
    elector = Elector("a", TERMS)
    elector.step(Due(), sent_s)
    elector.step(Seen(None), sent_s)
    elector.step(Written(lease("a", "1")), sent_s + 0.1)
    assert elector.leading
    return elector


def test_the_first_contender_makes_the_lease_and_leads_when_that_was_accepted() -> None:
    elector = Elector("a", TERMS)
    assert elector.step(Due(), 0.0) == Read()
    assert elector.step(Seen(None), 0.1) == Write(Lease(holder="a", duration_s=6))
    assert not elector.leading
    assert elector.step(Written(lease("a", "1")), 0.2) == Wait(1.1)
    assert elector.leading


def test_of_two_that_make_it_at_once_the_second_stands_by() -> None:
    elector = Elector("b", TERMS)
    elector.step(Due(), 0.0)
    elector.step(Seen(None), 0.0)
    assert elector.step(Conflict(), 0.1) == Wait(1.0)
    assert elector.step(Due(), 1.0) == Read()
    assert elector.step(Seen(lease("a", "1")), 1.2) == Wait(2.2)
    assert not elector.leading


def test_a_lease_unchanged_for_its_duration_is_taken_over_counted_from_when_it_was_first_seen() -> None:
    elector = Elector("b", TERMS)
    elector.step(Seen(lease("a", "7", 3)), 100.0)
    assert elector.step(Seen(lease("a", "7", 3)), 105.0) == Wait(106.0)
    assert elector.step(Seen(lease("a", "7", 3)), 105.5) == Wait(106.0)
    assert elector.step(Seen(lease("a", "7", 3)), 106.0) == Write(lease("b", "7", 4))
    elector.step(Written(lease("b", "8", 4)), 106.1)
    assert elector.leading


def test_a_renewal_starts_the_standby_s_waiting_over() -> None:
    elector = Elector("b", TERMS)
    elector.step(Seen(lease("a", "7")), 100.0)
    elector.step(Seen(lease("a", "8")), 105.9)
    assert elector.step(Seen(lease("a", "8")), 111.8) == Wait(pytest.approx(111.9))
    assert elector.step(Seen(lease("a", "8")), 111.9) == Write(lease("b", "8", 1))


def test_a_lease_that_was_released_is_taken_at_once() -> None:
    elector = Elector("b", TERMS)
    assert elector.step(Seen(lease("", "9", 2)), 5.0) == Write(lease("b", "9", 3))


def test_a_standby_waits_as_long_as_the_holder_promised_not_as_its_own_settings_say() -> None:
    elector = Elector("b", TERMS)
    long = Lease(holder="a", duration_s=30, version="7")
    elector.step(Seen(long), 100.0)
    assert elector.step(Seen(long), 129.9) == Wait(130.0)


def test_a_leader_renews_by_the_version_it_wrote() -> None:
    elector = leader()
    assert elector.step(Due(), 1.0) == Write(lease("a", "1"))
    assert elector.step(Written(lease("a", "2")), 1.1) == Wait(2.0)
    assert elector.step(Due(), 2.0) == Write(lease("a", "2"))


def test_belief_is_counted_from_when_the_renewal_was_sent_not_from_its_answer() -> None:
    elector = leader(sent_s=10.0)
    elector.step(Due(), 11.0)
    elector.step(Written(lease("a", "2")), 13.5)
    assert elector.deadline_s == 15.0


def test_a_leader_that_cannot_renew_steps_down_before_anybody_else_may_begin() -> None:
    elector = leader(sent_s=0.0)
    elector.step(Due(), 1.0)
    assert elector.step(Failed(), 1.1) == Wait(2.0)
    assert elector.step(Due(), 2.0) == Read()
    assert elector.step(Failed(), 3.5) == Wait(3.5)
    assert elector.step(Due(), 3.5) == Read()
    assert elector.step(Failed(), 4.0) == StepDown("it could not be renewed for 4 s")
    assert not elector.leading


def test_two_requests_that_hang_leave_a_leader_the_time_for_a_third() -> None:
    elector = leader(sent_s=0.0)
    elector.step(Due(), 1.0)
    assert elector.step(Failed(), 1.0 + TERMS.request_s) == Wait(2.0)
    assert elector.step(Due(), 2.0) == Read()
    assert elector.step(Failed(), 2.0 + TERMS.request_s) == Wait(3.0)
    assert elector.step(Due(), 3.0) == Read()
    assert elector.step(Seen(lease("a", "1")), 3.1) == Write(lease("a", "1"))
    elector.step(Written(lease("a", "2")), 3.2)
    assert elector.leading
    assert elector.deadline_s == pytest.approx(7.1)


def test_a_leader_that_was_stopped_and_continued_steps_down_whatever_it_hears_first() -> None:
    for event in (Due(), Failed(), Conflict(), Seen(lease("a", "1")), Written(lease("a", "2"))):
        elector = leader(sent_s=0.0)
        elector.step(Due(), 1.0)
        assert isinstance(elector.step(event, 13.0), StepDown), event
        assert not elector.leading


def test_a_leader_unsure_whether_its_write_arrived_reads_before_it_writes_again() -> None:
    elector = leader()
    elector.step(Due(), 1.0)
    assert elector.step(Failed(), 2.5) == Wait(2.5)
    assert elector.step(Due(), 2.5) == Read()
    assert elector.step(Seen(lease("a", "2")), 3.1) == Write(lease("a", "2"))
    elector.step(Written(lease("a", "3")), 3.2)
    assert elector.leading
    assert elector.deadline_s == 7.1


def test_a_leader_that_finds_another_s_name_steps_down() -> None:
    elector = leader()
    elector.step(Due(), 1.0)
    elector.step(Conflict(), 1.1)
    assert elector.step(Seen(lease("b", "5", 1)), 2.2) == StepDown("b holds it")


def test_a_leader_whose_lease_was_deleted_makes_it_again() -> None:
    elector = leader()
    elector.step(Due(), 1.0)
    elector.step(Conflict(), 1.1)
    assert elector.step(Seen(None), 2.0) == Write(lease("a", ""))
    assert elector.step(Written(lease("a", "5")), 2.1) == Wait(3.0)
    assert elector.leading


def test_a_leader_whose_lease_was_deleted_and_made_by_another_steps_down() -> None:
    elector = leader()
    elector.step(Seen(None), 2.0)
    elector.step(Conflict(), 2.1)
    assert elector.step(Seen(lease("b", "5")), 3.0) == StepDown("b holds it")


def test_a_standby_waits_for_the_holder_of_a_lease_that_was_deleted() -> None:
    elector = Elector("b", TERMS)
    elector.step(Seen(lease("a", "7", 3)), 100.0)
    assert elector.step(Seen(None), 101.0) == Wait(102.0)
    assert elector.step(Seen(None), 105.5) == Wait(106.0)
    assert elector.step(Seen(None), 106.0) == Write(lease("b", "", 4))


def test_a_write_whose_answer_was_lost_is_found_again_by_the_contender_s_own_name() -> None:
    elector = Elector("a", TERMS)
    elector.step(Seen(None), 0.0)
    elector.step(Failed(), 2.0)
    assert elector.step(Seen(lease("a", "1")), 3.0) == Write(lease("a", "1"))
    assert not elector.leading


def test_a_standby_asks_on_while_nobody_answers() -> None:
    elector = Elector("b", TERMS)
    elector.step(Due(), 0.0)
    assert elector.step(Failed(), 0.1) == Wait(1.0)
    assert elector.step(Due(), 1.0) == Read()
    assert elector.step(Failed(), 2.5) == Wait(2.5)


def test_only_a_leader_has_something_to_release() -> None:
    assert Elector("b", TERMS).release() is None
    elector = leader()
    assert elector.release() == Lease(holder="", duration_s=1, version="1")
    assert not elector.leading


@pytest.mark.parametrize(
    ("deadline", "retry", "request_s"), [(6.0, 1.0, 1.5), (4.0, 4.0, 1.5), (4.0, 0.0, 1.5), (4.0, 1.0, 3.0)]
)
def test_terms_that_let_two_lead_at_once_or_leave_no_second_try_are_refused(
    deadline: float, retry: float, request_s: float
) -> None:
    with pytest.raises(InvariantError, match="of a Lease's times, retry"):
        Elector("a", Terms(duration_s=6, renew_deadline_s=deadline, retry_s=retry, request_s=request_s))
