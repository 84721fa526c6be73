"""Prepared work for an aggregator: a task, and updates of so many distinct devices that all of them are accepted."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from aggregator.chain.genesis import create_task
from broker_topics.bus import Bus
from broker_topics.codecs import CodecId, Encoded, encode
from broker_topics.layout import Layout, Tensor
from broker_topics.messages import Update
from broker_topics.partitions import partition_of
from broker_topics.record import Record
from broker_topics.task import TaskSettings
from broker_topics.topics import UPDATE_PARTITIONS, Topic, topic_name

_PAYLOADS = 32
_TOGETHER = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A task made for a measurement, and what an update of it needs to know."""

    bus: Bus
    name: str
    layout: Layout
    genesis: Record


async def make_task(bus: Bus, name: str, size: int, **settings: object) -> Task:
    """Create a task whose first model is `size` small random numbers."""
    layout = Layout(tensors=(Tensor(name="w", shape=(size,)),))
    first = np.random.default_rng(0).standard_normal(size, dtype=np.float32) * np.float32(0.1)
    chosen = TaskSettings(**settings)  # type: ignore[arg-type]
    official = await create_task(bus, name, settings=chosen, layout=layout, first=first, replication=1)
    return Task(bus=bus, name=name, layout=layout, genesis=official.record)


async def forget_task(bootstrap: str, name: str) -> None:
    """Delete the task's topics and with them what they hold on disk."""
    from aiokafka.admin import AIOKafkaAdminClient

    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.delete_topics([topic_name(name, topic) for topic in Topic])
    finally:
        await admin.close()


def updates(
    task: Task, count: int, *, density: float = 0.01, first: int = 0, kinds: int = _PAYLOADS
) -> Iterator[tuple[bytes, bytes]]:
    """Key and record of one update each of `count` devices, all trained from the first model."""
    payloads = [_payload(task.layout.size, density, seed) for seed in range(min(count, kinds))]
    for number in range(first, first + count):
        update = Update(
            task=task.name,
            client_id=f"w-{number}",
            incarnation=1,
            sequence=1,
            layout=task.layout.fingerprint,
            base_version=0,
            base_hash=task.genesis.body.base_hash,
            num_examples=32,
            num_steps=20,
            work=1.0,
            encoded=payloads[number % len(payloads)],
        )
        yield update.client_id.encode(), update.to_bytes()


async def send_all(task: Task, records: Iterator[tuple[bytes, bytes]]) -> int:
    """Put records into the task's updates topic; how many bytes they have."""
    topic, total = topic_name(task.name, Topic.UPDATES), 0

    async def sender() -> None:
        nonlocal total
        for key, value in records:
            total += len(value)
            await task.bus.send(topic, key=key, value=value, partition=partition_of(key, UPDATE_PARTITIONS))

    await asyncio.gather(*(sender() for _ in range(_TOGETHER)))
    return total


def _payload(size: int, density: float, seed: int) -> Encoded:
    vector = np.random.default_rng(seed).standard_normal(size, dtype=np.float32) * np.float32(1e-3)
    return encode(vector, CodecId.SPARSE, density=density)
