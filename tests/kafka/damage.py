"""Tasks to hurt on a real broker, and how an aggregator stops at the damage and goes on once it is accepted."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from aggregator.restore.recovery import Accept
from aggregator.shell import Aggregator
from broker_topics.bus import Position
from broker_topics.chain import settled_in
from broker_topics.errors import HeadwaterError
from broker_topics.kafka import KafkaBus
from broker_topics.record import Cause, Decision
from broker_topics.topics import Topic, topic_name
from tests.fleet import Device, chain_of, make_task, running, until

VERSIONS = 6


@dataclass(frozen=True, slots=True)
class Made:
    """One task with six versions by one device, whose updates lie one after the other in one partition."""

    name: str
    places: tuple[Position, ...]

    @property
    def partition(self) -> int:
        return self.places[0].partition

    def topic(self, topic: Topic) -> str:
        return topic_name(self.name, topic)


async def make(bus: KafkaBus, name: str) -> Made:
    await make_task(bus, name, buffer_size=1, flush_deadline_s=0.3)
    device = await Device(bus, name, "a").enter()
    places = []
    async with running(bus, name):
        for version in range(1, VERSIONS + 1):
            places.append(await device.send(device.update(float(version)).to_bytes()))
            await device.until_version(version)
    return Made(name, tuple(places))


async def refused(bus: KafkaBus, task: str, *, status: int = 76, **accept: bool) -> str:
    """What the start of an aggregator says that must end with this status."""
    with pytest.raises(HeadwaterError) as caught:
        async with asyncio.timeout(60):
            await Aggregator(bus=bus, task=task, accept=Accept(**accept)).run()
    assert caught.value.exit_code == status, caught.value
    return str(caught.value)


@asynccontextmanager
async def accepting(bus: KafkaBus, task: str, **accept: bool) -> AsyncIterator[Aggregator]:
    """An aggregator that serves although something is lost, once it has said so in the chain."""
    aggregator = Aggregator(bus=bus, task=task, accept=Accept(**accept))
    service = asyncio.create_task(aggregator.run())
    try:
        await until(lambda: service.done() or aggregator.readiness.is_ready, within_s=60)
        yield aggregator
    finally:
        aggregator.stop.set()
        await service


async def goes_on(bus: KafkaBus, task: str, client: str = "newcomer") -> None:
    """A newcomer is heard, and the log keeps every rule that it can after its loss."""
    newcomer = await Device(bus, task, client).enter()
    place = await newcomer.send(newcomer.update(1.0).to_bytes())
    decision = None
    async with asyncio.timeout(90):
        while decision is None:  # the next version may be the repair's
            for record in await newcomer.follower.poll(timeout_s=1.0):
                decision = decision or settled_in(record.body, place.partition, place.offset)
    assert isinstance(decision, Decision)
    assert decision.accepted


async def repairs(bus: KafkaBus, task: str) -> list[str]:
    return [record.body.note for record in await chain_of(bus, task) if record.body.cause is Cause.REPAIR]
