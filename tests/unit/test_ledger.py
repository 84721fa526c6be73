"""Every device's last update is remembered, so that nothing enters the model twice."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.fold.ledger import MAX_SEQUENCE_JUMP, Ledger
from broker_topics.errors import RejectCode, WireError
from broker_topics.record import Cause, Decision
from tests.folding import Bench, snapshot, vector


def ledger_with(sequence: int = 5, incarnation: int = 3, crc: int = 77, decision: Decision | None = None) -> Ledger:
    ledger = Ledger()
    settled = decision or Decision(crc, 1.0)
    ledger.settle(client_id="a", incarnation=incarnation, sequence=sequence, decision=settled, version=10, habit=None)
    return ledger


def judged(ledger: Ledger, sequence: int, incarnation: int = 3, crc: int = 77) -> Decision | None:
    return ledger.judge(client_id="a", incarnation=incarnation, sequence=sequence, crc=crc)


def test_an_unknown_device_may_begin_with_any_sequence() -> None:
    assert Ledger().judge(client_id="a", incarnation=1, sequence=5_000_000, crc=1) is None


def test_the_next_sequence_passes() -> None:
    assert judged(ledger_with(), 6) is None


def test_the_last_sequence_with_the_same_bytes_is_a_duplicate_and_carries_the_first_outcome() -> None:
    assert judged(ledger_with(), 5) == Decision(77, 0.0, RejectCode.DUPLICATE, "accepted")
    refused = ledger_with(decision=Decision(77, 0.0, RejectCode.STALE))
    assert judged(refused, 5) == Decision(77, 0.0, RejectCode.DUPLICATE, "stale")


def test_the_last_sequence_with_other_bytes_is_a_conflict_and_names_the_incarnation() -> None:
    assert judged(ledger_with(), 5, crc=78) == Decision(78, 0.0, RejectCode.CONFLICT, "", 3)


def test_an_older_sequence_has_passed_even_with_equal_bytes() -> None:
    assert judged(ledger_with(), 4) == Decision(77, 0.0, RejectCode.PASSED, "", 3)


def test_a_smaller_incarnation_is_retired_and_told_the_current_one() -> None:
    assert judged(ledger_with(), 6, incarnation=2) == Decision(77, 0.0, RejectCode.RETIRED, "", 3)


def test_a_new_incarnation_begins_its_own_sequences() -> None:
    assert judged(ledger_with(), 1, incarnation=4) is None


def test_a_sequence_more_than_a_million_ahead_is_refused() -> None:
    ledger = ledger_with()
    assert judged(ledger, 5 + MAX_SEQUENCE_JUMP) is None
    assert judged(ledger, 6 + MAX_SEQUENCE_JUMP) == Decision(77, 0.0, RejectCode.SEQUENCE_JUMP)
    assert judged(ledger, 1 + MAX_SEQUENCE_JUMP, incarnation=4) == Decision(77, 0.0, RejectCode.SEQUENCE_JUMP)


def test_judging_changes_nothing() -> None:
    ledger = ledger_with()
    before = list(ledger.rows())
    for sequence, incarnation, crc in [(5, 3, 77), (5, 3, 1), (4, 3, 77), (6, 2, 77), (10**9, 3, 77), (6, 3, 77)]:
        judged(ledger, sequence, incarnation, crc)
    assert list(ledger.rows()) == before


def test_an_entry_lives_for_ten_times_the_staleness_window_after_its_device_was_heard() -> None:
    ledger = ledger_with()
    assert list(ledger.evict(version=10 + 10 * 200, max_staleness=200)) == []
    assert len(list(ledger.evict(version=11 + 10 * 200, max_staleness=200))) == 1
    assert len(ledger) == 0


def test_being_heard_again_renews_an_entry() -> None:
    ledger = ledger_with()
    ledger.settle(client_id="b", incarnation=1, sequence=1, decision=Decision(1, 1.0), version=11, habit=None)
    ledger.settle(client_id="a", incarnation=3, sequence=6, decision=Decision(2, 1.0), version=400, habit=None)
    assert [entry.sequence for entry in ledger.evict(version=2100, max_staleness=200)] == [1]
    assert ledger.get("a") is not None


def test_rows_come_back_as_the_same_ledger_whatever_the_order_of_hearing() -> None:
    ledger = Ledger()
    for name, version in [("z", 1), ("a", 3), ("m", 2)]:
        ledger.settle(client_id=name, incarnation=1, sequence=9, decision=Decision(5), version=version, habit=None)
    back = Ledger.from_rows(list(ledger.rows()))
    assert list(back.rows()) == list(ledger.rows())
    assert [entry.heard_version for entry in back.evict(version=2502, max_staleness=250)] == [1]


@pytest.mark.parametrize(
    "row",
    [
        7,
        [],
        ["a", 1, 1, "accepted", 5, 2, 2],
        ["a", 1, 1, "accepted", 5, 2, 2, None, None],
        ["a", 1, True, "accepted", 5, 2, 2, None],
        ["a", 1, 1.0, "accepted", 5, 2, 2, None],
        [b"a", 1, 1, "accepted", 5, 2, 2, None],
        ["a", 1, 1, "accepted", 5, 2, 2, 3],
        ["a", 1, 1, "accepted", 5, 2, 2, [1, 0.0, 1.0]],
        ["a", 1, 1, "accepted", 5, 2, 2, [1, 0, 1.0, 32]],
    ],
)
def test_a_row_of_anything_else_is_malformed(row: object) -> None:
    with pytest.raises(WireError) as caught:
        Ledger.from_rows([row])
    assert caught.value.code is RejectCode.MALFORMED


EVENT = st.tuples(
    st.sampled_from("abc"),
    st.integers(1, 3),
    st.integers(1, 6),
    st.integers(0, 1),
    st.integers(0, 3),
    st.sampled_from(["keep", "keep", "keep", "step"]),
)


@settings(deadline=None, max_examples=300)
@given(events=st.lists(EVENT, max_size=60))
def test_no_sequence_of_a_device_is_ever_accepted_twice(events: list[tuple[str, int, int, int, int, str]]) -> None:
    """Copies, late copies, copied outboxes, other bytes under a used number: at most one enters."""
    bench = Bench.of(vector(0), buffer_size=3, max_staleness=4)
    accepted: Counter[tuple[str, int, int]] = Counter()
    for client, incarnation, sequence, variant, age, then in events:
        data = bench.frame(
            client, vector(variant), incarnation=incarnation, sequence=sequence, base=max(0, bench.version - age)
        )
        before = bench.state.x + bench.fold._total.vector()
        admission = bench.append(client, data)
        if admission.refused:
            assert (bench.state.x + bench.fold._total.vector()).tobytes() == before.tobytes()
        else:
            accepted[client, incarnation, sequence] += 1
        if then == "step":
            bench.step(Cause.DEADLINE)
    assert all(count == 1 for count in accepted.values())


@settings(deadline=None, max_examples=100)
@given(events=st.lists(EVENT, max_size=40), gap=st.integers(0, 30))
def test_a_copy_that_outlives_its_ledger_entry_is_refused_all_the_same(
    events: list[tuple[str, int, int, int, int, str]], gap: int
) -> None:
    """Its base is older than any that is accepted: forgetting a device never lets an old update in again."""
    bench = Bench.of(vector(0), buffer_size=1, max_staleness=4)
    sent: list[tuple[str, bytes]] = []
    for client, incarnation, sequence, variant, _, _ in events:
        sent.append((client, bench.frame(client, vector(variant), incarnation=incarnation, sequence=sequence)))
        if not bench.append(*sent[-1]).refused:
            bench.step()
    for _ in range(gap):
        bench.send("other", vector(0), incarnation=1)
        bench.step()
    accepted = {a.decision.crc for a in bench.admissions if not a.refused}
    for client, data in sent:
        admission = bench.append(client, data)
        assert admission.refused or admission.decision.crc not in accepted


def test_the_ledger_stays_bounded_in_a_fleet_where_nobody_returns() -> None:
    bench = Bench.of(vector(0), buffer_size=1, max_staleness=20)
    for i in range(500):
        bench.send(f"w-{i}", vector(0))
        bench.step()
    assert len(bench.state.ledger) == 10 * 20
    assert bench.state.fairness.clients == len(bench.state.ledger)
    assert len(bench.state.bases) == 20 + 1


def test_a_refusal_after_identity_and_sequence_advances_the_ledger() -> None:
    bench = Bench.of(vector(0))
    stranger = bench.frame("a", vector(1), base_hash=b"notthere")
    assert bench.append("a", stranger).decision.code is RejectCode.UNKNOWN_BASE
    again = bench.append("a", stranger).decision
    assert (again.code, again.first) == (RejectCode.DUPLICATE, "unknown_base")
    assert bench.append("a", bench.frame("a", vector(1), sequence=1)).decision.code is RejectCode.CONFLICT


def test_refusals_before_that_leave_every_state_byte_but_the_vector_alone() -> None:
    bench = Bench.of(vector(0))
    bench.send("a", vector(1), sequence=5)
    before = snapshot(bench.state)
    for data in [b"", b"junk", bench.frame("a", vector(1), task="other"), bench.frame("a", vector(1), sequence=5)]:
        bench.append("a", data)
    bench.append("a", bench.frame("a", vector(1), sequence=6), key=b"b")
    vector_and_crc = (bench.state.vector, bench.state.last_crc)
    bench.state.vector = [v - 5 * (v > 0) for v in bench.state.vector]
    bench.state.last_crc = [bench.admissions[0].decision.crc if crc else None for crc in vector_and_crc[1]]
    assert snapshot(bench.state) == before
