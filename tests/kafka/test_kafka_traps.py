"""Each trap of Kafka and its client that would lose, stall or hang, sprung on a real broker that is hurt on purpose."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import pytest
from aiokafka.structs import RecordMetadata, TopicPartition

from broker_topics.bus import BusRecord, InDoubtError, LogReader, Position
from broker_topics.errors import BusError, ConfigError
from broker_topics.kafka import KafkaBus
from broker_topics.local.cluster import LocalCluster
from broker_topics.settings import ConnectionSettings
from broker_topics.topics import Topic, TopicSpec, topic_name, topic_specs
from tests.contract.bus_contract import read, send_all


@pytest.fixture(scope="module")
def rough(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """One node that creates any topic somebody asks about, as a stock Kafka does; who hurts it heals it."""
    cluster = LocalCluster(
        data=tmp_path_factory.mktemp("rough"), properties={"auto.create.topics.enable": "true", "num.partitions": "5"}
    )
    asyncio.run(cluster.start())
    yield cluster
    asyncio.run(cluster.stop())


@pytest.fixture
async def bus(rough: LocalCluster, task_name: str) -> AsyncIterator[KafkaBus]:
    async with KafkaBus(ConnectionSettings(bootstrap=rough.bootstrap, timeout_s=4), stall_s=0.5) as bus:
        await bus.create(topic_specs(task_name, replication=1))
        yield bus


@pytest.fixture
def commits(task_name: str) -> str:
    return topic_name(task_name, Topic.COMMITS)


async def read_through(reader: LogReader, count: int) -> list[BusRecord]:
    """Like `read`, but a broker that is away for a while is no failure."""
    records: list[BusRecord] = []
    async with asyncio.timeout(30):
        while len(records) < count:
            try:
                records += await reader.fetch(timeout_s=0.2)
            except BusError:
                await asyncio.sleep(0.05)
    return records


async def test_with_the_broker_down_every_call_ends_in_time(rough: LocalCluster, bus: KafkaBus, commits: str) -> None:
    reader = bus.reader(commits, {0: 0})
    await bus.send(commits, key=None, value=b"before")
    await read(reader, 1)
    await rough.kill()
    try:
        began = time.monotonic()
        for _ in range(3):
            with pytest.raises(BusError) as caught:
                await bus.send(commits, key=None, value=b"while down")
            assert not isinstance(caught.value, InDoubtError)
        with pytest.raises(BusError, match="nothing listens there"):
            await bus.end_offsets(commits)
        assert time.monotonic() - began < 4
        with pytest.raises(BusError, match="nothing listens there"):
            await read(reader, 1)
        assert reader.position(0) == 1
        other = KafkaBus(bus.settings)
        with pytest.raises(BusError, match="nothing listens there"):
            await other.start()
        began = time.monotonic()
        await reader.close()
        await bus.close()
        assert time.monotonic() - began < 4
    finally:
        await rough.restart()
    await other.start()  # a bus that could not start goes on as soon as the broker is there
    assert await other.send(commits, key=None, value=b"after") == Position(0, 1)
    await other.close()


async def test_a_frozen_broker_leaves_a_send_in_doubt_and_may_write_it_later(
    rough: LocalCluster, bus: KafkaBus, commits: str
) -> None:
    await bus.send(commits, key=None, value=b"before")
    rough.freeze()
    try:
        began = time.monotonic()
        with pytest.raises(InDoubtError, match="it may be written"):
            await bus.send(commits, key=None, value=b"in doubt")
        assert time.monotonic() - began < 6
    finally:
        rough.thaw()
    await bus.send(commits, key=None, value=b"after")
    values = [record.value for record in await read(bus.reader(commits, {0: 0}), 2)]
    assert values in ([b"before", b"in doubt"], [b"before", b"after"])


async def test_a_crowd_of_sends_to_a_frozen_broker_fails_together_and_not_one_after_the_other(
    rough: LocalCluster, bus: KafkaBus, commits: str
) -> None:
    async with KafkaBus(ConnectionSettings(bootstrap=rough.bootstrap, timeout_s=2)) as hasty:
        await hasty.send(commits, key=None, value=b"before")
        rough.freeze()
        try:
            began = time.monotonic()
            sends = (hasty.send(commits, key=None, value=bytes(1024 * 1024)) for _ in range(30))
            outcomes = await asyncio.gather(*sends, return_exceptions=True)
            assert time.monotonic() - began < 8
        finally:
            rough.thaw()
        kinds = {type(outcome) for outcome in outcomes}
        assert kinds == {InDoubtError, BusError}  # those under way, and those that waited for room
        assert hasty.bytes_under_way == 0


async def test_closing_a_bus_with_a_send_under_way_to_a_frozen_broker_ends_in_time(
    rough: LocalCluster, bus: KafkaBus, commits: str
) -> None:
    reader = bus.reader(commits, {0: 0})
    await bus.send(commits, key=None, value=b"before")
    await read(reader, 1)
    rough.freeze()
    try:
        sending = asyncio.create_task(bus.send(commits, key=None, value=b"in doubt"))
        await asyncio.wait({sending}, timeout=0.2)
        began = time.monotonic()
        await bus.close()
        assert time.monotonic() - began < 8
        with pytest.raises(InDoubtError):
            await sending
    finally:
        rough.thaw()


async def test_a_kill_in_the_middle_of_sends_loses_nothing_that_was_acknowledged(
    rough: LocalCluster, bus: KafkaBus, commits: str
) -> None:
    acknowledged: dict[int, bytes] = {}

    async def send_until_there(number: int) -> None:
        value = b"%d" % number
        while True:
            try:
                position = await bus.send(commits, key=None, value=value)
            except BusError:
                await asyncio.sleep(0.1)
            else:
                acknowledged[position.offset] = value
                return

    reader = bus.reader(commits, {0: 0})
    reading = asyncio.create_task(read_through(reader, 400))
    senders = [asyncio.create_task(send_until_there(number)) for number in range(200)]
    await asyncio.wait(senders, return_when=asyncio.FIRST_COMPLETED)
    await rough.kill()
    senders += [asyncio.create_task(send_until_there(number)) for number in range(200, 400)]
    await rough.restart()
    async with asyncio.timeout(30):
        await asyncio.gather(*senders)
        log = {record.offset: record.value for record in await reading}
        end = (await bus.end_offsets(commits))[0]
        while len(log) < end:
            log |= {record.offset: record.value for record in await reader.fetch()}
    assert len(acknowledged) == 400
    assert {offset: log[offset] for offset in acknowledged} == acknowledged
    assert sorted(log) == list(range(end))


async def test_a_producer_whose_sequence_broke_is_replaced(bus: KafkaBus, commits: str) -> None:
    await send_all(bus, commits, [b"a", b"b"])
    life = bus._producer._life
    assert life is not None
    life.producer._txn_manager.increment_sequence_number(TopicPartition(commits, 0), 7)
    with pytest.raises(InDoubtError, match="OutOfOrderSequenceNumber"):
        await bus.send(commits, key=None, value=b"never written")
    assert await bus.send(commits, key=None, value=b"c") == Position(0, 2)


async def test_success_without_an_offset_is_in_doubt(bus: KafkaBus, commits: str) -> None:
    await bus.send(commits, key=None, value=b"a")
    life = bus._producer._life
    assert life is not None
    where = TopicPartition(commits, 0)
    # What aiokafka reports for DuplicateSequenceNumber, which this broker's version no longer sends.
    answer = asyncio.get_running_loop().create_future()
    answer.set_result(RecordMetadata(commits, 0, where, -1, None, 1, None))
    with pytest.raises(InDoubtError, match="does not say where"):
        await bus._producer._answer(where, life, answer)


async def test_a_record_above_the_topics_own_limit_is_refused_and_the_next_one_is_taken(
    bus: KafkaBus, task_name: str
) -> None:
    narrow = TopicSpec(
        name=f"fl.{task_name}.narrow", partitions=1, replication=1, settings={"max.message.bytes": "1000"}
    )
    await bus.create([narrow])
    await bus.send(narrow.name, key=None, value=b"first")
    with pytest.raises(ConfigError, match=r"larger than the topic's max.message.bytes"):
        await bus.send(narrow.name, key=None, value=bytes(2000))
    assert await bus.send(narrow.name, key=None, value=b"second") == Position(0, 1)


async def test_asking_about_an_unknown_topic_does_not_create_it(bus: KafkaBus, task_name: str) -> None:
    typo = f"fl.{task_name}.typo"
    with pytest.raises(ConfigError, match="does not exist"):
        await bus.send(typo, key=None, value=b"a")
    with pytest.raises(ConfigError, match="does not exist"):
        await bus.reader(typo, {0: 0}).fetch()
    assert await bus.describe([typo]) == {}


async def test_a_consumer_that_stops_fetching_is_replaced(bus: KafkaBus, commits: str) -> None:
    reader = bus.reader(commits, {0: 0})
    await bus.send(commits, key=None, value=b"a")
    await read(reader, 1)
    stuck = reader._consumer
    stuck.pause(TopicPartition(commits, 0))
    await bus.send(commits, key=None, value=b"b")
    assert (await read_through(reader, 1))[0].value == b"b"
    assert reader._consumer is not stuck


async def test_a_log_that_gives_nothing_to_any_consumer_is_an_error(bus: KafkaBus, commits: str) -> None:
    reader = bus.reader(commits, {0: 0})
    await bus.send(commits, key=None, value=b"a")
    await read(reader, 1)
    await bus.send(commits, key=None, value=b"b")

    async def read_with_every_consumer_stuck() -> None:
        while True:
            (await reader._connected()).pause(TopicPartition(commits, 0))
            assert await reader.fetch(timeout_s=0.1) == []

    with pytest.raises(BusError, match="the log has more, but nothing comes"):
        await asyncio.wait_for(read_with_every_consumer_stuck(), 20)
    assert (await read(reader, 1))[0].value == b"b"
