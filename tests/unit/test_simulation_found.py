"""Errors that the simulation found, each as the shortest story that shows it."""

import asyncio

import pytest

from aggregator.shell import Aggregator
from broker_topics.entry import ChainLostError
from broker_topics.errors import InputsLostError
from broker_topics.follow import Follower
from broker_topics.memory import MemoryBus
from broker_topics.memory_log import MemoryLog
from broker_topics.topics import Topic, topic_name
from tests.fleet import Device, chain_of, make_task, running, until

TASK = "watch"


@pytest.fixture
async def bus():
    async with MemoryBus(MemoryLog()) as bus:
        yield bus


async def test_an_aggregator_that_is_often_restarted_still_writes_its_keyframes(bus):
    await make_task(bus, TASK, buffer_size=1, keyframe_every=3)
    device = await Device(bus, TASK, "a").enter()
    for version in range(1, 7):
        async with running(bus, TASK):
            await device.send(device.update(1.0).to_bytes())
            await device.until_version(version)
    assert [r.body.version for r in await chain_of(bus, TASK) if r.body.keyframe] == [0, 3, 6]


async def test_a_writer_whose_next_inputs_were_deleted_ends_with_the_code_for_it(bus):
    await make_task(bus, TASK)
    aggregator = Aggregator(bus=bus, task=TASK)
    service = asyncio.create_task(aggregator.run())
    await until(lambda: aggregator.readiness.is_started)
    partition = bus.log.partition(topic_name(TASK, Topic.UPDATES), 3)
    for _ in range(3):
        partition.append(b"a", b"never read")
    partition.delete_before(2)
    with pytest.raises(InputsLostError):
        await service


async def test_a_newcomer_waits_for_a_keyframe_where_a_delta_was_lost(bus):
    await make_task(bus, TASK, buffer_size=1, keyframe_every=50)
    device = await Device(bus, TASK, "a").enter()
    async with running(bus, TASK):
        for version in (1, 2):
            await device.send(device.update(1.0).to_bytes())
            await device.until_version(version)
    models = bus.log.partition(topic_name(TASK, Topic.MODELS))
    models.records.remove(next(record for record in models.records if b"/delta-" in (record.key or b"")))
    with pytest.raises(ChainLostError, match="keyframe"):
        await Follower(bus, TASK).enter()
