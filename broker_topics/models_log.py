"""Writes and reads the models topic: parts of deltas and keyframes, and `head`, the way into the chain."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from broker_topics.bus import Bus, BusRecord, LogReader, OffsetGoneError
from broker_topics.crash_points import Io, passing
from broker_topics.errors import BusError, RejectCode, WireError
from broker_topics.layout import Vector
from broker_topics.messages import Head
from broker_topics.parts import Part, blob_refs, open_part, part_key
from broker_topics.record import PartRef
from broker_topics.topics import Topic, topic_name

HEAD_KEY = b"head"
_IN_FLIGHT = 4
_OPENING = 3
"""Parts that are checked and unpacked while the next ones are fetched."""

HEAD_EVERY = 8
"""Parts after which `head` is written once more: who enters looks for it from the end, and parts are large."""

_TAIL_RECORDS = HEAD_EVERY + 2 * _IN_FLIGHT
_FETCH_S = 10.0


class PartMissingError(WireError):
    """A part that the chain names is no longer, or not yet, in the models topic."""

    def __init__(self, reason: str) -> None:
        super().__init__(RejectCode.MALFORMED, reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tail:
    """What lies at the end of the models topic: offset and key of each record that has one, and the newest `head`.

    head: None where there is none among them, or it cannot be read.
    """

    keys: tuple[tuple[int, bytes], ...]
    head: Head | None


class ModelsWriter:
    """Sends parts a few at a time, so that a model of any size needs memory for a few pieces only.

    head: what the topic's own `head` says, where it is known.
    """

    def __init__(self, bus: Bus, task: str, writer: bytes, *, head: Head | None = None) -> None:
        self._bus, self._topic, self._writer = bus, topic_name(task, Topic.MODELS), writer
        self.head = head
        self._since_head = 0

    async def publish(self, height: int, parts: Iterable[Part]) -> tuple[PartRef, ...]:
        """Send the parts of one record durably; where each lies, in order. Parts are cut in a thread, as they go."""
        source = iter(parts)
        under_way: deque[asyncio.Task[PartRef]] = deque()
        heads: list[asyncio.Task[None]] = []
        refs: list[PartRef] = []
        try:
            while (part := await asyncio.to_thread(next, source, None)) is not None:
                if self.head is not None and self._since_head >= HEAD_EVERY:
                    self._since_head = 0
                    heads.append(asyncio.ensure_future(self._repeat_head()))
                self._since_head += 1
                if len(under_way) >= _IN_FLIGHT:
                    refs.append(await under_way.popleft())
                under_way.append(asyncio.ensure_future(self._send(height, part)))
            while under_way:
                refs.append(await under_way.popleft())
            await asyncio.gather(*heads)
        finally:
            for task in (*under_way, *heads):
                task.cancel()
        return tuple(refs)

    async def _send(self, height: int, part: Part) -> PartRef:
        key = part_key(height=height, writer=self._writer, digest=part.digest, name=part.name, index=part.index)
        with passing(Io.PART):
            return part.at((await self._bus.send(self._topic, key=key, value=part.value)).offset)

    async def _repeat_head(self) -> None:
        if self.head is not None:
            with suppress(BusError), passing(Io.HEAD):
                await self._bus.send(self._topic, key=HEAD_KEY, value=self.head.to_bytes())

    async def write_head(self, head: Head) -> None:
        """Name the newest official keyframe; compaction keeps only the last such record."""
        self.head, self._since_head = head, 0
        with passing(Io.HEAD):
            await self._bus.send(self._topic, key=HEAD_KEY, value=head.to_bytes())

    async def forget(self, key: bytes) -> None:
        """Tombstone one part."""
        with passing(Io.TOMBSTONE):
            await self._bus.send(self._topic, key=key, value=None)


class ModelsReader:
    """Fetches parts by offset; keeps its place, so that parts in a row cost one request for many."""

    def __init__(self, bus: Bus, task: str) -> None:
        self._bus, self._topic = bus, topic_name(task, Topic.MODELS)
        self._reader: LogReader | None = None
        self._ahead: deque[BusRecord] = deque()
        self.bytes_received = 0

    async def close(self) -> None:
        """Give up the connection."""
        if self._reader is not None:
            await self._reader.close()

    async def blob(self, refs: Sequence[PartRef]) -> AsyncIterator[bytes | memoryview]:
        """The pieces of one blob in order; raises PartMissingError where one is gone.

        Opened in threads, a few at a time while the next ones are fetched: hashing them would hold up the event loop.
        """
        opening: deque[asyncio.Task[bytes | memoryview]] = deque()
        try:
            for ref in refs:
                opening.append(asyncio.ensure_future(self._piece(await self._value(ref), ref)))
                if len(opening) >= _OPENING:
                    yield await opening.popleft()
            while opening:
                yield await opening.popleft()
        finally:
            await asyncio.gather(*opening, return_exceptions=True)

    async def check(self, refs: Sequence[PartRef]) -> None:
        """Fetch parts, keep none; raises PartMissingError where one is gone."""
        with passing(Io.PROBE_PARTS):
            async for _ in self.blob(refs):
                pass

    async def _piece(self, value: bytes, ref: PartRef) -> bytes | memoryview:
        try:
            return await asyncio.to_thread(open_part, value, ref)
        except WireError:  # the log was cut short, and another part of that size was written in its place
            return await asyncio.to_thread(open_part, await self._moved(ref), ref)

    async def read(self, refs: Sequence[PartRef], name: str) -> bytes:
        """A whole blob of a record; meant for small ones. Raises PartMissingError."""
        wanted = blob_refs(refs, name)
        if not wanted:
            raise PartMissingError(f"the chain record names no {name}")
        return b"".join([bytes(piece) async for piece in self.blob(wanted)])

    async def read_vector(self, refs: Sequence[PartRef], name: str, size: int) -> Vector:
        """A float32[size] blob of a record, filled piece by piece. Raises PartMissingError, WireError."""
        vector = np.empty(size, dtype=np.float32)
        into, filled = memoryview(vector.data).cast("B"), 0
        async for piece in self.blob(blob_refs(refs, name)):
            if filled + len(piece) > len(into):
                raise WireError(RejectCode.MALFORMED, f"{name} is larger than the task's model")
            into[filled : filled + len(piece)] = piece
            filled += len(piece)
        if filled != len(into):
            raise PartMissingError(f"{name} is not complete")
        return vector

    async def head(self) -> Head | None:
        """The newest `head`, searched from the topic's end backwards; None if there is none or it cannot be read."""
        start = (await self._bus.start_offsets(self._topic))[0]
        stop = (await self._bus.end_offsets(self._topic))[0]
        window = HEAD_EVERY
        while stop > start:
            first = max(start, stop - window)
            found = [record.value async for record in self._between(first, stop) if record.key == HEAD_KEY]
            if any(found):
                return _newest_head(found)
            stop, window = first, window * 2
        return None

    async def tail(self) -> Tail:
        """The newest few records, oldest first; where a writer keeps to `HEAD_EVERY`, `head` is among them."""
        start = (await self._bus.start_offsets(self._topic))[0]
        stop = (await self._bus.end_offsets(self._topic))[0]
        keys, heads = list[tuple[int, bytes]](), list[bytes | None]()
        async for record in self._between(max(start, stop - _TAIL_RECORDS), stop):
            if record.key:
                keys.append((record.offset, record.key))
            if record.key == HEAD_KEY:
                heads.append(record.value)
        return Tail(keys=tuple(keys), head=_newest_head(heads))

    async def keys(self, before: int) -> list[bytes]:
        """Every key that the topic holds up to offset `before` and that was not tombstoned, oldest first."""
        start = (await self._bus.start_offsets(self._topic))[0]
        alive: dict[bytes, bool] = {}
        async for record in self._between(start, before):
            if record.key is not None:
                alive[record.key] = record.value is not None
        return [key for key, there in alive.items() if there]

    async def _between(self, first: int, stop: int) -> AsyncIterator[BusRecord]:
        reader = self._bus.reader(self._topic, {0: first})
        try:
            while reader.position(0) < stop:
                records = await reader.fetch(max_records=8, timeout_s=_FETCH_S)
                if not records:
                    raise BusError("the models topic stopped answering; check the broker")
                for record in records:
                    if record.offset < stop:
                        yield record
        finally:
            await reader.close()

    async def _value(self, ref: PartRef) -> bytes:
        record = await self._at(ref.offset)
        if record is not None and record.offset == ref.offset and record.value and len(record.value) == ref.size:
            return record.value
        return await self._moved(ref)

    async def _at(self, offset: int) -> BusRecord | None:
        if self._reader is None:
            self._reader = self._bus.reader(self._topic, {0: offset})
        while self._ahead and self._ahead[0].offset < offset:
            self._ahead.popleft()
        if not self._ahead:
            if self._reader.position(0) != offset:
                self._reader.seek(0, offset)
            await self._fetch(self._reader)
        elif self._ahead[0].offset > offset:
            self._ahead.clear()
            self._reader.seek(0, offset)
            await self._fetch(self._reader)
        return self._ahead.popleft() if self._ahead else None

    async def _fetch(self, reader: LogReader) -> None:
        try:
            records = await reader.fetch(max_records=8, timeout_s=_FETCH_S)
        except OffsetGoneError as error:
            raise PartMissingError(str(error)) from error
        self.bytes_received += sum(len(record.value or b"") for record in records)
        self._ahead.extend(records)

    async def _moved(self, ref: PartRef) -> bytes:
        """A part sent twice survives compaction only as its last copy: look for it by its bytes."""
        stop = (await self._bus.end_offsets(self._topic))[0]
        async for record in self._between(min(ref.offset, stop), stop):
            if record.value and len(record.value) == ref.size:
                with suppress(WireError):
                    open_part(record.value, ref)
                    return record.value
        raise PartMissingError(f"part {ref.name}-{ref.index} is no longer in the models topic")


def _newest_head(values: Sequence[bytes | None]) -> Head | None:
    """The last of them that is not deleted; None where there is none, or it cannot be read."""
    newest = next((value for value in reversed(values) if value), b"")
    with suppress(WireError):
        return Head.from_bytes(newest)
    return None
