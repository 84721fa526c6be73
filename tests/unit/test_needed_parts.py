"""Parts of models that a disk loses in the middle of the topic: found without being asked for, and mended."""

import pytest

from aggregator import serving
from aggregator.chain import committer, needed_parts
from broker_topics.errors import ConfigError
from broker_topics.memory import MemoryBus
from broker_topics.memory_log import Fault, MemoryLog
from broker_topics.topics import Topic, topic_name
from tests.fleet import Device, chain_of, make_task, metric, running, until

TASK = "watch"


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needed_parts, "_EVERY_S", 0.01)
    monkeypatch.setattr(serving, "_IDLE_S", 0.05)


@pytest.mark.parametrize(("height", "name"), [(0, "served"), (1, "delta")])
@pytest.mark.usefixtures("quickly")
async def test_a_part_that_newcomers_need_and_the_log_lost_is_mended_by_a_keyframe_although_nobody_sends(
    height: int, name: str
) -> None:
    async with MemoryBus(MemoryLog()) as bus:
        await make_task(bus, TASK, keyframe_every=100, buffer_size=1)
        device = await Device(bus, TASK, "a").enter()
        async with running(bus, TASK):
            await device.send(device.update(1.0).to_bytes())
            await device.until_version(1)
            chain = await chain_of(bus, TASK)
            assert [record.body.keyframe for record in chain] == [True, False]
            (lost,) = [part.offset for part in chain[height].body.parts if part.name == name]
            bus.log.partition(topic_name(TASK, Topic.MODELS)).spoil(lost)
            await until(lambda: bus.log.partition(topic_name(TASK, Topic.COMMITS)).end == 3)
        assert [record.body.keyframe for record in await chain_of(bus, TASK)] == [True, False, True]
        newcomer = await Device(bus, TASK, "b").enter()
        assert newcomer.follower.model.version == 1


@pytest.mark.usefixtures("quickly")
async def test_a_keyframe_for_a_lost_part_that_the_broker_refuses_is_tried_again_without_an_empty_record(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(committer, "_KEYFRAME_AGAIN_S", 0.05)
    refused: list[bytes] = []

    def refuse_twice(topic: str, partition: int, key: bytes | None, value: bytes | None) -> Fault | None:
        if len(refused) < 2 and key is not None and key.endswith(b"server-0"):
            refused.append(key)
            raise ConfigError("larger than the topic's max.message.bytes")
        return None

    async with MemoryBus(MemoryLog()) as bus:
        await make_task(bus, TASK)
        (first,) = await chain_of(bus, TASK)
        bus.log.on_send = refuse_twice
        async with running(bus, TASK) as aggregator:
            await until(lambda: metric(aggregator, "headwater_leader") == 1)
            bus.log.partition(topic_name(TASK, Topic.MODELS)).spoil(first.body.parts[-1].offset)
            await until(lambda: bus.log.partition(topic_name(TASK, Topic.COMMITS)).end == 2)
        assert len(refused) == 2
        assert [record.body.keyframe for record in await chain_of(bus, TASK)] == [True, True]
