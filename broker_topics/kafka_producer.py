"""Durable sends over an idempotent aiokafka producer, which is thrown away as soon as it may be confused.

Idempotence does not outlive a producer: a record whose fate is unknown stays in doubt, and only the caller's own
sequence numbers can settle it.
"""

import asyncio
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.structs import TopicPartition

from broker_topics.backpressure import ByteBudget
from broker_topics.bus import InDoubtError, Position
from broker_topics.errors import BusError, ConfigError, HeadwaterError
from broker_topics.kafka_connect import CLOSE_S, Connection, quietly
from broker_topics.kafka_errors import DENIED, LIBRARY_ERRORS, NEVER_WRITTEN, translate
from broker_topics.kafka_queries import KafkaQueries
from broker_topics.topics import RECORD_BYTES

# A batch of several records must fit every topic's max.message.bytes; a single large one may be larger than this.
_BATCH_BYTES = 64 * 1024
_LINGER_MS = 2
_RETRY_S = 0.1


@dataclass(slots=True)
class _Life:
    """One producer from its start until it is given up; `ended` then wakes all who wait for an answer."""

    producer: AIOKafkaProducer
    ended: asyncio.Future[None]
    under_way: int = 0


@dataclass(slots=True)
class _Outage:
    """The last failure to connect, shared by everyone who was waiting at that time."""

    at: float = float("-inf")
    error: HeadwaterError | None = None


class KafkaProducer:
    """Sends records of one process; makes a new producer after every failure."""

    def __init__(self, connection: Connection, queries: KafkaQueries, *, max_bytes_under_way: int) -> None:
        self.budget = ByteBudget(max_bytes_under_way)
        self._connection = connection
        self._queries = queries
        self._order: defaultdict[TopicPartition, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._starting = asyncio.Lock()
        self._life: _Life | None = None
        self._outage = _Outage()
        self._burials: set[asyncio.Task[None]] = set()
        self._closed = False

    async def send(self, topic: str, partition: int, key: bytes | None, value: bytes | None, *, size: int) -> Position:
        """Append one record; see `Bus.send`."""
        called_at, where = asyncio.get_running_loop().time(), TopicPartition(topic, partition)
        async with self._order[where]:
            await self.budget.acquire(size)
            try:
                life, answer = await self._enqueue(where, key, value, called_at)
            except BaseException:
                self.budget.release(size)
                raise
        life.under_way += 1
        try:
            return await self._answer(where, life, answer)
        finally:
            life.under_way -= 1
            self.budget.release(size)

    async def close(self) -> None:
        """Give up within a deadline; what is under way is in doubt."""
        self._closed = True
        if self._life is not None:
            self._give_up(self._life)
        if self._burials:
            await asyncio.wait(self._burials, timeout=2 * CLOSE_S)

    async def _enqueue(
        self, where: TopicPartition, key: bytes | None, value: bytes | None, called_at: float
    ) -> tuple[_Life, asyncio.Future[Any]]:
        """Hand the record to a connected producer. Until that has happened it is certainly not written."""
        life: _Life | None = None
        try:
            async with asyncio.timeout(self._connection.timeout_s):
                await self._check_exists(where)
                life = await self._current(called_at)
                await self._reach_leader(life, where)
                answer = await life.producer.send(where.topic, value=value, key=key, partition=where.partition)
        except LIBRARY_ERRORS as error:
            ours = translate(error, f"sending to {where.topic}")
            if isinstance(error, TimeoutError):
                ours = BusError(f"{where.topic}: not sent, the broker took nothing in time; try again")
            if life is None:
                self._outage = _Outage(asyncio.get_running_loop().time(), ours)
            elif not isinstance(error, DENIED):
                self._give_up(life)
            raise ours from error
        return life, answer

    async def _check_exists(self, where: TopicPartition) -> None:
        count = await self._queries.partition_count(where.topic)
        if not 0 <= where.partition < count:
            raise ConfigError(f"topic {where.topic} has no partition {where.partition}, only 0 to {count - 1}")

    async def _answer(self, where: TopicPartition, life: _Life, answer: asyncio.Future[Any]) -> Position:
        await asyncio.wait(
            {answer, life.ended}, timeout=self._connection.timeout_s, return_when=asyncio.FIRST_COMPLETED
        )
        if not answer.done():
            answer.cancel()
            self._give_up(life)
            raise InDoubtError(f"{where.topic}: no answer within {self._connection.timeout_s:g} s; it may be written")
        try:
            offset = answer.result().offset
        except NEVER_WRITTEN as error:
            if not isinstance(error, DENIED):
                self._give_up(life)  # the refused batch used up sequence numbers that the broker now waits for
            raise translate(error, f"sending to {where.topic}") from error
        except (*LIBRARY_ERRORS, asyncio.CancelledError) as error:
            self._give_up(life)
            raise InDoubtError(f"{where.topic}: it may be written ({type(error).__name__}: {error})") from error
        if offset is None or offset < 0:
            raise InDoubtError(f"{where.topic}: the broker has had this record before and does not say where")
        return Position(where.partition, offset)

    async def _current(self, called_at: float) -> _Life:
        """The living producer, or a new one; who was waiting while another failed to connect fails like it."""
        async with self._starting:
            if self._closed:
                raise BusError("the bus is closed; make a new one")
            if self._life is not None:
                return self._life
            if self._outage.error is not None and self._outage.at >= called_at:
                raise type(self._outage.error)(*self._outage.error.args)
            try:
                self._life = await self._start()
            except HeadwaterError as error:
                self._outage = _Outage(asyncio.get_running_loop().time(), error)
                raise
            return self._life

    async def _start(self) -> _Life:
        producer = AIOKafkaProducer(
            **self._connection.options,
            acks="all",
            enable_idempotence=True,
            max_batch_size=_BATCH_BYTES,
            max_request_size=RECORD_BYTES + 64 * 1024,
            linger_ms=_LINGER_MS,
            compression_type=None,
        )
        try:
            await self._connection.open(producer.start())
        except BaseException:
            self._bury(producer)
            raise
        return _Life(producer, asyncio.get_running_loop().create_future())

    async def _reach_leader(self, life: _Life, where: TopicPartition) -> None:
        """Wait until the partition's leader is connected, so that nothing is in doubt that was tried while offline."""
        client = life.producer.client
        await life.producer.partitions_for(where.topic)
        while True:
            leader = client.cluster.leader_for_partition(where)
            if leader is not None and leader >= 0 and await client.ready(leader):
                return
            if not await client.force_metadata_update():
                if life.under_way == 0:
                    self._give_up(life)
                raise BusError(f"{where.topic}: not sent, no broker can be reached; try again later")
            await asyncio.sleep(_RETRY_S)

    def _give_up(self, life: _Life) -> None:
        if self._life is life:
            self._life = None
        if not life.ended.done():
            life.ended.set_result(None)
            self._bury(life.producer)

    def _bury(self, producer: AIOKafkaProducer) -> None:
        task = asyncio.create_task(_end(producer))
        self._burials.add(task)
        task.add_done_callback(self._burials.discard)


async def _end(producer: AIOKafkaProducer) -> None:
    """End a producer without its flush, which waits for ever while the broker is down (aiokafka #1101)."""
    producer._closed = True
    await quietly(producer._sender.close(), producer.client.close())
