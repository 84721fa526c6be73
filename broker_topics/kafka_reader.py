"""Reading Kafka partitions by offset: no group, no commits, no silent skips, and a watch over its own progress."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import OffsetOutOfRangeError
from aiokafka.structs import TopicPartition

from broker_topics.bus import BusRecord, OffsetGoneError
from broker_topics.errors import BusError, ConfigError
from broker_topics.kafka_batches import bus_record, read
from broker_topics.kafka_connect import Connection, quietly
from broker_topics.kafka_errors import is_unreadable, translate
from broker_topics.kafka_queries import LATEST, KafkaQueries
from broker_topics.topics import keeps_every_offset

# A whole batch must fit (max.message.bytes is 1 MiB + 64 KiB); more only makes one pass through the loop longer.
_PARTITION_FETCH_BYTES = 2 * 1024 * 1024
_FETCH_BYTES = 4 * 1024 * 1024
_BROKER_WAIT_MS = 500
_SILENCE_S = 3.0
_CAREFUL_WAIT_S = 2.0

STALL_S = 20.0
"""How long nothing may come although the log has more, before the consumer is made anew."""


class KafkaReader:
    """Reads chosen partitions of one topic; see `LogReader`."""

    def __init__(
        self,
        connection: Connection,
        queries: KafkaQueries,
        topic: str,
        positions: Mapping[int, int],
        *,
        evenly: bool = False,
        stall_s: float,
        on_close: Callable[["KafkaReader"], None],
    ) -> None:
        if not positions:
            raise ConfigError(f"{topic}: name at least one partition to read")
        self.topic = topic
        self._connection = connection
        self._queries = queries
        self._positions = dict(positions)
        # A batch that is larger comes nevertheless, alone: the broker lets nobody stand still.
        self._share = _FETCH_BYTES // len(positions) if evenly else _PARTITION_FETCH_BYTES
        self._paused: set[int] = set()
        self._stall_s = stall_s
        self._on_close = on_close
        self._consumer: AIOKafkaConsumer | None = None
        self._closed = False
        self._careful = False
        self._failed_at: dict[int, int] = {}
        self._gapless = keeps_every_offset(topic)
        self._explained: dict[int, int] = {}
        self._restarted = False
        self._polled_ms = 0
        self._alive_at = 0.0
        self._behind_since: float | None = None

    def seek(self, partition: int, offset: int) -> None:
        """Read on from `offset`; what was prefetched is dropped."""
        self._check_mine([partition])
        if offset < 0:
            raise ConfigError(f"{self.topic}[{partition}]: offset {offset} is negative")
        self._positions[partition] = offset
        if self._consumer is not None:
            self._consumer.seek(TopicPartition(self.topic, partition), offset)

    def position(self, partition: int) -> int:
        """The offset after the last record that `fetch` returned, or the last seek."""
        self._check_mine([partition])
        return self._positions[partition]

    def pause(self, partitions: Sequence[int]) -> None:
        """Fetch nothing from these partitions until `resume`."""
        self._check_mine(partitions)
        self._paused.update(partitions)
        if self._consumer is not None:
            self._consumer.pause(*self._tps(partitions))

    def resume(self, partitions: Sequence[int]) -> None:
        """Fetch from these partitions again."""
        self._check_mine(partitions)
        self._paused.difference_update(partitions)
        if self._consumer is not None:
            self._consumer.resume(*self._tps(partitions))

    async def fetch(self, *, max_records: int = 500, timeout_s: float = 1.0) -> list[BusRecord]:
        """The next records; see `LogReader.fetch`."""
        consumer = await self._connected()
        if self._careful:
            records = await self._fetch_carefully(consumer, max_records, timeout_s)
        else:
            try:
                records = await self._getmany(consumer, self._active(), max_records, timeout_s)
            except _UnreadableError:
                self._careful = True
                self._rewind(consumer)
                records = await self._fetch_carefully(consumer, max_records, timeout_s)
        if records:
            self._restarted, self._behind_since = False, None
            self._alive_at = asyncio.get_running_loop().time()
        elif len(self._paused) < len(self._positions):
            await self._watch(consumer)
            records = await self._past_markers(consumer, max_records)
        return records

    async def close(self) -> None:
        """Give up the connection within a deadline."""
        self._closed = True
        self._on_close(self)
        await self._drop()

    async def _connected(self) -> AIOKafkaConsumer:
        if self._closed:
            raise BusError("the reader is closed; make a new one")
        if self._consumer is None:
            await self._queries.partition_count(self.topic)  # a consumer would let the broker create the topic
            consumer = AIOKafkaConsumer(
                **self._connection.options,
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="none",
                isolation_level="read_uncommitted",
                check_crcs=True,
                fetch_max_wait_ms=_BROKER_WAIT_MS,
                fetch_max_bytes=_FETCH_BYTES,
                max_partition_fetch_bytes=min(_PARTITION_FETCH_BYTES, self._share),
            )
            try:
                await self._connection.open(consumer.start())
            except BaseException:
                await quietly(consumer.stop(), consumer._client.close())
                raise
            consumer.assign(self._tps(self._positions))
            if self._paused:
                consumer.pause(*self._tps(self._paused))
            self._rewind(consumer)
            self._consumer = consumer
            self._alive_at = asyncio.get_running_loop().time()
        return self._consumer

    async def _drop(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await quietly(consumer.stop(), consumer._client.close())

    async def _getmany(
        self, consumer: AIOKafkaConsumer, partitions: Sequence[int], max_records: int, timeout_s: float
    ) -> list[BusRecord]:
        """Ask aiokafka for records and accept them; after any error it reads on from our own positions."""
        try:
            async with asyncio.timeout(timeout_s + self._connection.timeout_s):
                # A zero time-out would not let the event loop run at all.
                batches = await consumer.getmany(
                    *self._tps(partitions), timeout_ms=max(1, int(timeout_s * 1000)), max_records=max_records
                )
        except OffsetOutOfRangeError as error:
            self._rewind(consumer)
            ((where, offset),) = error.args[0].items()
            raise OffsetGoneError(
                f"{self.topic}[{where.partition}]: offset {offset} lies outside the log; retention took it, "
                "or the log was cut"
            ) from error
        except Exception as error:
            if is_unreadable(error):
                raise _UnreadableError from error
            self._rewind(consumer)
            raise translate(error, f"reading {self.topic}") from error
        records, strange = list[BusRecord](), list[int]()
        for where, batch in batches.items():
            if not self._accept(batch, consumer.highwater(where), records):
                strange.append(where.partition)
        for partition in strange:
            self._rewind(consumer)
            records += await self._as_it_lies(partition, max(1, max_records - len(records)))
        return records or (await self._getmany(consumer, partitions, max_records, timeout_s) if strange else [])

    async def _past_markers(self, consumer: AIOKafkaConsumer, most: int) -> list[BusRecord]:
        """Go past what Kafka itself wrote at the log's end; the first records there, should aiokafka have erred."""
        for partition in self._active() if self._gapless else ():
            behind = await consumer.position(TopicPartition(self.topic, partition))
            if behind > self._positions[partition] and (records := await self._as_it_lies(partition, most)):
                return records
        return []

    async def _as_it_lies(self, partition: int, most: int) -> list[BusRecord]:
        """What comes next, read past aiokafka: it believes what a batch says of its place."""
        at = self._positions[partition]
        batches, log_end = await self._queries.batches(self.topic, partition, at)
        found, end = read(batches, at, log_end)
        if end == at:
            self._explained[partition] = at
        self.seek(partition, end if len(found) <= most else found[most][0])
        return [bus_record(self.topic, partition, offset, got) for offset, got in found[:most]]

    def _accept(self, batch: Sequence[Any], log_end: int | None, records: list[BusRecord]) -> bool:
        """Take in records; False at one that lies where none should, which is left in the log."""
        for got in batch:
            position = self._positions[got.partition]
            if got.offset < position:
                continue
            strange = (log_end is not None and got.offset >= log_end) or (got.offset > position and self._gapless)
            if strange and self._explained.get(got.partition) != position:
                return False
            self._positions[got.partition] = got.offset + 1
            records.append(bus_record(self.topic, got.partition, got.offset, got))
        return True

    async def _fetch_carefully(self, consumer: AIOKafkaConsumer, max_records: int, timeout_s: float) -> list[BusRecord]:
        """Read partition by partition and record by record, to find the ones that cannot be decoded and step over.

        A first failure ends nothing: to who rereads the log, an empty answer would mean that the broker is silent.
        """
        clock = asyncio.get_running_loop().time
        waited_until = clock() + max(timeout_s, _CAREFUL_WAIT_S)
        records: list[BusRecord] = []
        failed = False
        while not records and clock() < waited_until:
            for partition in self._active():
                try:
                    while len(records) < max_records and (got := await self._getmany(consumer, [partition], 1, 0)):
                        records += got
                except _UnreadableError:
                    failed = True
                    self._rewind(consumer)
                    records += self._step_over(partition)
        self._careful = failed or any(self._positions[p] == offset for p, offset in self._failed_at.items())
        return records

    def _step_over(self, partition: int) -> list[BusRecord]:
        """An unreadable record in place of the one at our position, once it has failed twice."""
        offset = self._positions[partition]
        if self._failed_at.get(partition) != offset:
            self._failed_at[partition] = offset
            return []
        self.seek(partition, offset + 1)
        return [bus_record(self.topic, partition, offset)]

    def _rewind(self, consumer: AIOKafkaConsumer) -> None:
        """Make aiokafka read on from our positions: on error it forgets what it had drained from other partitions."""
        for partition, offset in self._positions.items():
            consumer.seek(TopicPartition(self.topic, partition), offset)

    async def _watch(self, consumer: AIOKafkaConsumer) -> None:
        """After an empty fetch see whether the broker is there, and whether this really is the end.

        Raises:  BusError: the broker cannot be reached, or gives nothing although the log has more.
        """
        now = asyncio.get_running_loop().time()
        active = {p: TopicPartition(self.topic, p) for p in self._active()}
        polled_ms = max((consumer.last_poll_timestamp(tp) or 0 for tp in active.values()), default=0)
        if polled_ms != self._polled_ms:
            self._polled_ms, self._alive_at = polled_ms, now
            ends = {p: consumer.highwater(tp) or 0 for p, tp in active.items()}
        elif now - self._alive_at < min(_SILENCE_S, self._stall_s):
            return
        else:
            ends = await self._queries.offsets(self.topic, LATEST)
        behind = [p for p, tp in active.items() if await consumer.position(tp) < ends.get(p, 0)]
        if not behind:
            self._behind_since = None
        elif self._behind_since is None:
            self._behind_since = now
        elif now - self._behind_since >= self._stall_s:
            await self._restart(behind)

    async def _restart(self, behind: Sequence[int]) -> None:
        self._behind_since = None
        await self._drop()
        if self._restarted:
            self._restarted = False
            raise BusError(
                f"{self.topic}{list(behind)}: the log has more, but nothing comes, also with a new consumer; "
                "look into the broker's own log: a segment may be damaged"
            )
        self._restarted = True

    def _active(self) -> list[int]:
        return [partition for partition in self._positions if partition not in self._paused]

    def _tps(self, partitions: Sequence[int] | Mapping[int, int] | set[int]) -> list[TopicPartition]:
        return [TopicPartition(self.topic, partition) for partition in partitions]

    def _check_mine(self, partitions: Sequence[int]) -> None:
        if strange := [p for p in partitions if p not in self._positions]:
            raise ConfigError(f"{self.topic}: this reader does not read partition {strange[0]}")


class _UnreadableError(Exception):
    """aiokafka could not decode what it fetched."""
