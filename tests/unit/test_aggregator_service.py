"""The aggregator's process on the memory bus: from updates in the log to official versions, across restarts."""

import asyncio
import threading

import numpy as np
import pytest

from aggregator.chain.keyframe import load_keyframe
from aggregator.fold.commands import PAUSE, RESUME
from aggregator.restore.replay import replay
from aggregator.serving import Serving
from aggregator.shell import Aggregator
from broker_topics.commits_log import CommitsReader
from broker_topics.errors import BusError, ConfigError, InputsLostError, LostRaceError, RejectCode
from broker_topics.follow import Follower
from broker_topics.memory import MemoryBus
from broker_topics.memory_log import Fault, MemoryLog
from broker_topics.messages import Control, Reject
from broker_topics.models_log import ModelsReader
from broker_topics.record import Cause, RunKind
from broker_topics.topics import Topic, topic_name
from headwater.commands.control import send_until_decided
from tests.fleet import Device, chain_of, ended, make_task, metric, running, until

TASK = "watch"


@pytest.fixture
async def bus():
    async with MemoryBus(MemoryLog()) as bus:
        yield bus


async def devices(bus, *names):
    return [await Device(bus, TASK, name).enter() for name in names]


async def test_two_updates_make_one_official_version_that_devices_follow_bit_for_bit(bus):
    await make_task(bus, TASK, arrival_correction=False)
    a, b = await devices(bus, "a", "b")
    async with running(bus, TASK):
        await a.send(a.update(1.0).to_bytes())
        await b.send(b.update(3.0).to_bytes())
        records = await a.until_version(1)
    assert a.follower.model.hidden.tolist() == [2.0] * 8
    assert [r.body.cause for r in records] == [Cause.FULL]
    assert [d.accepted for d in records[0].body.decisions] == [True, True]
    assert records[0].body.hidden_hash == a.follower.model.hidden_hash()


async def test_a_task_that_exists_is_not_made_again(bus):
    await make_task(bus, TASK)
    with pytest.raises(ConfigError, match="exists already"):
        await make_task(bus, TASK)


async def test_an_unknown_task_is_named_with_the_command_that_makes_it(bus):
    with pytest.raises(ConfigError, match="headwater task create"):
        await Aggregator(bus=bus, task="nobody").run()


async def test_a_waiting_buffer_steps_at_its_deadline(bus):
    await make_task(bus, TASK, buffer_size=100, backlog_buffer_size=100, flush_deadline_s=0.05)
    (a,) = await devices(bus, "a")
    async with running(bus, TASK):
        await a.send(a.update(1.0).to_bytes())
        records = await a.until_version(1)
    assert records[0].body.steps[0].cause is Cause.DEADLINE


async def test_a_restart_replays_the_log_and_goes_on_with_the_same_chain(bus):
    await make_task(bus, TASK)
    a, b = await devices(bus, "a", "b")
    for turn in range(1, 4):
        async with running(bus, TASK):
            await a.send(a.update(1.0).to_bytes())
            await b.send(b.update(2.0).to_bytes())
            await a.until_version(turn)
            await b.until_version(turn)
    chain = await chain_of(bus, TASK)
    assert [r.body.version for r in chain] == [0, 1, 2, 3]
    assert len({r.writer for r in chain}) == 4
    report = await replay(bus, TASK)
    assert (report.to_version, report.accepted, report.chain_head) == (3, 6, chain[-1].hash)


async def test_a_partial_buffer_is_read_again_after_a_restart(bus):
    await make_task(bus, TASK)
    a, b = await devices(bus, "a", "b")
    async with running(bus, TASK) as aggregator:
        await a.send(a.update(1.0).to_bytes())
        await until(lambda: metric(aggregator, "headwater_buffer_updates") == 1)
    async with running(bus, TASK):
        await b.send(b.update(1.0).to_bytes())
        await a.until_version(1)
    chain = await chain_of(bus, TASK)
    assert sum(d.accepted for d in chain[-1].body.decisions) == 2


async def test_an_aggregator_is_ready_once_what_waited_at_its_start_is_judged(bus, monkeypatch):
    await make_task(bus, TASK, buffer_size=2)
    a, b = await devices(bus, "a", "b")
    async with running(bus, TASK) as aggregator:
        await until(lambda: aggregator.readiness.is_ready)
    for device in (a, b):
        await device.send(device.update(1.0).to_bytes())
    go_on = threading.Event()
    real = Serving._offer

    def offer(self, *arguments):
        assert go_on.wait(30)
        return real(self, *arguments)

    monkeypatch.setattr(Serving, "_offer", offer)
    async with running(bus, TASK) as aggregator:
        await until(lambda: aggregator.readiness.reason.startswith("2 updates that waited"))
        assert (aggregator.readiness.is_started, aggregator.readiness.is_ready) == (True, False)
        go_on.set()
        await until(lambda: aggregator.readiness.is_ready)
        await a.until_version(1)


async def test_a_paused_task_is_ready_whatever_waits(bus):
    await make_task(bus, TASK)
    (a,) = await devices(bus, "a")
    async with running(bus, TASK):
        await send_until_decided(bus, TASK, Control(command=PAUSE))
    await a.send(a.update(1.0).to_bytes())
    async with running(bus, TASK) as aggregator:
        await until(lambda: aggregator.readiness.is_ready)
        assert metric(aggregator, "headwater_updates_received_total") == 0


async def test_garbage_is_refused_with_a_code_and_copied_to_rejects(bus):
    await make_task(bus, TASK, flush_deadline_s=0.05)
    (a,) = await devices(bus, "a")
    async with running(bus, TASK):
        await a.send(b"\x00" * 40)
        await a.send(a.update(1.0, layout=7).to_bytes())
        await a.send(a.update(1.0).to_bytes())
        await a.until_version(1)
    codes = [d.code for r in await chain_of(bus, TASK) for d in r.body.decisions]
    assert codes == [RejectCode.MALFORMED, RejectCode.UNKNOWN_LAYOUT, None]
    topic = topic_name(TASK, Topic.REJECTS)
    reader = bus.reader(topic, dict.fromkeys(range(3), 0))
    rejects = [Reject.from_bytes(r.value) for r in await reader.fetch()]
    assert sorted(r.code for r in rejects) == [RejectCode.MALFORMED, RejectCode.UNKNOWN_LAYOUT]


async def test_an_unreadable_record_and_a_gap_are_passed_as_void_runs(bus):
    await make_task(bus, TASK, flush_deadline_s=0.05)
    (a,) = await devices(bus, "a")
    where = await a.send(a.update(1.0).to_bytes())
    partition = bus.log.partition(topic_name(TASK, Topic.UPDATES), where.partition)
    partition.spoil(where.offset)
    partition.leave_gap(2)
    await a.send(a.update(1.0).to_bytes())
    async with running(bus, TASK):
        await a.until_version(1)
    runs = [run for r in await chain_of(bus, TASK) for run in r.body.runs]
    assert [(run.kind, run.count) for run in runs] == [
        (RunKind.UNREADABLE, 1),
        (RunKind.CONTROL, 2),
        (RunKind.DATA, 1),
    ]
    rejects = [Reject.from_bytes(r.value) for r in await bus.reader(topic_name(TASK, Topic.REJECTS), {0: 0}).fetch()]
    assert [(r.code, r.partition, r.offset) for r in rejects] == [("unreadable", where.partition, where.offset)]


async def test_a_command_that_cannot_be_read_is_passed_and_a_restart_passes_it_again(bus):
    await make_task(bus, TASK, buffer_size=1)
    (a,) = await devices(bus, "a")
    control = bus.log.partition(topic_name(TASK, Topic.CONTROL), 0)
    control.spoil(control.append(b"operator", b"torn"))
    async with running(bus, TASK):
        await until(lambda: len(bus.log.partition(topic_name(TASK, Topic.COMMITS), 0).records) == 2)
        await a.send(a.update(1.0).to_bytes())
        await a.until_version(1)
    async with running(bus, TASK):
        await a.send(a.update(1.0).to_bytes())
        await a.until_version(2)
    runs = [(run.kind, run.partition) for r in await chain_of(bus, TASK) for run in r.body.runs]
    assert runs[0] == (RunKind.UNREADABLE, 12)


async def test_a_few_updates_more_than_k_that_came_together_do_not_wait_for_others(bus):
    await make_task(bus, TASK, buffer_size=2, flush_deadline_s=60.0)
    crowd = await devices(bus, "a", "b", "c")
    async with running(bus, TASK) as aggregator:
        await send_until_decided(bus, TASK, Control(command=PAUSE))
        for device in crowd:
            place = await device.send(device.update(1.0).to_bytes())
        await until(lambda: metric(aggregator, "headwater_consumer_lag_records", partition=str(place.partition)) == 1)
        await send_until_decided(bus, TASK, Control(command=RESUME))
        records = await crowd[0].until_version(1)
    assert [step.cause for step in records[-1].body.steps] == [Cause.FULL]


async def test_the_first_step_of_a_leader_takes_k_updates_and_the_next_what_waits(bus):
    await make_task(bus, TASK, buffer_size=2, backlog_buffer_size=40)
    fleet = await devices(bus, *(f"d{number}" for number in range(20)))
    for device in fleet:
        await device.send(device.update(1.0).to_bytes())
    async with running(bus, TASK):
        await fleet[0].until_version(2)
    inputs = [step.inputs for record in await chain_of(bus, TASK) for step in record.body.steps]
    assert inputs[:2] == [2, 18]


async def test_an_append_whose_answer_is_lost_enters_the_chain_once(bus):
    await make_task(bus, TASK)
    a, b = await devices(bus, "a", "b")
    commits = topic_name(TASK, Topic.COMMITS)
    lost = iter([Fault(outcome="unacknowledged")])
    bus.log.on_send = lambda topic, *_: next(lost, None) if topic == commits else None
    async with running(bus, TASK):
        await a.send(a.update(1.0).to_bytes())
        await b.send(b.update(1.0).to_bytes())
        await a.until_version(1)
    assert [r.height for r in await chain_of(bus, TASK)] == [0, 1]


async def test_of_two_aggregators_at_once_one_wins_and_the_other_ends_with_lost_race(bus):
    await make_task(bus, TASK)
    a, b = await devices(bus, "a", "b")
    aggregators = [Aggregator(bus=bus, task=TASK) for _ in range(2)]
    rivals = [asyncio.create_task(aggregator.run()) for aggregator in aggregators]
    # Who starts after the first record was written has no rival in it.
    await until(lambda: all(aggregator.readiness.is_started for aggregator in aggregators))
    await a.send(a.update(1.0).to_bytes())
    await b.send(b.update(1.0).to_bytes())
    await a.until_version(1)
    done, still = await asyncio.wait(rivals, return_when=asyncio.FIRST_COMPLETED, timeout=20)
    assert [type(task.exception()) for task in done] == [LostRaceError]
    await ended(still)
    assert [r.height for r in await chain_of(bus, TASK)] == [0, 1]


async def test_inputs_cut_from_the_log_stop_the_start(bus):
    await make_task(bus, TASK)
    a, b = await devices(bus, "a", "b")
    async with running(bus, TASK):
        where = await a.send(a.update(1.0).to_bytes())
        await b.send(b.update(1.0).to_bytes())
        await a.until_version(1)
    partition = bus.log.partition(topic_name(TASK, Topic.UPDATES), where.partition)
    partition.cut(where.offset)
    with pytest.raises(InputsLostError):
        await Aggregator(bus=bus, task=TASK).run()


async def test_a_follower_that_missed_keyframes_ends_with_the_same_bytes(bus):
    await make_task(bus, TASK, keyframe_every=2)
    a, b = await devices(bus, "a", "b")
    late = await Device(bus, TASK, "late").enter()
    async with running(bus, TASK):
        for version in range(1, 6):
            await a.send(a.update(0.5).to_bytes())
            await b.send(b.update(-0.25 * version).to_bytes())
            await a.until_version(version)
            await b.until_version(version)
    await late.until_version(5)
    fresh = Follower(bus, TASK)
    await fresh.enter()
    for model in (late.follower.model, fresh.model):
        assert np.array_equal(model.hidden, a.follower.model.hidden)
        assert np.array_equal(model.served, a.follower.model.served)
    older = Follower(bus, TASK)
    await older.enter(until=3)
    assert older.model.version == 3


async def test_a_false_head_is_not_followed(bus):
    await make_task(bus, TASK)
    topic = topic_name(TASK, Topic.MODELS)
    await bus.send(topic, key=b"head", value=b"not a head")
    follower = Follower(bus, TASK)
    await follower.enter()
    assert follower.last.height == 0
    commits = CommitsReader(bus, TASK)
    assert len(await commits.to_the_end()) == 1


async def test_every_keyframe_holds_its_own_version_although_the_fold_runs_ahead(bus):
    await make_task(bus, TASK, buffer_size=1, backlog_buffer_size=1, keyframe_every=2)
    fleet = await devices(bus, *"abcdefgh")
    for device in fleet:
        await device.send(device.update(1.0).to_bytes())
    async with running(bus, TASK):
        await fleet[0].until_version(8)
    models = ModelsReader(bus, TASK)
    keyframes = [record for record in await chain_of(bus, TASK) if record.body.keyframe]
    states = [await load_keyframe(models, record) for record in keyframes]
    assert [state.model.version for state in states] == [0, 2, 4, 6, 8]


async def test_a_keyframe_is_written_before_retention_takes_what_only_replay_still_knows():
    now = [1_000_000.0]
    async with MemoryBus(MemoryLog(now_s=lambda: now[0])) as bus:
        await make_task(bus, TASK, buffer_size=1)
        (a,) = await devices(bus, "a")
        aggregator = Aggregator(bus=bus, task=TASK, now_s=lambda: now[0])
        service = asyncio.create_task(aggregator.run())
        await a.send(a.update(1.0).to_bytes())
        await a.until_version(1)
        now[0] += 2 * 24 * 3600
        await a.send(a.update(1.0).to_bytes())
        await a.until_version(2)
        await ended([service])
        assert [record.body.keyframe for record in await chain_of(bus, TASK)] == [True, False, True]


@pytest.mark.parametrize("wrong_s", [-365 * 86_400, 365 * 86_400])
async def test_an_aggregator_whose_clock_is_a_year_off_writes_no_more_keyframes(wrong_s):
    async with MemoryBus(MemoryLog(now_s=lambda: 1e9)) as bus:
        await make_task(bus, TASK, buffer_size=1)
        (a,) = await devices(bus, "a")
        aggregator = Aggregator(bus=bus, task=TASK, now_s=lambda: 1e9 + wrong_s)
        service = asyncio.create_task(aggregator.run())
        for version in (1, 2, 3):
            await a.send(a.update(1.0).to_bytes())
            await a.until_version(version)
        await ended([service])
        assert [record.body.keyframe for record in await chain_of(bus, TASK)] == [True, False, False, False]


async def test_an_aggregator_that_starts_before_its_broker_waits_for_it_and_says_so(bus):
    await make_task(bus, TASK)
    bus.log.down = True
    aggregator = Aggregator(bus=bus, task=TASK, patience_s=60)
    service = asyncio.create_task(aggregator.run())
    await until(lambda: aggregator.readiness.reason.startswith("waits for the broker: "))
    assert (aggregator.readiness.is_started, aggregator.readiness.is_ready) == (False, False)
    bus.log.down = False
    await until(lambda: aggregator.readiness.is_ready)
    aggregator.stop.set()
    await service


async def test_an_aggregator_whose_patience_is_over_ends_with_the_brokers_own_error(bus):
    await make_task(bus, TASK)
    bus.log.down = True
    with pytest.raises(BusError, match="down"):
        await Aggregator(bus=bus, task=TASK, patience_s=0.05).run()


async def test_an_aggregator_that_waits_for_its_broker_can_be_stopped(bus):
    await make_task(bus, TASK)
    bus.log.down = True
    aggregator = Aggregator(bus=bus, task=TASK, patience_s=3600)
    service = asyncio.create_task(aggregator.run())
    await until(lambda: aggregator.readiness.reason.startswith("waits for the broker: "))
    aggregator.stop.set()
    async with asyncio.timeout(5):
        await service
