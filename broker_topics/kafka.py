"""The bus over Apache Kafka: what the protocol promises, with aiokafka's traps kept inside."""

import asyncio
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from broker_topics.backpressure import MAX_BYTES_UNDER_WAY
from broker_topics.bus import Position
from broker_topics.errors import BusError
from broker_topics.kafka_connect import Connection
from broker_topics.kafka_producer import KafkaProducer
from broker_topics.kafka_queries import EARLIEST, LATEST, KafkaQueries
from broker_topics.kafka_reader import STALL_S, KafkaReader
from broker_topics.partitions import partition_of
from broker_topics.settings import ConnectionSettings
from broker_topics.topics import TopicSpec, check_record_size


class KafkaBus:
    """One process's (or device's) connection to a Kafka cluster; see `Bus`.

    Connects by itself whenever it is needed: a bus whose `start` failed may be used, or started again, later.
    Every operation ends within `settings.timeout_s`, closing within a few seconds, also with the broker down.

    Args:  max_bytes_under_way: sends beyond it wait their turn.
           stall_s: how long a reader may get nothing although the log has more, before it connects anew.
    """

    def __init__(
        self,
        settings: ConnectionSettings,
        *,
        max_bytes_under_way: int = MAX_BYTES_UNDER_WAY,
        stall_s: float = STALL_S,
    ) -> None:
        self.settings = settings
        connection = Connection.of(settings)
        self._connection = connection
        self._queries = KafkaQueries(connection)
        self._producer = KafkaProducer(connection, self._queries, max_bytes_under_way=max_bytes_under_way)
        self._readers: set[KafkaReader] = set()
        self._stall_s = stall_s
        self._closed = False

    @property
    def bytes_under_way(self) -> int:
        """Bytes of records that were let in and whose `send` has not returned."""
        return self._producer.budget.under_way

    async def start(self) -> None:
        """Connect; raises ConfigError with the true cause, BusError when unreachable."""
        self._check_open()
        await self._queries.connect()

    async def close(self) -> None:
        """Give up every connection, readers' too, within a deadline; what is under way is in doubt."""
        self._closed = True
        await asyncio.gather(
            self._producer.close(), self._queries.close(), *(reader.close() for reader in list(self._readers))
        )

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def send(self, topic: str, *, key: bytes | None, value: bytes | None, partition: int = 0) -> Position:
        """Append one record durably; see `Bus.send`."""
        self._check_open()
        size = check_record_size(topic, key, value)
        return await self._producer.send(topic, partition, key, value, size=size)

    async def partition_for(self, topic: str, key: bytes) -> int:
        """The partition that records with this key belong to."""
        self._check_open()
        return partition_of(key, await self._queries.partition_count(topic))

    def reader(self, topic: str, positions: Mapping[int, int], *, evenly: bool = False) -> KafkaReader:
        """Read `partition → offset` of one topic; connects at the first fetch; see `Bus.reader`."""
        self._check_open()
        reader = KafkaReader(
            self._connection,
            self._queries,
            topic,
            positions,
            evenly=evenly,
            stall_s=self._stall_s,
            on_close=self._readers.discard,
        )
        self._readers.add(reader)
        return reader

    async def start_offsets(self, topic: str) -> dict[int, int]:
        """The oldest offset that is still there, of every partition."""
        self._check_open()
        return await self._queries.offsets(topic, EARLIEST)

    async def end_offsets(self, topic: str) -> dict[int, int]:
        """The offset that the next record will get, of every partition."""
        self._check_open()
        return await self._queries.offsets(topic, LATEST)

    async def existing(self, topics: Sequence[str]) -> set[str]:
        """Those of the topics that exist; whoever may read or write one may ask for it."""
        self._check_open()
        return await self._queries.existing(topics)

    async def describe(self, topics: Sequence[str]) -> dict[str, TopicSpec]:
        """Those of the topics that exist, with every setting that is in force."""
        self._check_open()
        return await self._queries.describe(topics)

    async def create(self, specs: Sequence[TopicSpec]) -> None:
        """Create topics; one that exists already is left alone."""
        self._check_open()
        await self._queries.create(specs)

    async def brokers(self) -> int:
        """How many brokers the cluster has at the moment."""
        self._check_open()
        return await self._queries.brokers()

    def _check_open(self) -> None:
        if self._closed:
            raise BusError("the bus is closed; make a new one")
