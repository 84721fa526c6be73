"""A standby that follows the chain: what it holds, what it never does, and how it takes over."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from aggregator.fold.outcome import DivergedError
from aggregator.leadership.lease import Told
from aggregator.restore.replay import replay
from aggregator.restore.restart import Replica
from aggregator.shell import Aggregator
from broker_topics.errors import LostRaceError
from broker_topics.memory import MemoryBus
from broker_topics.memory_log import MemoryLog
from broker_topics.parts import part_key
from broker_topics.topics import Topic, topic_name
from tests.fleet import Device, chain_of, make_task, metric, running, until

TASK = "watch"


@pytest.fixture
async def bus():
    async with MemoryBus(MemoryLog()) as bus:
        yield bus


@asynccontextmanager
async def standing_by(bus):
    """A standby, and the word that makes it lead; its error, if it ends with one, is raised at the end."""
    word = asyncio.Event()
    aggregator = Aggregator(bus=bus, task=TASK, election=Told(word))
    service = asyncio.create_task(aggregator.run())
    try:
        yield aggregator, word
    finally:
        aggregator.stop.set()
        await service


async def ends(bus):
    return {topic: await bus.end_offsets(topic_name(TASK, topic)) for topic in Topic}


async def version(bus, number, *names):
    """Send an update of each device and wait for the version that they make."""
    devices = [await Device(bus, TASK, name, sequence=number - 1).enter() for name in names]
    for device in devices:
        await device.send(device.update(float(number)).to_bytes())
    return await devices[0].until_version(number)


async def test_a_standby_is_ready_follows_every_version_and_writes_nothing(bus):
    await make_task(bus, TASK)
    async with standing_by(bus) as (standby, _):
        await until(lambda: standby.readiness.is_ready)
        async with running(bus, TASK):
            for number in (1, 2, 3):
                await version(bus, number, "a", "b")
                await until(lambda number=number: metric(standby, "headwater_model_version") == number)
        before = await ends(bus)
        assert metric(standby, "headwater_leader") == 0
        await asyncio.sleep(0.3)
    assert await ends(bus) == before


async def test_a_standby_that_is_told_to_leads_on_with_the_very_model_of_the_one_before(bus):
    await make_task(bus, TASK, keyframe_every=2)
    async with standing_by(bus) as (standby, word):
        async with running(bus, TASK):
            for number in (1, 2, 3):
                await version(bus, number, "a", "b")
        word.set()
        await version(bus, 4, "a", "b")
        records = await version(bus, 5, "a", "b")
        assert metric(standby, "headwater_leader") == 1
    chain = await chain_of(bus, TASK)
    assert [record.body.version for record in chain] == [0, 1, 2, 3, 4, 5]
    # The first record of a new leader is one that the fleet need not wait for.
    assert [record.body.keyframe for record in chain] == [True, False, True, False, False, True]
    assert records[-1].writer != chain[3].writer
    assert (await replay(bus, TASK)).to_version == 5


async def test_the_updates_that_wait_when_a_standby_takes_over_are_taken_once(bus):
    await make_task(bus, TASK, buffer_size=3, backlog_buffer_size=3)
    a, b, c = [await Device(bus, TASK, name).enter() for name in "abc"]
    async with standing_by(bus) as (_, word):
        async with running(bus, TASK) as first:
            await a.send(a.update(1.0).to_bytes())
            await b.send(b.update(2.0).to_bytes())
            await until(lambda: metric(first, "headwater_buffer_updates") == 2)
        word.set()
        await c.send(c.update(3.0).to_bytes())
        records = await a.until_version(1)
    assert [decision.accepted for decision in records[0].body.decisions] == [True, True, True]
    assert a.follower.model.hidden.tolist() == [2.0] * 8


async def test_two_that_lead_at_once_are_harmless_and_one_ends_with_its_own_code(bus):
    await make_task(bus, TASK)

    async def both():
        async with standing_by(bus) as (standby, word), running(bus, TASK):
            await version(bus, 1, "a", "b")
            word.set()
            await until(lambda: metric(standby, "headwater_leader") == 1)
            await version(bus, 2, "a", "b")
            await version(bus, 3, "a", "b")

    with pytest.raises(LostRaceError):
        await both()
    assert [record.body.version for record in await chain_of(bus, TASK)] == [0, 1, 2, 3]


async def test_a_replica_takes_deltas_from_the_models_topic_and_still_finds_a_model_that_differs(bus):
    await make_task(bus, TASK, keyframe_every=100)
    async with running(bus, TASK):
        for number in (1, 2):
            await version(bus, number, "a", "b")
    replica = Replica(bus, TASK)
    await replica.enter()
    assert replica.replayed == 2
    async with running(bus, TASK):
        await version(bus, 3, "a", "b")
    replica.fold.state.x[3] += 1.0
    with pytest.raises(DivergedError, match="replay up to version 3 ends elsewhere than the chain says"):
        await replica.follow(1.0)
    await replica.close()


async def test_a_replica_whose_model_differs_never_leads_although_its_inputs_are_right(bus):
    await make_task(bus, TASK, keyframe_every=100)
    async with running(bus, TASK):
        await version(bus, 1, "a", "b")
    replica = Replica(bus, TASK)
    await replica.enter()
    replica.fold.state.x[3] += 1.0
    with pytest.raises(DivergedError, match="replay up to version 1 ends elsewhere than the chain says"):
        await replica.lead()
    await replica.close()


async def test_a_replica_makes_deltas_again_that_are_gone(bus):
    await make_task(bus, TASK, keyframe_every=100)
    async with running(bus, TASK):
        for number in (1, 2):
            await version(bus, number, "a", "b")
    models, record = topic_name(TASK, Topic.MODELS), (await chain_of(bus, TASK))[1]
    for ref in record.body.parts:
        key = part_key(height=1, writer=record.writer, digest=ref.digest, name=ref.name, index=ref.index)
        await bus.send(models, key=key, value=None)
    bus.log.partition(models).compact(drop_tombstones=False)
    replica = Replica(bus, TASK)
    await replica.enter()
    assert replica.fold.state.model.version == 2
    await replica.close()


async def test_what_a_standby_hands_over_counts_steps_and_inputs_since_the_newest_keyframe_only(bus):
    await make_task(bus, TASK, keyframe_every=2)
    replica = Replica(bus, TASK)
    await replica.enter()
    async with running(bus, TASK):
        for number in (1, 2, 3):
            await version(bus, number, "a", "b")
    while replica.height < 3:
        await replica.follow(1.0)
    restored = await replica.lead()
    assert (restored.replayed, restored.steps) == (3, 1)
    assert [one.record.body.version for one in restored.keyframes] == [0, 2]
    assert restored.oldest_ms >= restored.keyframes[-1].timestamp_ms
    await replica.close()
    await restored.commits.close()
