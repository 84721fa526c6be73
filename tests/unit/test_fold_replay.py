"""A version is a fold over the log: live, replayed and resumed from any cut, it is the same to the last bit."""

import functools
from dataclasses import replace

import numpy as np
import pytest

from aggregator.fold.core import DivergedError, Draft, Fold
from aggregator.fold.state import FoldState
from broker_topics.codecs import CodecId, encode
from broker_topics.errors import InputsLostError, InvariantError, RejectCode
from broker_topics.record import Cause, RunKind, build, parse
from tests.folding import TASK, Bench, copied, genesis, replayed, scrambled, snapshot

SIZE = 1500
SETTINGS = {
    "buffered": {"counting": "examples", "server_optimizer": "momentum"},
    "fedbuff": {"rule": "fedbuff", "staleness": "hinge", "hinge_start": 1, "max_staleness": 4},
    "fedasync": {"rule": "fedasync"},
}
RULES = list(SETTINGS)


class Recorded(Bench):
    """A bench that keeps the state's bytes after every record."""

    states: list[dict[str, bytes]]

    def step(self, cause: Cause = Cause.FULL) -> Draft:
        draft = super().step(cause)
        self.states.append(snapshot(self.state))
        return draft


@functools.cache
def story(rule: str) -> Recorded:
    """A log with everything in it, folded live."""
    bench = Recorded(Fold(task=TASK, state=first_state(rule)))
    bench.states = []
    codecs = list(CodecId)
    for turn in range(120):
        client = f"w-{turn * turn % 7}"
        encoded = encode(scrambled(SIZE, seed=turn), codecs[turn % 4], density=0.05)
        base = max(0, bench.version - turn % 3)
        last = bench.send(client, encoded, base=base, num_examples=1 + turn * 37 % 50, work=1.0 + turn % 4)
        match turn % 12:
            case 1:
                bench.append(client, bench.frames[last.partition, last.offset])
            case 3:
                bench.append(client, b"junk")
            case 4:
                bench.skip(turn % 3, 1 + turn % 5, RunKind.CONTROL)
            case 5:
                bench.send(client, encoded, sequence=1)
            case 6:
                bench.send(client, encoded, base_hash=bytes(8))
            case 7:
                bench.send("w-new", encoded, incarnation=turn, sequence=1)
            case 8:
                bench.send("w-new", encoded, incarnation=1)
            case 9:
                bench.send(client, encoded, base=bench.version + 1)
            case 10:
                bench.step(Cause.DEADLINE)
                bench.append(client, b"")
                bench.step(Cause.DEADLINE)
            case 11 if turn in (35, 71):
                bench.command("pause" if turn == 35 else "resume")
        bench.when_full()
    if bench.fold.consumed:
        bench.step(Cause.DEADLINE)
    return bench


def first_state(rule: str) -> FoldState:
    settings = {"buffer_size": 3, "backlog_buffer_size": 6, **SETTINGS[rule]}
    return genesis(scrambled(SIZE, seed=0), **settings)


@pytest.mark.parametrize("rule", RULES)
def test_the_story_has_everything_in_it(rule: str) -> None:
    bench = story(rule)
    codes = {decision.code for body in bench.bodies for decision in body.decisions}
    assert codes >= {
        None,
        RejectCode.MALFORMED,
        RejectCode.DUPLICATE,
        RejectCode.PASSED,
        RejectCode.UNKNOWN_BASE,
        RejectCode.RETIRED,
        RejectCode.FUTURE_VERSION,
    }
    assert {body.cause for body in bench.bodies} == {Cause.FULL, Cause.DEADLINE, Cause.CONTROL}
    assert {run.kind for body in bench.bodies for run in body.runs} == {RunKind.DATA, RunKind.CONTROL}
    assert len(bench.bodies) > 40


@pytest.mark.parametrize("rule", RULES)
def test_a_record_reads_back_as_what_was_written(rule: str) -> None:
    # Its writer does not read its own again: what it knows must be what everybody else reads.
    for body in story(rule).bodies:
        assert parse(build(height=1, parent=bytes(32), writer=bytes(16), body=body).data).body == body


@pytest.mark.parametrize("rule", RULES)
def test_replay_of_the_recorded_decisions_gives_the_live_bytes_after_every_record(rule: str) -> None:
    bench = story(rule)
    fold = Fold(task=TASK, state=first_state(rule))
    for body, expected in zip(bench.bodies, bench.states, strict=True):
        fold.replay(body, bench.frames)
        assert snapshot(fold.state) == expected


@pytest.mark.parametrize("rule", RULES)
def test_resume_from_every_cut_of_the_log_gives_the_same_bytes(rule: str) -> None:
    """A keyframe after any record, then recorded decisions up to any other: nothing outside the state is remembered."""
    bench = story(rule)
    fold = Fold(task=TASK, state=first_state(rule))
    for cut, body in enumerate(bench.bodies, 1):
        fold.replay(body, bench.frames)
        rest = bench.bodies[cut:] if cut % 10 == 0 else bench.bodies[cut : cut + 2]
        resumed = replayed(copied(fold.state), rest, bench.frames)
        assert snapshot(resumed.state) == bench.states[cut + len(rest) - 1]


@pytest.mark.parametrize("rule", RULES)
def test_two_threads_that_move_a_large_model_leave_the_bytes_of_one(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = story(rule)
    monkeypatch.setattr("aggregator.fold.core.LARGE", 1)
    again = replayed(first_state(rule), bench.bodies, bench.frames)
    assert snapshot(again.state) == bench.states[-1]


@pytest.mark.parametrize("rule", RULES)
def test_the_partial_buffer_is_not_state_and_comes_back_by_reading_again(rule: str) -> None:
    """Inputs since the last record are offered again: the same decisions, the same draft, the same bytes."""
    bench = story(rule)
    keys = {(a.partition, a.offset): a for a in bench.admissions}
    state = first_state(rule)
    for body in bench.bodies:
        before = copied(state)
        live = Fold(task=TASK, state=before)
        if body.cause is not Cause.CONTROL:
            for run in body.runs:
                for offset in range(run.first, run.first + run.count):
                    if run.kind is not RunKind.DATA:
                        live.void(partition=run.partition, first=offset, count=1, kind=run.kind)
                        continue
                    key = key_of(bench, run.partition, offset)
                    again = live.offer(
                        partition=run.partition, offset=offset, key=key, data=bench.frames[run.partition, offset]
                    )
                    assert again.decision == keys[run.partition, offset].decision
            assert live.step(body.cause).body == body
        fold = Fold(task=TASK, state=state)
        fold.replay(body, bench.frames)
        if body.cause is not Cause.CONTROL:
            assert snapshot(live.state) == snapshot(state)


def key_of(bench: Bench, partition: int, offset: int) -> bytes:
    found = next(a for a in bench.admissions if (a.partition, a.offset) == (partition, offset))
    return found.client_id.encode() or b"w-0"


def test_a_replayed_weight_is_the_recorded_one_not_the_rules_own() -> None:
    bench = Bench.of(np.zeros(2, np.float32), buffer_size=1)
    bench.send("a", np.array([1, 1], np.float32))
    body = bench.step().body
    fold = Fold(task=TASK, state=genesis(np.zeros(2, np.float32), buffer_size=1))
    halved = replace(body, decisions=(replace(body.decisions[0], weight=0.5),))
    with pytest.raises(DivergedError, match="state_hash"):
        fold.replay(halved, bench.frames)
    assert fold.state.x.tolist() == [0.5, 0.5]


def test_a_command_that_the_chain_refused_is_not_obeyed_in_replay() -> None:
    bench = Bench.of(np.zeros(2, np.float32))
    body = bench.command("pause").body
    refused = replace(body, decisions=(replace(body.decisions[0], code=RejectCode.MALFORMED),))
    assert not replayed(genesis(np.zeros(2, np.float32)), [refused], bench.frames).state.paused
    assert replayed(genesis(np.zeros(2, np.float32)), [body], bench.frames).state.paused


def damaged_story() -> tuple[Bench, Fold]:
    bench = story("fedbuff")
    return bench, Fold(task=TASK, state=first_state("fedbuff"))


def test_replay_without_an_input_says_that_inputs_are_lost() -> None:
    bench, fold = damaged_story()
    with pytest.raises(InputsLostError, match="no longer holds"):
        fold.replay(bench.bodies[0], {})


def test_replay_over_another_record_at_an_offset_says_that_inputs_are_lost() -> None:
    bench, fold = damaged_story()
    changed = {place: data[:-1] + bytes([data[-1] ^ 1]) for place, data in bench.frames.items() if data}
    with pytest.raises(InputsLostError, match="another record"):
        fold.replay(bench.bodies[0], changed)


@pytest.mark.parametrize("name", ["state_hash", "hidden_hash", "served_hash"])
def test_replay_that_ends_with_another_hash_has_diverged(name: str) -> None:
    bench, fold = damaged_story()
    with pytest.raises(DivergedError, match=name):
        fold.replay(replace(bench.bodies[0], **{name: bytes(32)}), bench.frames)


def test_replay_of_a_record_out_of_turn_is_a_bug() -> None:
    bench, fold = damaged_story()
    with pytest.raises(InvariantError, match="comes next"):
        fold.replay(bench.bodies[1], bench.frames)


def test_replay_into_an_open_buffer_is_a_bug() -> None:
    bench, fold = damaged_story()
    fold.void(partition=0, first=0, count=1, kind=RunKind.LOST)
    with pytest.raises(InvariantError, match="between steps"):
        fold.replay(bench.bodies[0], bench.frames)
