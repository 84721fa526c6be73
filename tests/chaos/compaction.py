"""Compaction within seconds instead of a day, so that what it takes away is taken away before a run ends."""

import asyncio
from collections.abc import Mapping

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from broker_topics.bus import Bus
from broker_topics.topics import Topic, topic_name, topic_specs

AT_ONCE = {
    "min.compaction.lag.ms": "0",
    "max.compaction.lag.ms": "1000",
    "min.cleanable.dirty.ratio": "0.001",
    "segment.ms": "500",
    "delete.retention.ms": "0",
}
_WAIT_S = 60.0


def compacting() -> Mapping[str, str]:
    """Settings of a broker that looks for work to compact all the time."""
    return {"log.cleaner.backoff.ms": "200", "log.retention.check.interval.ms": "500"}


async def compact_at_once(bootstrap: str, task: str) -> None:
    """Let the models topic of a task be compacted as soon as a segment is half a second old."""
    name = topic_name(task, Topic.MODELS)
    spec = next(spec for spec in topic_specs(task, replication=1) if spec.name == name)
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        wanted = ConfigResource(ConfigResourceType.TOPIC, name, configs={**spec.settings, **AT_ONCE})
        answer = await admin.alter_configs([wanted])
        assert all(code == 0 for response in answer for code, *_ in response.resources), answer
    finally:
        await admin.close()


async def until_compacted(bus: Bus, task: str) -> int:
    """Wait until compaction has taken something from the models topic; how many records."""
    async with asyncio.timeout(_WAIT_S):
        while not (gone := await _gone(bus, topic_name(task, Topic.MODELS))):
            await asyncio.sleep(0.2)
    return gone


async def _gone(bus: Bus, topic: str) -> int:
    start, end = (await bus.start_offsets(topic))[0], (await bus.end_offsets(topic))[0]
    reader, there = bus.reader(topic, {0: start}), 0
    try:
        while reader.position(0) < end:
            there += len(await reader.fetch(timeout_s=5.0))
    finally:
        await reader.close()
    return max(0, end - there)
