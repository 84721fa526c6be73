"""The fold's own rules: offsets without gaps, when a step is due, what a record says, commands, bounded memory."""

import tracemalloc

import numpy as np
import pytest

from aggregator.fold.core import Fold
from aggregator.fold.state import FoldState
from broker_topics.chain import continues
from broker_topics.codecs import CodecId, encode
from broker_topics.errors import ConfigError, InvariantError, RejectCode, WireError
from broker_topics.hashing import tree_hash
from broker_topics.messages import Control
from broker_topics.record import Cause, Run, RunKind, Step, build
from tests.folding import CONTROL, TASK, Bench, copied, genesis, layout_of, snapshot, vector


def test_a_genesis_draft_is_version_zero_with_nothing_consumed() -> None:
    state = genesis(vector(1, 2), buffer_size=3)
    draft = Fold(task=TASK, state=state).step(Cause.GENESIS)
    body = draft.body
    assert (body.version, body.steps, body.runs, body.decisions, draft.delta) == (0, (), (), (), None)
    assert body.vector == (0, 0, 0, 0)
    assert body.hidden_hash == body.served_hash == body.state_hash == tree_hash(vector(1, 2))
    assert continues(None, body)


def test_a_first_model_is_copied() -> None:
    first = vector(1, 2)
    state = genesis(first)
    first[:] = 9
    assert [values.tolist() for values in state.vectors().values()] == [[1, 2]] * 3


@pytest.mark.parametrize("first", [np.zeros(3, np.float32), np.zeros(2), vector(1, np.inf)])
def test_a_first_model_that_does_not_fit_is_refused(first: np.ndarray) -> None:
    with pytest.raises(ConfigError, match="2 finite float32"):
        FoldState.genesis(settings=genesis(vector(0)).settings, layout=layout_of(2), first=first, vector=[0, 0])


def test_every_record_continues_the_last_one_and_fits_the_chain() -> None:
    bench = Bench.of(vector(0), buffer_size=2)
    bench.step(Cause.GENESIS)
    for turn in range(10):
        bench.send(f"w-{turn % 5}", vector(1))
        bench.append("b", b"junk")
        if turn == 3:
            bench.skip(1, 4, RunKind.CONTROL)
        bench.when_full()
    bench.command("pause")
    last = None
    for height, body in enumerate(bench.bodies):
        assert continues(last, body)
        parent = last.hash if last else bytes(32)
        last = build(height=height, parent=parent, writer=bytes(16), body=body)


def test_runs_say_in_which_order_the_partitions_were_read() -> None:
    bench = Bench.of(vector(0), buffer_size=10)
    for partition in (0, 0, 2, 2, 0, 1):
        bench.append("a", b"junk", partition=partition)
    bench.skip(1, 3, RunKind.UNREADABLE)
    bench.skip(1, 2, RunKind.UNREADABLE)
    bench.skip(1, 2, RunKind.LOST)
    draft = bench.step(Cause.DEADLINE)
    assert draft.body.runs == (
        Run(0, 0, 2),
        Run(2, 0, 2),
        Run(0, 2, 1),
        Run(1, 0, 1),
        Run(1, 1, 5, RunKind.UNREADABLE),
        Run(1, 6, 2, RunKind.LOST),
    )
    assert draft.body.vector == (3, 8, 2, 0)
    assert len(draft.body.decisions) == 6


def test_pending_counts_accepted_updates_and_consumed_counts_everything() -> None:
    bench = Bench.of(vector(0), buffer_size=10)
    bench.send("a", vector(1))
    bench.append("a", b"junk")
    bench.skip(0, 7, RunKind.CONTROL)
    assert (bench.fold.pending, bench.fold.consumed) == (1, 9)
    assert bench.step().body.steps == (Step(1, Cause.FULL),)
    assert (bench.fold.pending, bench.fold.consumed) == (0, 0)


@pytest.mark.parametrize(("lag", "limit"), [(0, 5), (5, 5), (6, 6), (39, 39), (41, 40), (100_000, 40)])
def test_a_step_takes_what_waits_in_the_log_but_no_more_than_allowed(lag: int, limit: int) -> None:
    assert Bench.of(vector(0), buffer_size=5, backlog_buffer_size=40).fold.limit(lag) == limit


def test_fedasync_steps_at_every_update_whatever_waits() -> None:
    fold = Bench.of(vector(0), rule="fedasync", buffer_size=5).fold
    assert [fold.limit(0), fold.limit(1000)] == [1, 1]


@pytest.mark.parametrize(("partition", "offset"), [(0, 1), (0, -1), (7, 0), (-1, 0)])
def test_an_offset_that_is_not_the_next_one_is_a_bug_of_the_shell(partition: int, offset: int) -> None:
    bench = Bench.of(vector(0))
    before = snapshot(bench.state)
    with pytest.raises(InvariantError, match="comes next"):
        bench.fold.offer(partition=partition, offset=offset, key=b"a", data=b"")
    with pytest.raises(InvariantError, match="comes next"):
        bench.fold.void(partition=partition, first=offset, count=1, kind=RunKind.LOST)
    assert snapshot(bench.state) == before


@pytest.mark.parametrize(("count", "kind"), [(0, RunKind.LOST), (1, RunKind.DATA)])
def test_a_void_run_holds_offsets_and_no_data(count: int, kind: RunKind) -> None:
    with pytest.raises(InvariantError):
        Bench.of(vector(0)).fold.void(partition=0, first=0, count=count, kind=kind)


def test_the_last_crc_is_that_of_the_input_right_before_the_vector() -> None:
    bench = Bench.of(vector(0))
    admission = bench.append("a", b"junk", partition=1)
    assert bench.state.last_crc == [None, admission.decision.crc, None, None]
    bench.skip(1, 1, RunKind.CONTROL)
    assert bench.state.last_crc == [None] * 4


def test_pause_and_resume_are_state_and_have_records_of_their_own() -> None:
    bench = Bench.of(vector(0), buffer_size=10)
    bench.send("a", vector(10))
    draft = bench.command("pause")
    assert bench.state.paused
    assert [(d.cause, len(d.steps), len(d.decisions)) for d in bench.bodies] == [
        (Cause.CONTROL, 1, 1),
        (Cause.CONTROL, 0, 1),
    ]
    assert draft.body.decisions[0].accepted
    assert copied(bench.state).paused
    bench.command("resume")
    assert not bench.state.paused
    assert bench.state.vector[CONTROL] == 2


@pytest.mark.parametrize("data", [b"", b"junk", Control(command="explode").to_bytes()])
def test_a_command_that_nobody_knows_is_malformed_and_changes_nothing(data: bytes) -> None:
    bench = Bench.of(vector(0))
    assert bench.fold.command(offset=0, data=data).code is RejectCode.MALFORMED
    assert not bench.state.paused


def test_a_command_waits_until_the_buffer_is_closed() -> None:
    bench = Bench.of(vector(0))
    bench.send("a", vector(1))
    with pytest.raises(InvariantError, match="step before"):
        bench.fold.command(offset=0, data=Control(command="pause").to_bytes())


def test_a_step_without_accepted_updates_leaves_version_and_model_alone() -> None:
    bench = Bench.of(vector(5), buffer_size=2)
    bench.send("a", vector(1))
    first = bench.step().body
    bench.append("a", b"junk")
    draft = bench.step(Cause.DEADLINE)
    second = draft.body
    assert (second.version, second.steps, draft.delta) == (1, (), None)
    assert (second.state_hash, second.hidden_hash, second.served_hash) == (
        first.state_hash,
        first.hidden_hash,
        first.served_hash,
    )


def test_the_state_hash_covers_the_optimizer() -> None:
    bench = Bench.of(vector(0), buffer_size=1, server_optimizer="momentum")
    bench.send("a", vector(1))
    assert bench.step().body.state_hash == tree_hash(vector(1), vector(1))


def test_a_keyframe_of_another_optimizer_or_model_is_not_sound() -> None:
    state = Bench.of(vector(0, 0), server_optimizer="momentum").state
    vectors = state.vectors()
    broken = [
        {name: values for name, values in vectors.items() if name != "velocity"},
        {**vectors, "more": vector(0, 0)},
        {**vectors, "x": vector(0)},
        {**vectors, "x": np.zeros(2)},
    ]
    for wrong in broken:
        with pytest.raises(WireError):
            FoldState.restore(state.meta(), wrong)


def test_no_damaged_server_state_passes_for_sound_or_raises_another_error() -> None:
    bench = Bench.of(vector(0, 0), buffer_size=1)
    for name in "abc":
        bench.send(name, vector(1, 2))
        bench.step()
    meta, vectors = bench.state.meta(), bench.state.vectors()
    for cut in range(0, len(meta), 7):
        with pytest.raises(WireError):
            FoldState.restore(meta[:cut], vectors)
    for at in range(len(meta)):
        damaged = bytearray(meta)
        damaged[at] ^= 0xFF
        try:
            FoldState.restore(bytes(damaged), vectors).meta()
        except WireError:
            continue


def test_the_size_of_the_vectors_is_read_from_the_server_state_alone() -> None:
    assert FoldState.size_of(Bench.of(np.zeros(321, np.float32)).state.meta()) == 321
    with pytest.raises(WireError):
        FoldState.size_of(b"")


def test_a_step_needs_at_most_two_models_of_memory_beyond_its_vectors() -> None:
    size = 4_000_000
    bench = Bench.of(np.zeros(size, np.float32), buffer_size=1, server_optimizer="momentum")
    delta = np.zeros(size, np.float32)
    delta[::10] = 1.0
    data = bench.frame("a", encode(delta, CodecId.SPARSE, density=0.01))
    bench.append("a", data)
    tracemalloc.start()
    try:
        bench.step()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= 2 * 4 * size


def test_what_is_handed_in_is_not_modified() -> None:
    bench = Bench.of(vector(0, 0), buffer_size=1)
    data = bench.frame("a", vector(1, 2))
    kept = bytes(bytearray(data))
    bench.append("a", data)
    bench.step()
    assert data == kept
