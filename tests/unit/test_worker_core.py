"""The life of an update on a device, told as events and effects."""

from dataclasses import replace

import numpy as np
import pytest

from broker_topics.errors import RejectCode
from broker_topics.record import Decision, Run, RunKind
from tests.device import PARTITION, SETTINGS, Bench, decided, header_of, record, values_of
from worker.events import (
    Kind,
    Produced,
    ProduceFailed,
    Report,
    StopRequested,
    TimePassed,
    TrainingFailed,
    TrainingSkipped,
    Unreachable,
)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def sent(bench: Bench, offset: int = 0) -> None:
    """Bring a device to where its first update lies in the log."""
    bench.enter()
    bench.train()
    bench.sent(offset)


def test_an_update_goes_from_training_to_settled(bench: Bench) -> None:
    assert bench.enter() == [
        "store",
        "broker_reachable",
        "training_started",
        "train from the newest model",
        "model_followed",
    ]
    assert bench.train() == [
        "store",
        "training_finished",
        "update_queued",
        "training_started",
        "produce 1/1",
        "train from the newest model",
    ]
    assert bench.row.in_doubt
    assert bench.sent(offset=0) == ["store", "update_sent"]
    assert not bench.row.in_doubt
    assert bench.see(decided(1, bench.row)) == ["store", "update_settled (accepted)", "model_followed"]
    assert bench.core.state.row is None
    assert bench.core.state.tally.updates_accepted == 1


def test_the_row_is_stored_before_its_bytes_reach_a_producer(bench: Bench) -> None:
    bench.enter()
    lines = bench.train()
    assert lines.index("store") < lines.index("produce 1/1")
    assert bench.outbox.state is not None
    assert bench.outbox.state.row is not None


def test_while_an_update_is_unsettled_training_goes_on_from_the_local_model(bench: Bench) -> None:
    sent(bench)
    assert bench.train(2.0) == ["store", "training_finished", "training_started", "train on from version 0"]
    assert bench.train(3.0) == ["store", "training_finished", "training_started", "train on from version 0"]
    bench.see(decided(1, bench.row))
    lines = bench.train(4.0)
    assert "produce 1/2" in lines
    assert lines[-1] == "train from the newest model"
    update = header_of(bench.row)
    assert (update.work, update.num_steps, update.base_version) == (3, 30, 0)
    assert values_of(bench.row).tolist() == [9.0, 9.0, 9.0, 9.0]


def test_a_queued_update_waits_for_the_training_that_builds_on_it(bench: Bench) -> None:
    # Sent at once, the running training would begin the next update from the old base again, and so on for ever.
    sent(bench)
    bench.train()
    lines = bench.see(decided(1, bench.row))
    assert [line for line in lines if line.startswith("produce")] == []


def test_a_queued_update_is_sent_as_soon_as_the_last_is_settled_if_nothing_is_training(bench: Bench) -> None:
    sent(bench)
    bench.train()
    bench.tell(TrainingFailed("no battery"))
    assert "produce 1/2" in bench.see(decided(1, bench.row))


def test_offline_training_goes_on_and_one_update_holds_it_all(bench: Bench) -> None:
    bench.enter()
    assert bench.tell(Unreachable("gone")) == ["broker_unreachable (gone)"]
    for _ in range(4):
        assert bench.train()[-1] == "train on from version 0"
    bench.see(caught_up=True)
    assert "produce 1/1" in bench.train()
    assert header_of(bench.row).work == 5


def test_training_pauses_once_as_many_steps_wait_as_may(bench: Bench) -> None:
    bench.enter()
    bench.tell(Unreachable("gone"))
    for _ in range(9):
        bench.train(steps=10)
    assert bench.train(steps=10) == [
        "store",
        "training_finished",
        "training_skipped (as much work waits as may)",
    ]
    assert "train from the newest model" in bench.see(caught_up=True)


def test_a_training_is_told_how_many_steps_may_still_wait(bench: Bench) -> None:
    bench.enter()
    assert bench.wanted.max_steps == 100
    bench.tell(Unreachable("gone"))
    bench.train(steps=30)
    assert bench.wanted.max_steps == 70


def test_a_device_that_never_reached_a_broker_does_not_train(bench: Bench) -> None:
    assert bench.tell(TimePassed()) == []


def test_after_a_restart_offline_training_goes_on_from_the_stored_local_model(bench: Bench) -> None:
    bench.enter()
    bench.tell(Unreachable("gone"))
    bench.train(2.0)
    bench.crash()
    assert bench.tell(TimePassed()) == ["training_started", "train on from version 0"]
    assert bench.wanted.start is not None
    assert bench.wanted.start.tolist() == [2.0, 2.0, 2.0, 2.0]


@pytest.mark.parametrize("code", ["stale", "unknown_base", "future_version", "conflict"])
def test_refused_work_returns_to_the_residual_and_is_counted_in_the_next_header(bench: Bench, code: str) -> None:
    sent(bench)
    bench.see(decided(1, bench.row, Decision(bench.row.crc, 0.0, RejectCode(code), "", 1)))
    assert bench.core.state.residual.tolist() == [1.0, 1.0, 1.0, 1.0]
    assert "update_queued" in bench.train(2.0)
    assert header_of(bench.row).work == 2
    assert values_of(bench.row).tolist() == [3.0, 3.0, 3.0, 3.0]
    assert bench.core.state.carry == 0


@pytest.mark.parametrize(
    "code",
    ["too_soon", "norm", "non_finite", "malformed", "unknown_layout", "revoked", "signature", "passed", "retired"],
)
def test_refused_work_that_could_grow_or_count_twice_is_discarded_and_counted(bench: Bench, code: str) -> None:
    sent(bench)
    lines = bench.see(decided(1, bench.row, Decision(bench.row.crc, 0.0, RejectCode(code), "", 1)))
    assert f"update_discarded ({code})" in lines
    assert not bench.core.state.residual.any()
    assert bench.core.state.tally.discarded == 1


@pytest.mark.parametrize("code", ["conflict", "passed", "retired", "sequence_jump"])
def test_a_copied_or_restored_outbox_takes_the_incarnation_after_the_current_one(bench: Bench, code: str) -> None:
    sent(bench)
    lines = bench.see(decided(1, bench.row, Decision(bench.row.crc, 0.0, RejectCode(code), "", 4)))
    assert f"incarnation_changed ({code})" in lines
    assert "produce 5/1" in bench.train()


def test_a_duplicate_carries_the_outcome_of_the_first_copy(bench: Bench) -> None:
    sent(bench)
    bench.see(decided(1, bench.row, Decision(bench.row.crc, 0.0, RejectCode.DUPLICATE, "stale")))
    assert bench.core.state.carry == 1
    bench.train()
    bench.sent(1)
    bench.see(decided(2, bench.row, Decision(bench.row.crc, 0.0, RejectCode.DUPLICATE, "accepted")))
    assert bench.core.state.tally.accepted == 2


def test_a_send_in_doubt_is_repeated_byte_for_byte_after_a_pause(bench: Bench) -> None:
    bench.enter()
    bench.train()
    before = bench.row.data
    bench.tell(ProduceFailed("no answer"))
    assert bench.core.wake_s is not None
    assert 1000.5 <= bench.core.wake_s <= 1001.0
    assert "produce 1/1" not in bench.tell(TimePassed())
    bench.now_s = bench.core.wake_s
    assert bench.tell(TimePassed()) == ["produce 1/1"]
    assert bench.row.data == before
    assert (bench.core.sending.attempts, bench.core.sending.retries) == (2, 1)


def test_pauses_grow_up_to_a_limit(bench: Bench) -> None:
    bench.enter()
    bench.train()
    pauses = []
    for _ in range(6):
        bench.tell(ProduceFailed("no answer"))
        wake_s = bench.core.wake_s
        assert wake_s is not None
        pauses.append(wake_s - bench.now_s)
        bench.now_s = wake_s
        bench.tell(TimePassed())
    assert all(limit / 2 <= pause <= limit for pause, limit in zip(pauses, [1, 2, 4, 8, 8, 8], strict=True))


def test_the_broker_s_return_ends_the_pause(bench: Bench) -> None:
    bench.enter()
    bench.train()
    for _ in range(5):
        bench.tell(ProduceFailed("no answer"))
        bench.now_s += 8
        bench.tell(TimePassed())
    bench.tell(ProduceFailed("no answer"))
    bench.tell(Unreachable("gone"))
    assert "produce 1/1" in bench.see(caught_up=True)


def test_nothing_is_sent_before_the_chain_was_read_to_its_end(bench: Bench) -> None:
    bench.enter()
    bench.tell(Unreachable("gone"))
    bench.train()
    bench.tell(TrainingFailed("no battery"))
    assert bench.see(record(1)) == ["broker_reachable", "model_followed"]
    assert "produce 1/1" in bench.see(record(2), caught_up=True)


@pytest.mark.parametrize("kind", [RunKind.LOST, RunKind.UNREADABLE, RunKind.CONTROL])
def test_an_update_under_a_void_run_is_sent_again(bench: Bench, kind: RunKind) -> None:
    sent(bench, offset=3)
    lines = bench.see(record(1, runs=[Run(PARTITION, 0, 9, kind)], passed=9))
    assert "produce 1/1" in lines
    assert bench.core.state.tally.updates_discarded == 0


def test_another_record_at_the_update_s_offset_makes_it_be_sent_again(bench: Bench) -> None:
    sent(bench)
    assert "produce 1/1" in bench.see(decided(1, bench.row, Decision(bench.row.crc ^ 1, 1.0)))
    assert bench.core.state.tally.updates_accepted == 0


def test_an_update_whose_offset_the_reader_has_passed_is_sent_again(bench: Bench) -> None:
    bench.enter()
    bench.train()
    bench.see(record(1, runs=[Run(PARTITION, 0, 1)], decisions=[Decision(bench.row.crc, 1.0)], passed=1))
    assert "produce 1/1" in bench.sent(offset=0)


def test_a_silent_chain_makes_a_sent_update_doubtful_and_each_time_later(bench: Bench) -> None:
    sent(bench)
    bench.now_s += 59
    assert "produce 1/1" not in bench.tell(TimePassed())
    bench.now_s += 1
    assert "produce 1/1" in bench.tell(TimePassed())
    bench.sent(offset=1)
    assert bench.core.wake_s == bench.now_s + 120


def test_a_restart_that_cannot_follow_the_chain_sends_again(bench: Bench) -> None:
    sent(bench)
    bench.crash()
    assert "produce 1/1" in bench.enter(5, known=False, passed=7)


def test_a_restart_that_follows_the_chain_learns_the_outcome(bench: Bench) -> None:
    sent(bench)
    row = bench.row
    bench.crash()
    assert "produce 1/1" not in bench.enter(0)
    assert "update_settled (accepted)" in bench.see(decided(1, row))


def stale_after(bench: Bench, version: int) -> list[str]:
    """The update lies in the log and is refused as stale at this version; max_staleness is 4 and 40 are remembered."""
    bench.sent(0)
    refused = Decision(bench.row.crc, 0.0, RejectCode.STALE)
    return bench.see(decided(version, bench.row, refused, max_staleness=4))


@pytest.mark.parametrize(("version", "discarded"), [(40, 0), (41, 1)])
def test_what_was_sent_twice_and_is_stale_beyond_all_memory_is_discarded_and_counted(
    version: int, discarded: int
) -> None:
    # An earlier copy may have been accepted so long ago that the ledger no longer knows it.
    bench = Bench(replace(SETTINGS, max_staleness=4))
    bench.enter()
    bench.train()
    bench.tell(ProduceFailed("no answer"))
    bench.now_s += 8
    assert "produce 1/1" in bench.tell(TimePassed())
    lines = stale_after(bench, version)
    assert ("update_discarded (forgotten)" in lines) is bool(discarded)
    assert bench.core.state.tally.updates_discarded == discarded
    assert bench.core.state.tally.updates_given_back == 1 - discarded


def test_what_was_sent_once_and_is_stale_is_always_given_back() -> None:
    bench = Bench(replace(SETTINGS, max_staleness=4))
    bench.enter()
    bench.train()
    stale_after(bench, 1000)
    assert bench.core.state.tally.updates_given_back == 1


def test_a_copied_outbox_does_not_know_how_often_its_row_was_sent() -> None:
    bench = Bench(replace(SETTINGS, max_staleness=4))
    bench.enter()
    bench.train()
    bench.crash()
    bench.enter()
    assert "update_discarded (forgotten)" in stale_after(bench, 41)


def test_a_row_in_doubt_is_sent_again_after_a_restart(bench: Bench) -> None:
    bench.enter()
    bench.train()
    before = bench.row.data
    bench.crash()
    assert "produce 1/1" in bench.enter()
    assert bench.row.data == before


def test_a_row_in_doubt_that_is_too_old_is_discarded_and_counted_once_caught_up(bench: Bench) -> None:
    bench.enter()
    bench.train()
    bench.tell(ProduceFailed("no answer"))
    bench.tell(Unreachable("gone"))
    assert "update_discarded (too_old)" not in bench.see(record(10, max_staleness=10))
    assert "update_discarded (too_old)" not in bench.see(record(11, max_staleness=10))
    assert "update_discarded (too_old)" in bench.see(caught_up=True)
    assert bench.core.state.tally.discarded == 1


def test_a_row_in_doubt_that_is_just_not_too_old_is_sent(bench: Bench) -> None:
    bench.enter()
    bench.train()
    bench.tell(ProduceFailed("no answer"))
    bench.tell(Unreachable("gone"))
    assert "produce 1/1" in bench.see(record(10, max_staleness=10), caught_up=True)


def test_a_row_in_doubt_for_longer_than_its_age_limit_is_discarded(bench: Bench) -> None:
    bench.enter()
    bench.train()
    bench.tell(ProduceFailed("no answer"))
    bench.now_s, bench.wall_s = bench.now_s + 1001.0, 1001.0
    assert "update_discarded (waited_too_long)" in bench.tell(TimePassed())


def test_a_clock_that_is_set_from_1970_makes_no_work_old(bench: Bench) -> None:
    bench.enter()
    bench.train()
    bench.tell(ProduceFailed("no answer"))
    bench.wall_s = 1.8e9
    assert "produce 1/1" not in bench.tell(TimePassed())
    bench.now_s, bench.wall_s = bench.now_s + 900.0, bench.wall_s + 900.0
    assert "produce 1/1" in bench.tell(TimePassed())
    bench.tell(ProduceFailed("no answer"))
    bench.now_s, bench.wall_s = bench.now_s + 101.0, bench.wall_s + 101.0
    assert "update_discarded (waited_too_long)" in bench.tell(TimePassed())


def test_queued_work_from_too_old_a_base_starts_over_from_the_newest_model_and_is_not_lost(bench: Bench) -> None:
    bench.enter()
    bench.tell(Unreachable("gone"))
    bench.train(2.0)
    bench.tell(TrainingFailed("no battery"))
    bench.now_s += 1
    lines = bench.see(record(11, max_staleness=10), caught_up=True)
    assert "update_given_back" in lines
    assert lines[-1] == "train from the newest model"
    assert "update_queued" in bench.train(1.0)
    assert header_of(bench.row).work == 2
    assert header_of(bench.row).base_version == 11
    assert values_of(bench.row).tolist() == [3.0, 3.0, 3.0, 3.0]


def test_two_stale_updates_in_a_row_halve_the_local_work(bench: Bench) -> None:
    bench = Bench(replace(SETTINGS, local_epochs=4))
    bench.enter()
    assert (bench.wanted.epochs, bench.wanted.deadline_s) == (4, 0)
    for offset in range(2):
        bench.train()
        bench.sent(offset)
        bench.see(decided(offset + 1, bench.row, Decision(bench.row.crc, 0.0, RejectCode.STALE)))
    bench.train()
    assert (bench.wanted.epochs, bench.wanted.deadline_s, bench.wanted.max_steps) == (2, 0.5, 50)


def test_one_stale_update_between_accepted_ones_changes_nothing(bench: Bench) -> None:
    bench.enter()
    for offset, code in enumerate([RejectCode.STALE, None, RejectCode.STALE]):
        bench.train()
        bench.sent(offset)
        bench.see(decided(offset + 1, bench.row, Decision(bench.row.crc, 0.0, code)))
    assert bench.core.state.share == 1.0


def test_shortened_work_grows_again_with_every_accepted_update(bench: Bench) -> None:
    bench.enter()
    for offset, code in enumerate([RejectCode.STALE, RejectCode.STALE, None, None, None, None]):
        bench.train()
        bench.sent(offset)
        bench.see(decided(offset + 1, bench.row, Decision(bench.row.crc, 0.0, code)))
    assert bench.core.state.share == 1.0


def test_a_training_that_ends_in_nonsense_is_dropped_and_tried_again_later(bench: Bench) -> None:
    bench.enter()
    lines = bench.train(np.nan)
    assert lines == [
        "training_failed (the trained model is not finite; lower the learning rate or clip gradients)",
    ]
    assert bench.core.state.queued is None
    assert bench.core.wake_s is not None


def test_work_that_overflows_float32_is_discarded_and_the_residual_stays(bench: Bench) -> None:
    bench = Bench(replace(SETTINGS, reference_steps=1e9))
    bench.enter()
    lines = bench.train(3e38, steps=1)
    assert "update_discarded (non_finite)" in lines
    assert not bench.core.state.residual.any()
    assert bench.core.state.tally.discarded == 1


def test_a_device_that_may_not_train_is_asked_again_within_a_minute(bench: Bench) -> None:
    bench.enter()
    for _ in range(20):
        bench.tell(TrainingSkipped("not charging"))
        assert bench.core.wake_s is not None
        assert bench.core.wake_s - bench.now_s <= 60
        bench.now_s = bench.core.wake_s
        assert "train from the newest model" in bench.tell(TimePassed())


def test_a_stop_begins_nothing_new_and_keeps_what_the_training_did(bench: Bench) -> None:
    bench.enter()
    assert bench.tell(StopRequested()) == []
    assert bench.train() == ["store", "training_finished"]
    assert bench.outbox.state is not None
    assert bench.outbox.state.queued is not None
    assert bench.core.wake_s is None


def test_the_answer_of_a_forgotten_send_is_ignored(bench: Bench) -> None:
    bench.enter()
    bench.train()
    assert bench.tell(Produced(incarnation=1, sequence=99, partition=PARTITION, offset=0)) == ["produce 1/1"]
    assert bench.row.in_doubt


def test_the_lag_is_counted_from_what_waiting_work_started_from(bench: Bench) -> None:
    sent(bench)
    assert bench.core.base_version_lag == 0
    bench.see(record(6))
    assert bench.core.base_version_lag == 6


def test_what_a_training_did_is_reported(bench: Bench) -> None:
    bench.enter()
    bench.train()
    (report,) = [e for e in bench.effects if isinstance(e, Report) and e.kind is Kind.TRAINED]
    assert report.facts["steps"] == 10


def test_settings_of_the_task_follow_the_chain(bench: Bench) -> None:
    bench.enter()
    bench.settings = replace(SETTINGS, local_learning_rate=0.5)
    bench.see(record(1))
    bench.train()
    assert bench.wanted.settings.local_learning_rate == 0.5


def test_a_trained_vector_is_never_changed_by_the_core(bench: Bench) -> None:
    bench.enter()
    bench.tell(Unreachable("gone"))
    bench.train(1.0)
    queued = bench.core.state.queued
    assert queued is not None
    before = queued.local.copy()
    bench.tell(TrainingFailed("no battery"))
    bench.see(caught_up=True)
    assert np.array_equal(queued.local, before)
