"""A hand-driven device and a running aggregator for tests: everything real except what trains."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import numpy as np

from aggregator.chain.genesis import create_task
from aggregator.shell import Aggregator
from broker_topics.bus import Bus, Position
from broker_topics.codecs import CodecId, encode
from broker_topics.commits_log import CommitsReader
from broker_topics.follow import Follower
from broker_topics.layout import Layout, Tensor
from broker_topics.messages import Update
from broker_topics.record import Record
from broker_topics.task import TaskSettings
from broker_topics.topics import Topic, topic_name

LAYOUT = Layout(tensors=(Tensor(name="w", shape=(2, 3)), Tensor(name="b", shape=(2,))))


async def make_task(bus: Bus, task: str, layout: Layout = LAYOUT, **settings: object) -> None:
    """Create a task whose first model is all zeros; K = 2 unless told otherwise."""
    chosen = TaskSettings(**{"buffer_size": 2, "flush_deadline_s": 60.0, **settings})  # type: ignore[arg-type]
    await create_task(bus, task, settings=chosen, layout=layout, first=np.zeros(layout.size, np.float32), replication=1)


@asynccontextmanager
async def running(bus: Bus, task: str, **settings: object) -> AsyncIterator[Aggregator]:
    """An aggregator that serves while the block runs; its error, if it ends with one, is raised at the end."""
    aggregator = Aggregator(bus=bus, task=task, **settings)  # type: ignore[arg-type]
    service = asyncio.create_task(aggregator.run())
    try:
        yield aggregator
    finally:
        aggregator.stop.set()
        await service


@dataclass
class Device:
    """Sends updates made by hand; knows the newest model through a follower."""

    bus: Bus
    task: str
    client_id: str
    incarnation: int = 1
    sequence: int = 0
    follower: Follower = field(init=False)

    async def enter(self) -> "Device":
        self.follower = Follower(self.bus, self.task)
        await self.follower.enter()
        return self

    def update(self, value: float, **changed: object) -> Update:
        """An update that moves every parameter by `value`."""
        self.sequence += 1
        size = self.follower.layout.size
        fields: dict[str, object] = {
            "task": self.task,
            "client_id": self.client_id,
            "incarnation": self.incarnation,
            "sequence": self.sequence,
            "layout": self.follower.layout.fingerprint,
            "base_version": self.follower.model.version,
            "base_hash": self.follower.last.body.base_hash,
            "num_examples": 8,
            "num_steps": 1,
            "work": 1.0,
        }
        if "encoded" not in changed:
            fields["encoded"] = encode(np.full(size, value, np.float32), CodecId.FLOAT32)
        return Update(**{**fields, **changed})  # type: ignore[arg-type]

    async def send(self, data: bytes) -> Position:
        topic, key = topic_name(self.task, Topic.UPDATES), self.client_id.encode()
        return await self.bus.send(topic, key=key, value=data, partition=await self.bus.partition_for(topic, key))

    async def until_version(self, version: int) -> list[Record]:
        """Follow until the version is official; the records on the way."""
        records: list[Record] = []
        async with asyncio.timeout(90):
            while self.follower.model.version < version:
                records += await self.follower.poll(timeout_s=1.0)
        return records


async def until(true: Callable[[], bool], *, within_s: float = 20.0) -> None:
    """Wait for something to become true; TimeoutError if it does not."""
    async with asyncio.timeout(within_s):
        while not true():
            await asyncio.sleep(0.01)


async def ended(tasks: Iterable["asyncio.Task[None]"]) -> None:
    """Cancel tasks and wait for their end."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def metric(aggregator: Aggregator, name: str, **labels: str) -> float | None:
    """The value of one of the aggregator's metrics."""
    return aggregator.metrics.registry.get_sample_value(name, labels)


async def chain_of(bus: Bus, task: str) -> list[Record]:
    """Every official record from the beginning."""
    commits = CommitsReader(bus, task)
    try:
        return [official.record for official in await commits.to_the_end()]
    finally:
        await commits.close()
