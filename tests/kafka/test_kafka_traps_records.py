"""Records that other clients and broken disks leave in a log: none is skipped in silence, none stops a reader."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import MessageSizeTooLargeError

from broker_topics.bus import BusRecord
from broker_topics.kafka import KafkaBus
from broker_topics.local.cluster import LocalCluster
from broker_topics.settings import ConnectionSettings
from broker_topics.topics import Topic, TopicSpec, topic_name, topic_specs
from tests.contract.bus_contract import read, send_all

DAY_MS = 24 * 3600 * 1000


@pytest.fixture
async def bus(bootstrap: str, task_name: str) -> AsyncIterator[KafkaBus]:
    async with KafkaBus(ConnectionSettings(bootstrap=bootstrap, timeout_s=8), stall_s=0.5) as bus:
        await bus.create(topic_specs(task_name, replication=1))
        yield bus


@pytest.fixture
def updates(task_name: str) -> str:
    return topic_name(task_name, Topic.UPDATES)


@asynccontextmanager
async def foreign_producer(bootstrap: str, **options: object) -> AsyncIterator[AIOKafkaProducer]:
    """A client that is none of ours."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, **options)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def send_batch(producer: AIOKafkaProducer, topic: str, partition: int, values: list[bytes]) -> None:
    batch = producer.create_batch()
    for value in values:
        assert batch.append(key=b"k", value=value, timestamp=None) is not None
    await (await producer.send_batch(batch, topic, partition=partition))


def flip_a_byte_after(broker: LocalCluster, topic: str, partition: int, needle: bytes) -> None:
    """Break the disk's copy of the record that holds `needle`."""
    (segment,) = Path(broker._data).glob(f"node-1/**/{topic}-{partition}/00000000000000000000.log")
    with segment.open("r+b") as file:
        at = file.read().index(needle)
        file.seek(at)
        file.write(bytes([needle[0] ^ 0xFF]))


async def test_a_record_that_cannot_be_decoded_is_reported_and_stepped_over(
    broker: LocalCluster, bus: KafkaBus, bootstrap: str, updates: str
) -> None:
    async with foreign_producer(bootstrap) as producer:
        await send_batch(producer, updates, 0, [b"good 0", b"good 1"])
        await send_batch(producer, updates, 0, [b"bad 2", b"needle 3", b"bad 4"])
        await send_batch(producer, updates, 0, [b"good 5"])
        for partition in range(1, 12):
            await send_batch(producer, updates, partition, [b"other 0", b"other 1"])
    flip_a_byte_after(broker, updates, 0, b"needle 3")
    records = await read(bus.reader(updates, dict.fromkeys(range(12), 0)), 28)
    broken = [record for record in records if record.partition == 0]
    assert [(record.offset, record.readable, record.value) for record in broken] == [
        (0, True, b"good 0"),
        (1, True, b"good 1"),
        (2, False, None),
        (3, False, None),
        (4, False, None),
        (5, True, b"good 5"),
    ]
    # aiokafka forgets what it had drained from other partitions before it met the broken one.
    for partition in range(1, 12):
        assert [record.value for record in records if record.partition == partition] == [b"other 0", b"other 1"]


async def test_a_batch_with_a_broken_end_loses_none_of_the_records_before_it(
    broker: LocalCluster, bus: KafkaBus, bootstrap: str, updates: str
) -> None:
    async with foreign_producer(bootstrap) as producer:
        for number in range(50):
            await send_batch(producer, updates, 0, [b"good %d" % number])
        await send_batch(producer, updates, 0, [b"needle"])
    flip_a_byte_after(broker, updates, 0, b"needle")
    records = await read(bus.reader(updates, {0: 0}), 51)
    assert [record.offset for record in records] == list(range(51))
    assert [record.offset for record in records if not record.readable] == [50]
    await bus.send(updates, key=b"k", value=b"after", partition=0)
    assert (await read(bus.reader(updates, {0: 51}), 1))[0].value == b"after"


async def test_a_record_larger_than_one_fetch_is_not_skipped(bus: KafkaBus, bootstrap: str, task_name: str) -> None:
    wide = TopicSpec(
        name=f"fl.{task_name}.wide", partitions=1, replication=1, settings={"max.message.bytes": "10000000"}
    )
    await bus.create([wide])
    async with foreign_producer(bootstrap, max_request_size=10_000_000) as producer:
        await producer.send_and_wait(wide.name, bytes(6_000_000))
        await producer.send_and_wait(wide.name, b"after")
    first, second = await read(bus.reader(wide.name, {0: 0}), 2)
    assert (first.offset, len(first.value or b"")) == (0, 6_000_000)
    assert (second.offset, second.value) == (1, b"after")


async def test_a_compressed_bomb_is_refused_by_the_topic(bus: KafkaBus, bootstrap: str, updates: str) -> None:
    async with foreign_producer(bootstrap, compression_type="gzip", max_request_size=64_000_000) as producer:
        with pytest.raises(MessageSizeTooLargeError):
            await producer.send_and_wait(updates, bytes(32_000_000), partition=0)
        await producer.send_and_wait(updates, b"small", partition=0)
    assert (await read(bus.reader(updates, {0: 0}), 1))[0].value == b"small"


async def test_a_device_whose_clock_is_days_ahead_is_heard_and_dated_by_the_broker(
    bus: KafkaBus, bootstrap: str, task_name: str
) -> None:
    now_ms = int(time.time() * 1000)
    dated: list[BusRecord] = []
    async with foreign_producer(bootstrap) as producer:
        for topic in (Topic.UPDATES, Topic.TELEMETRY, Topic.CLIENTS):
            name = topic_name(task_name, topic)
            await producer.send_and_wait(name, b"v", key=b"k", partition=0, timestamp_ms=now_ms + 3 * DAY_MS)
            dated += await read(bus.reader(name, {0: 0}), 1)
    assert all(abs(record.timestamp_ms - now_ms) < 60_000 for record in dated)


async def test_offsets_used_up_by_a_transaction_are_a_gap_and_no_stall(
    bus: KafkaBus, bootstrap: str, updates: str
) -> None:
    async with (
        foreign_producer(bootstrap, transactional_id=f"device-{updates}") as producer,
        producer.transaction(),
    ):
        await producer.send_and_wait(updates, b"in a transaction", partition=0)
    reader = bus.reader(updates, {0: 0})
    assert [record.offset for record in await read(reader, 1)] == [0]
    async with asyncio.timeout(10):
        while (await bus.end_offsets(updates))[0] < 2:  # the transaction's marker follows its commit
            await asyncio.sleep(0.02)
    ended_at = time.monotonic() + 1.5  # three times the stall limit
    while time.monotonic() < ended_at:
        assert await reader.fetch(timeout_s=0.2) == []
    assert reader.position(0) == 2
    await bus.send(updates, key=b"k", value=b"after", partition=0)
    assert [record.offset for record in await read(reader, 1)] == [2]


async def test_reading_leaves_no_consumer_group_behind(bus: KafkaBus, bootstrap: str, updates: str) -> None:
    await send_all(bus, updates, [b"a"])
    await read(bus.reader(updates, {0: 0}), 1)
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        assert await admin.list_consumer_groups() == []
    finally:
        await admin.close()
