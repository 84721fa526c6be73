"""Keeps a device at the end of the chain: what became of its updates, and the newest model to train from."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import numpy as np

from broker_topics.bus import Bus
from broker_topics.chain import ChainPosition
from broker_topics.commits_log import ChainLostError
from broker_topics.crash_points import Io, passing
from broker_topics.errors import BusError, WireError
from broker_topics.follow import Follower
from broker_topics.layout import Layout, Vector
from broker_topics.record import Record
from broker_topics.topics import Topic, topic_name
from worker.adapters import check_layout
from worker.events import Entered, Event, RecordsSeen, Unreachable
from worker.pacing import Limits
from worker.state import Base
from worker.threads import Runner

_POLL_S = 1.0
_CATCH_UP_POLL_S = 5.0
_COPY_IN_THREAD = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Snapshot:
    """Both models at one version; copies that nobody advances."""

    base: Base
    served: Vector


class Following:
    """Reads until it is cancelled; tells the core what it saw, one event after the other."""

    def __init__(
        self,
        *,
        bus: Bus,
        task: str,
        layout: Layout,
        tell: Callable[[Event], Awaitable[None]],
        since: Callable[[], ChainPosition | None],
        run: Runner,
        limits: Limits,
        rng: np.random.Generator,
    ) -> None:
        self.snapshot: Snapshot | None = None
        self._bus, self._task, self._layout = bus, task, layout
        self._tell, self._since, self._run = tell, since, run
        self._limits, self._rng = limits, rng
        self._follower = Follower(bus, task)
        self._entered = False

    @property
    def bytes_received(self) -> int:
        """Bytes of models fetched so far."""
        return self._follower.bytes_received

    async def run(self) -> None:
        """Follow for ever; outages are waited out, with a growing and jittered pause.

        Raises:  ConfigError: the task is unknown, or its model is another one.  InvariantError: the models topic was
                 tampered with.
        """
        failures = 0
        while True:
            try:
                if not self._entered:
                    await self._enter()
                await self._catch_up()
                failures = 0
                while True:
                    with passing(Io.FOLLOW):
                        records = await self._follower.poll(timeout_s=_POLL_S)
                    await self._see(records)
            except (BusError, WireError) as error:
                self._entered = self._entered and not isinstance(error, ChainLostError | WireError)
                await self._tell(Unreachable(str(error)))
            failures += 1
            await asyncio.sleep(self._limits.pause_s(failures, self._rng))

    async def close(self) -> None:
        """Give up the connections."""
        await self._follower.close()

    async def _enter(self) -> None:
        with passing(Io.ENTER):
            known = await self._follower.enter(self._since())
        check_layout(self._layout, self._follower.layout)
        await self._take_snapshot()
        self._entered = True
        await self._tell(Entered(known=known, last=self._follower.last, settings=self._follower.settings))

    async def _catch_up(self) -> None:
        """Read to where the log ended when this began: only then can it be said how old something is."""
        end = (await self._bus.end_offsets(topic_name(self._task, Topic.COMMITS)))[0]
        records = await self._follower.poll(timeout_s=0)
        await self._see(records)
        while self._follower.position.offset + 1 < end:
            records = await self._follower.poll(timeout_s=_CATCH_UP_POLL_S)
            if not records:
                break  # what is left in the log are records of losers
            await self._see(records)
        await self._tell(self._seen([], caught_up=True))

    async def _see(self, records: list[Record]) -> None:
        if records:
            if any(record.body.steps for record in records):
                await self._take_snapshot()
            await self._tell(self._seen(records))

    def _seen(self, records: list[Record], *, caught_up: bool = False) -> RecordsSeen:
        return RecordsSeen(
            records=tuple(records),
            position=self._follower.position,
            settings=self._follower.settings,
            caught_up=caught_up,
        )

    async def _take_snapshot(self) -> None:
        """Copy the models while nobody advances them: `poll` is the only one to do so, and it is not under way."""
        if self._layout.size > _COPY_IN_THREAD:
            self.snapshot = await self._run(self._copy)
        else:
            self.snapshot = self._copy()

    def _copy(self) -> Snapshot:
        model = self._follower.model
        base = Base(version=model.version, hash=self._follower.last.body.base_hash, vector=model.hidden.copy())
        return Snapshot(base=base, served=model.served.copy())
