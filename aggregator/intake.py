"""Reads updates and control from the log into bounded queues; full means pause, never drop."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from broker_topics.bus import Bus, BusRecord, LogReader, OffsetGoneError
from broker_topics.errors import BusError, InputsLostError
from broker_topics.topics import Topic, topic_name
from monitoring.logs import get_logger
from monitoring.metrics import Metrics, stage

_BATCH_BYTES = 16 * 1024 * 1024
_BATCH_RECORDS = (16, 500)
_POLL_S = 1.0
_RETRY_S = 0.5

log = get_logger("aggregator")


@dataclass(slots=True)
class Intake:
    """Two queues of batches in log order: `updates`, and `control` for commands.

    At most a few batches wait, each of about 16 MiB, so memory stays bounded whatever the log holds.
    """

    bus: Bus
    task: str
    vector: Sequence[int]
    metrics: Metrics
    updates: "asyncio.Queue[list[BusRecord]]" = field(default_factory=lambda: asyncio.Queue(maxsize=2))
    control: "asyncio.Queue[list[BusRecord]]" = field(default_factory=lambda: asyncio.Queue(maxsize=2))
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    _batch: int = _BATCH_RECORDS[0]

    async def run(self) -> None:
        """Read for ever; raises InputsLostError when the log's start overtakes the reader."""
        updates = dict(enumerate(self.vector[:-1]))
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._read(Topic.UPDATES, updates, self.updates))
                group.create_task(self._read(Topic.CONTROL, {0: self.vector[-1]}, self.control))
        except ExceptionGroup as group_of_one:
            raise group_of_one.exceptions[0] from None  # the exit code hangs on the error itself

    async def _read(self, topic: Topic, positions: dict[int, int], into: "asyncio.Queue[list[BusRecord]]") -> None:
        reader = self.bus.reader(topic_name(self.task, topic), positions)
        try:
            while True:
                batch = await self._fetch(reader)
                if batch:
                    await into.put(batch)
                    self.arrived.set()
                    self._learn_size(batch)
        finally:
            await reader.close()

    async def _fetch(self, reader: LogReader) -> list[BusRecord]:
        try:
            with stage(self.metrics, "fetch"):
                return await reader.fetch(max_records=self._batch, timeout_s=_POLL_S)
        except OffsetGoneError as error:
            raise InputsLostError(
                f"the log no longer holds the inputs that come next: {error}; stop writing to the task and see what "
                "retention or a lost replica took"
            ) from error
        except BusError as error:
            log.warning("broker_unreachable", reason=str(error))
            await asyncio.sleep(_RETRY_S)
            return []

    def _learn_size(self, batch: list[BusRecord]) -> None:
        mean = 1 + sum(len(record.value or b"") for record in batch) // len(batch)
        low, high = _BATCH_RECORDS
        self._batch = max(low, min(high, _BATCH_BYTES // mean))
