"""Reads updates and control from the log into bounded queues; full means pause, never drop."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from aggregator.insight.log_lag import LogLag
from broker_topics.backpressure import ByteBudget
from broker_topics.bus import Bus, BusRecord, LogReader, OffsetGoneError
from broker_topics.crash_points import Io, passing
from broker_topics.errors import BusError, InputsLostError
from broker_topics.topics import Topic, topic_name
from monitoring.logs import get_logger
from monitoring.metrics import Metrics
from monitoring.stages import stage

_AHEAD_BYTES = 16 * 1024 * 1024
"""What was fetched and waits for the fold. The reader is drained at once, so that it asks for all partitions together:
a request for some of them alone waits at the broker although others have more."""

_BATCH_RECORDS = 64
"""Records unpacked in one go on the event loop: two to three milliseconds."""

_POLL_S = 1.0
_RETRY_S = 0.5

log = get_logger("aggregator")


@dataclass(slots=True)
class Intake:
    """Two queues of batches in log order, `updates`, and `control` for commands.

    Updates are bounded in bytes, whatever the log holds: take them with `next_updates`.
    """

    bus: Bus
    task: str
    vector: Sequence[int]
    metrics: Metrics
    lag: LogLag
    updates: "asyncio.Queue[list[BusRecord]]" = field(default_factory=asyncio.Queue)
    control: "asyncio.Queue[list[BusRecord]]" = field(default_factory=lambda: asyncio.Queue(maxsize=2))
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    _budget: ByteBudget = field(default_factory=lambda: ByteBudget(_AHEAD_BYTES))

    async def run(self) -> None:
        """Read for ever; raises InputsLostError when the log's start overtakes the reader."""
        updates = dict(enumerate(self.vector[:-1]))
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._read(Topic.UPDATES, updates, self._update))
                group.create_task(self._read(Topic.CONTROL, {0: self.vector[-1]}, self.control.put))
        except ExceptionGroup as group_of_one:
            raise group_of_one.exceptions[0] from None  # the exit code hangs on the error itself

    def next_updates(self) -> list[BusRecord]:
        """The next batch, which makes room for others; raises QueueEmpty where none waits."""
        batch = self.updates.get_nowait()
        self._budget.release(_bytes_of(batch))
        return batch

    async def _read(
        self, topic: Topic, positions: dict[int, int], hand_on: Callable[[list[BusRecord]], Coroutine[Any, Any, None]]
    ) -> None:
        reader = self.bus.reader(topic_name(self.task, topic), positions)
        try:
            while True:
                batch = await self._fetch(reader)
                if batch:
                    await hand_on(batch)
                    self.arrived.set()
                    await asyncio.sleep(0)  # what lies ready is handed on without a pause, and others want a turn
        finally:
            await reader.close()

    async def _update(self, batch: list[BusRecord]) -> None:
        self.lag.arrived(batch)
        await self._budget.acquire(_bytes_of(batch))
        self.updates.put_nowait(batch)

    async def _fetch(self, reader: LogReader) -> list[BusRecord]:
        try:
            with stage(self.metrics, "fetch"), passing(Io.FETCH):
                return await reader.fetch(max_records=_BATCH_RECORDS, timeout_s=_POLL_S)
        except OffsetGoneError as error:
            raise InputsLostError(
                f"the log no longer holds the inputs that come next: {error}; stop writing to the task and see what "
                "retention or a lost replica took"
            ) from error
        except BusError as error:
            log.warning("broker_unreachable", reason=str(error))
            await asyncio.sleep(_RETRY_S)
            return []


def _bytes_of(records: Sequence[BusRecord]) -> int:
    return sum(len(record.value or b"") for record in records)
