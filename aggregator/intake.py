"""Reads updates and control from the log into bounded queues; full means pause, never drop.

Updates go through two stages, so that fetching, decoding and folding share the processor's cores: batches as they were
fetched, bounded in bytes, then slices whose records are opened and decoded.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from aggregator.gate import Opened
from broker_topics.backpressure import ByteBudget
from broker_topics.bus import Bus, BusRecord, LogReader, OffsetGoneError
from broker_topics.errors import BusError, InputsLostError
from broker_topics.topics import Topic, topic_name
from monitoring.logs import get_logger
from monitoring.metrics import Metrics, stage

_AHEAD_BYTES = 16 * 1024 * 1024
"""What was fetched and waits to be opened. Draining the reader at once lets it ask for all partitions together: a
request for some of them alone waits at the broker although others have more."""

_SLICE_BYTES = 1024 * 1024
_SLICE_RECORDS = 64
"""Updates opened in one go. Decoded they take up to nine times their bytes, and three slices may exist at a time."""

_BATCH_RECORDS = 64
"""Records unpacked in one go on the event loop: two to three milliseconds."""

_POLL_S = 1.0
_RETRY_S = 0.5

log = get_logger("aggregator")

Input = tuple[BusRecord, Opened | None]
"""A record, and what it says by itself; None where it could not be read."""


@dataclass(slots=True)
class Intake:
    """Two queues in log order: `updates` in slices, opened, and `control` in batches, for commands.

    open_: `Fold.open`. Memory stays bounded whatever the log holds.
    """

    bus: Bus
    task: str
    vector: Sequence[int]
    metrics: Metrics
    open_: Callable[[bytes], Opened]
    updates: "asyncio.Queue[list[Input]]" = field(default_factory=lambda: asyncio.Queue(maxsize=1))
    control: "asyncio.Queue[list[BusRecord]]" = field(default_factory=lambda: asyncio.Queue(maxsize=2))
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    _fetched: "asyncio.Queue[list[BusRecord]]" = field(default_factory=asyncio.Queue)
    _budget: ByteBudget = field(default_factory=lambda: ByteBudget(_AHEAD_BYTES))

    async def run(self) -> None:
        """Read for ever; raises InputsLostError when the log's start overtakes the reader."""
        updates = dict(enumerate(self.vector[:-1]))
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._read(Topic.UPDATES, updates, self._ahead))
                group.create_task(self._open())
                group.create_task(self._read(Topic.CONTROL, {0: self.vector[-1]}, self._command))
        except ExceptionGroup as group_of_one:
            raise group_of_one.exceptions[0] from None  # the exit code hangs on the error itself

    async def _read(
        self, topic: Topic, positions: dict[int, int], hand_on: Callable[[list[BusRecord]], Coroutine[Any, Any, None]]
    ) -> None:
        reader = self.bus.reader(topic_name(self.task, topic), positions)
        try:
            while True:
                batch = await self._fetch(reader)
                if batch:
                    await hand_on(batch)
        finally:
            await reader.close()

    async def _ahead(self, batch: list[BusRecord]) -> None:
        await self._budget.acquire(_bytes_of(batch))
        self._fetched.put_nowait(batch)

    async def _command(self, batch: list[BusRecord]) -> None:
        await self.control.put(batch)
        self.arrived.set()

    async def _open(self) -> None:
        """Open what was fetched, a slice ahead of the fold."""
        while True:
            batch = await self._fetched.get()
            for piece in _slices(batch):
                await self.updates.put(await asyncio.to_thread(self._open_all, piece))
                self.arrived.set()
                self._budget.release(_bytes_of(piece))

    def _open_all(self, records: list[BusRecord]) -> list[Input]:
        with stage(self.metrics, "decode"):
            return [(record, self.open_(record.value or b"") if record.readable else None) for record in records]

    async def _fetch(self, reader: LogReader) -> list[BusRecord]:
        try:
            with stage(self.metrics, "fetch"):
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


def _slices(batch: Sequence[BusRecord]) -> Iterator[list[BusRecord]]:
    """The batch in pieces of at most so many records and about so many bytes."""
    piece: list[BusRecord] = []
    held = 0
    for record in batch:
        piece.append(record)
        held += len(record.value or b"")
        if len(piece) >= _SLICE_RECORDS or held >= _SLICE_BYTES:
            yield piece
            piece, held = [], 0
    if piece:
        yield piece
