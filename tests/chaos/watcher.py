"""A reader that follows a task through every outage, as a device does, and writes down all that it saw."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from aggregator.verify import Seen, Stall
from broker_topics.bus import Bus
from broker_topics.chain import ChainPosition
from broker_topics.errors import BusError, WireError
from broker_topics.follow import Follower
from broker_topics.record import Record
from broker_topics.topics import Topic, topic_name
from tests.fleet import ended

RECOVERED_S = 100.0
"""How long a fleet may take to be at work again; longer than a minute is a violation all the same."""

_PAUSE_S = 0.2


class Watcher:
    """`seen` is what it took for official, in the order of seeing; `vector` and `accepted` are where the chain is."""

    def __init__(self, bus: Bus, task: str) -> None:
        self.seen: list[Seen] = []
        self.vector: tuple[int, ...] = ()
        self.accepted = 0
        self._bus, self._task = bus, task
        self._moved = asyncio.Condition()

    async def run(self) -> None:
        """Follow for ever; entered anew at the newest model after every outage."""
        since: ChainPosition | None = None
        while True:
            follower = Follower(self._bus, self._task)
            try:
                if not await follower.enter(since):
                    await self._see([follower.last])
                while True:
                    await self._see(await follower.poll(timeout_s=0.5))
                    since = follower.position
            except (BusError, WireError):
                await asyncio.sleep(_PAUSE_S)
            finally:
                await follower.close()

    async def _see(self, records: Sequence[Record]) -> None:
        for record in records:
            self.seen.append(
                Seen(reader="watcher", height=record.height, hash=record.hash.hex(), version=record.body.version)
            )
            self.vector = record.body.vector
            self.accepted += sum(decision.accepted for decision in record.body.decisions)
        async with self._moved:
            self._moved.notify_all()

    async def until_accepted(self, count: int) -> None:
        """Wait until so many updates were accepted since it began."""
        async with self._moved:
            await self._moved.wait_for(lambda: self.accepted >= count)

    async def caught_up(self) -> list[Stall]:
        """Wait until all that lies in the log now is decided; how long each partition took for it."""
        clock = asyncio.get_running_loop().time
        began, ends = clock(), await self._ends()
        stalls: dict[int, Stall] = {}
        async with self._moved:
            while len(stalls) < len(ends):
                for partition, end in ends.items():
                    if partition not in stalls and self.vector and self.vector[partition] >= end:
                        stalls[partition] = Stall(what=f"partition {partition}", seconds=clock() - began)
                if len(stalls) < len(ends):
                    await self._moved.wait()
        return list(stalls.values())

    async def recovered(self, within_s: float) -> list[Stall]:
        """Wait until what lies in the log is decided and new work follows; how long that took by partition."""
        async with asyncio.timeout(within_s):
            stalls = await self.caught_up()
            await self.until_accepted(self.accepted + 8)
        return stalls

    async def _ends(self) -> dict[int, int]:
        while True:
            try:
                return await self._bus.end_offsets(topic_name(self._task, Topic.UPDATES))
            except BusError:
                await asyncio.sleep(_PAUSE_S)


@asynccontextmanager
async def watching(bus: Bus, task: str) -> AsyncIterator[Watcher]:
    """A watcher that follows while the block runs; an error that ends it is raised at the end."""
    watcher = Watcher(bus, task)
    life = asyncio.create_task(watcher.run())
    try:
        yield watcher
    finally:
        if life.done():
            life.result()
        await ended([life])
