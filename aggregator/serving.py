"""Feeds the fold from the queues, closes buffers when they are full or due, and obeys commands."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from aggregator.chain.committer import Committer
from aggregator.chain.pending import Pending
from aggregator.fold.commands import roll_back_target
from aggregator.fold.core import Fold
from aggregator.fold.outcome import Admission
from aggregator.fold.state import FoldState
from aggregator.intake import Intake
from aggregator.restore.inputs import updates_behind
from broker_topics.bus import BusRecord
from broker_topics.codecs import decode
from broker_topics.record import Cause, RunKind
from monitoring.logs import get_logger
from monitoring.metrics import Metrics
from monitoring.stages import stage, stage_within

_MAX_INPUTS = 4_000
"""Inputs to a record at most, so that a storm of refusals never outgrows a record's body."""

_MAX_BYTES = 64 * 1024 * 1024
"""Bytes of the inputs to a record at most: what a restart must hold to replay it."""

_SLICE_BYTES = 4 * 1024 * 1024
"""Bytes of updates that the fold takes in one go before it looks up: bounds how long a stop or a deadline waits."""

_IDLE_S = 5.0

log = get_logger("aggregator")


@dataclass(slots=True)
class Serving:
    """One task that feeds the fold.

    older: finds the state of an older version for a roll back, None if its parts are gone. repair: what the first
    record must say that the operator accepted to be without.
    """

    fold: Fold
    intake: Intake
    committer: Committer
    metrics: Metrics
    older: Callable[[int], Awaitable[FoldState | None]]
    repair: str = ""
    admitted: list[tuple[Admission, int]] = field(default_factory=list)
    due: float | None = None
    _bytes: int = 0

    async def run(self) -> None:
        """Serve for ever; a repair comes before everything else."""
        if self.repair:
            await self._replace(Cause.REPAIR, None, self.repair)
        while True:
            if not self.intake.control.empty():
                await self._commands(self.intake.control.get_nowait())
            elif not self.intake.updates.empty() and not self.fold.state.paused:
                await self._updates(self.intake.next_updates())
            elif self.fold.pending and self._full(self._limit()):
                await self._close(Cause.FULL)
            else:
                await self._idle()
            if self.due is not None and asyncio.get_running_loop().time() >= self.due:
                await self._close(Cause.DEADLINE)

    async def _idle(self) -> None:
        """Wait for a batch, until the buffer is due, or a while."""
        self.intake.arrived.clear()
        waiting = not self.intake.control.empty() or (not self.intake.updates.empty() and not self.fold.state.paused)
        if waiting:
            return
        until = asyncio.get_running_loop().time() + _IDLE_S
        try:
            async with asyncio.timeout_at(until if self.due is None else min(until, self.due)):
                await self.intake.arrived.wait()
        except TimeoutError:
            if self.committer.keyframe_due and not self.fold.consumed:
                await self._close(Cause.DEADLINE)

    async def _updates(self, batch: list[BusRecord]) -> None:
        taken = 0
        while taken < len(batch):
            limit = self._limit()
            taken = await asyncio.to_thread(self._offer, batch, taken, limit)
            if self.due is None and self.fold.consumed:
                self.due = asyncio.get_running_loop().time() + self.fold.state.settings.flush_deadline_s
            self.metrics.buffer_updates.set(self.fold.pending)
            if self._full(limit):
                await self._close(Cause.FULL)

    def _offer(self, batch: list[BusRecord], start: int, limit: int) -> int:
        """Offer records until the buffer is full or a slice's bytes are through; the index of the first not taken.

        One thread decodes and folds: a second one that decodes ahead waits for the interpreter more than it works.
        """
        slice_ends, before = self._bytes + _SLICE_BYTES, len(self.admitted)
        with stage_within(self.metrics, "gate", "decode") as watch:
            self.fold.decode = watch(decode)
            index = start
            while index < len(batch) and not self._full(limit) and self._bytes < slice_ends:
                self._one(batch[index])
                index += 1
        self.metrics.updates_received_total.inc(len(self.admitted) - before)
        return index

    def _limit(self) -> int:
        """Accepted updates to the next step: K, or those in the buffer and all that waits behind it.

        What was refused does not count, or a buffer would wait for updates that nobody has sent. The first step takes
        K only: whoever waited for a leader hears of one the sooner.
        """
        if not self.committer.begun:
            return self.fold.limit(0)
        return self.fold.limit(self.fold.pending + updates_behind(self.fold.state.vector, self.committer.ends))

    def _full(self, limit: int) -> bool:
        return self.fold.pending >= limit or self.fold.consumed >= _MAX_INPUTS or self._bytes >= _MAX_BYTES

    def _pass_gap(self, partition: int, offset: int) -> None:
        """Offsets without a record in front of one: a device's transaction."""
        expected = self.fold.state.vector[partition]
        if offset > expected:
            self.fold.void(partition=partition, first=expected, count=offset - expected, kind=RunKind.CONTROL)

    def _one(self, record: BusRecord) -> None:
        partition, data = record.partition, record.value or b""
        self._pass_gap(partition, record.offset)
        self._bytes += len(data)
        if not record.readable:
            self._unreadable(partition, record.offset)
            return
        admission = self.fold.offer(partition=partition, offset=record.offset, key=record.key, data=data)
        self.admitted.append((admission, record.timestamp_ms))

    def _unreadable(self, partition: int, offset: int) -> None:
        """What the disk or a foreign client made of a record: stepped over, told in the chain and in `rejects`."""
        log.warning("record_unreadable", partition=partition, offset=offset)
        self.fold.void(partition=partition, first=offset, count=1, kind=RunKind.UNREADABLE)

    async def _commands(self, batch: list[BusRecord]) -> None:
        """A command first flushes the buffer, then has a record of its own."""
        for record in batch:
            partition = len(self.fold.state.vector) - 1
            self._pass_gap(partition, record.offset)
            if not record.readable:
                self._unreadable(partition, record.offset)
            if self.fold.consumed:
                await self._close(Cause.CONTROL)
            if not record.readable:
                continue
            data = record.value or b""
            version = roll_back_target(data)
            source = await self.older(version) if version is not None else None
            decision = self.fold.command(offset=record.offset, data=data, found=source is not None)
            log.info("command_decided", outcome=decision.outcome)
            if source is not None:
                await self._replace(Cause.ROLL_BACK, source, f"back to version {version}")
            else:
                await self._close(Cause.CONTROL)

    async def _replace(self, cause: Cause, source: FoldState | None, note: str) -> None:
        """Make another model the next version, in a keyframe record that says why."""
        await self.committer.room()
        draft = await asyncio.to_thread(self.fold.replace, cause, source)
        self.due = None
        await self.committer.put(Pending(draft=draft, admitted=[], note=note), self.fold.state)

    async def _close(self, cause: Cause) -> None:
        """Make the server step and hand it to the committer; waits while it is two records ahead."""
        await self.committer.room()
        with stage(self.metrics, "aggregate"):
            draft = await asyncio.to_thread(self.fold.step, cause)
        admitted, self.admitted, self.due, self._bytes = self.admitted, [], None, 0
        self.metrics.buffer_updates.set(0)
        await self.committer.put(Pending(draft=draft, admitted=admitted), self.fold.state)
