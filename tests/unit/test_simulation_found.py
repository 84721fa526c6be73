"""Errors that the simulation found, each as the shortest story that shows it."""

import pytest

from broker_topics.memory import MemoryBus
from broker_topics.memory_log import MemoryLog
from tests.fleet import Device, chain_of, make_task, running

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
