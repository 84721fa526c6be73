"""What every bus promises; `MemoryBus` passes it in the unit tests, `KafkaBus` on a real broker."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, AsyncExitStack
from typing import Protocol

import pytest

from broker_topics.bus import Bus, BusRecord, LogReader, OffsetGoneError, Position
from broker_topics.errors import BusError, ConfigError
from broker_topics.topics import Topic, topic_name, topic_specs

KIB = 1024


class MeasuredBus(Bus, Protocol):
    @property
    def bytes_under_way(self) -> int: ...


class Backend(Protocol):
    """One log, and what tests may do to it behind the buses' back."""

    def new_bus(self, *, max_bytes_under_way: int = 8 * KIB * KIB) -> MeasuredBus: ...

    async def delete_before(self, topic: str, partition: int, offset: int) -> None: ...

    def silence(self) -> AbstractContextManager[None]:
        """Nobody gets an answer meanwhile."""
        ...


async def read(reader: LogReader, count: int) -> list[BusRecord]:
    """Exactly `count` records, or a failure after ten seconds."""
    records: list[BusRecord] = []
    async with asyncio.timeout(10):
        while len(records) < count:
            records += await reader.fetch(max_records=count - len(records))
    return records


async def send_all(bus: Bus, topic: str, values: list[bytes], *, partition: int = 0) -> list[Position]:
    return list(await asyncio.gather(*(bus.send(topic, key=b"k", value=v, partition=partition) for v in values)))


class BusContract:
    replication = 1

    @pytest.fixture
    async def open_bus(self, backend: Backend) -> AsyncIterator[Callable[..., Awaitable[MeasuredBus]]]:
        async with AsyncExitStack() as stack:

            async def open_bus(**options: int) -> MeasuredBus:
                return await stack.enter_async_context(backend.new_bus(**options))

            yield open_bus

    @pytest.fixture
    async def bus(self, open_bus: Callable[..., Awaitable[MeasuredBus]], task_name: str) -> MeasuredBus:
        bus = await open_bus()
        await bus.create(topic_specs(task_name, replication=self.replication))
        return bus

    @pytest.fixture
    def updates(self, task_name: str) -> str:
        return topic_name(task_name, Topic.UPDATES)

    @pytest.fixture
    def commits(self, task_name: str) -> str:
        return topic_name(task_name, Topic.COMMITS)

    async def test_concurrent_sends_to_a_partition_keep_the_order_of_the_calls(self, bus: Bus, commits: str) -> None:
        values = [b"%d" % number for number in range(300)]
        positions = await send_all(bus, commits, values)
        assert positions == [Position(0, offset) for offset in range(300)]
        assert [record.value for record in await read(bus.reader(commits, {0: 0}), 300)] == values

    async def test_a_record_comes_back_as_it_was_sent(self, bus: Bus, updates: str) -> None:
        await bus.send(updates, key=b"w-17", value=b"payload", partition=5)
        await bus.send(updates, key=None, value=b"", partition=5)
        first, second = await read(bus.reader(updates, {5: 0}), 2)
        assert (first.topic, first.partition, first.offset) == (updates, 5, 0)
        assert (first.key, first.value, first.readable) == (b"w-17", b"payload", True)
        assert (second.key, second.value, second.offset) == (None, b"", 1)
        assert first.timestamp_ms > 1_600_000_000_000

    async def test_a_tombstone_has_a_key_and_no_value(self, bus: Bus, task_name: str) -> None:
        models = topic_name(task_name, Topic.MODELS)
        await bus.send(models, key=b"1/writer/hash/0", value=b"part")
        await bus.send(models, key=b"1/writer/hash/0", value=None)
        part, tombstone = await read(bus.reader(models, {0: 0}), 2)
        assert part.value == b"part"
        assert (tombstone.key, tombstone.value) == (b"1/writer/hash/0", None)

    async def test_a_record_with_neither_key_nor_value_is_refused(self, bus: Bus, commits: str) -> None:
        with pytest.raises(ConfigError, match="needs a key or a value"):
            await bus.send(commits, key=None, value=None)

    async def test_an_empty_topic_starts_and_ends_at_zero(self, bus: Bus, updates: str) -> None:
        assert await bus.start_offsets(updates) == dict.fromkeys(range(12), 0)
        assert await bus.end_offsets(updates) == dict.fromkeys(range(12), 0)

    async def test_the_end_is_the_offset_of_the_next_record(self, bus: Bus, updates: str) -> None:
        await send_all(bus, updates, [b"a", b"b", b"c"], partition=2)
        assert (await bus.end_offsets(updates))[2] == 3
        assert await bus.send(updates, key=b"k", value=b"d", partition=2) == Position(2, 3)

    async def test_the_start_moves_when_old_records_are_deleted(self, bus: Bus, backend: Backend, commits: str) -> None:
        await send_all(bus, commits, [b"a", b"b", b"c"])
        await backend.delete_before(commits, 0, 2)
        assert await bus.start_offsets(commits) == {0: 2}
        assert (await read(bus.reader(commits, {0: 2}), 1))[0].value == b"c"

    async def test_reading_below_the_start_says_that_the_offset_is_gone(
        self, bus: Bus, backend: Backend, commits: str
    ) -> None:
        await send_all(bus, commits, [b"a", b"b", b"c"])
        await backend.delete_before(commits, 0, 2)
        reader = bus.reader(commits, {0: 1})
        with pytest.raises(OffsetGoneError, match="offset 1 "):
            await read(reader, 1)
        assert reader.position(0) == 1

    async def test_reading_beyond_the_end_says_so_and_a_seek_mends_it(self, bus: Bus, commits: str) -> None:
        await send_all(bus, commits, [b"a", b"b"])
        reader = bus.reader(commits, {0: 3})
        with pytest.raises(OffsetGoneError, match="offset 3 "):
            await read(reader, 1)
        with pytest.raises(OffsetGoneError):
            await read(reader, 1)
        reader.seek(0, 1)
        assert (await read(reader, 1))[0].value == b"b"

    async def test_waiting_at_the_end_gives_an_empty_list_in_time(self, bus: Bus, commits: str) -> None:
        await bus.send(commits, key=None, value=b"a")
        reader = bus.reader(commits, {0: 1})
        assert await reader.fetch(timeout_s=0.1) == []
        async with asyncio.timeout(2):
            assert await reader.fetch(timeout_s=0.2) == []
        assert reader.position(0) == 1

    async def test_seek_goes_back_and_forth(self, bus: Bus, commits: str) -> None:
        await send_all(bus, commits, [b"%d" % number for number in range(10)])
        reader = bus.reader(commits, {0: 4})
        assert [record.offset for record in await read(reader, 6)] == [4, 5, 6, 7, 8, 9]
        assert reader.position(0) == 10
        reader.seek(0, 2)
        assert reader.position(0) == 2
        assert [record.offset for record in await read(reader, 2)] == [2, 3]
        reader.seek(0, 8)
        assert [record.offset for record in await read(reader, 2)] == [8, 9]

    async def test_a_fetch_returns_no_more_than_asked_for_and_loses_nothing(self, bus: Bus, updates: str) -> None:
        for partition in range(3):
            await send_all(bus, updates, [b"%d" % number for number in range(10)], partition=partition)
        reader = bus.reader(updates, {0: 0, 1: 0, 2: 0})
        records: list[BusRecord] = []
        while len(records) < 30:
            got = await reader.fetch(max_records=4)
            assert 1 <= len(got) <= 4
            records += got
        for partition in range(3):
            offsets = [record.offset for record in records if record.partition == partition]
            assert offsets == list(range(10))

    async def test_a_paused_partition_is_silent_and_goes_on_where_it_was(self, bus: Bus, updates: str) -> None:
        await send_all(bus, updates, [b"a", b"b", b"c"], partition=0)
        await send_all(bus, updates, [b"x", b"y", b"z"], partition=1)
        reader = bus.reader(updates, {0: 0, 1: 0})
        await reader.fetch(max_records=1)
        reader.pause([0])
        done = reader.position(0)
        rest = await read(reader, 3 - reader.position(1))
        assert {record.partition for record in rest} == {1}
        assert await reader.fetch(timeout_s=0.2) == []
        assert reader.position(0) == done
        reader.resume([0])
        assert [record.offset for record in await read(reader, 3 - done)] == list(range(done, 3))

    async def test_a_reader_paused_before_its_first_fetch_stays_silent(self, bus: Bus, commits: str) -> None:
        await bus.send(commits, key=None, value=b"a")
        reader = bus.reader(commits, {0: 0})
        reader.pause([0])
        assert await reader.fetch(timeout_s=0.2) == []
        reader.resume([0])
        assert (await read(reader, 1))[0].value == b"a"

    async def test_two_readers_do_not_disturb_each_other(self, bus: Bus, commits: str) -> None:
        await send_all(bus, commits, [b"%d" % number for number in range(6)])
        first, second = bus.reader(commits, {0: 0}), bus.reader(commits, {0: 0})
        assert [record.offset for record in await read(first, 4)] == [0, 1, 2, 3]
        await first.close()
        assert [record.offset for record in await read(second, 6)] == [0, 1, 2, 3, 4, 5]

    async def test_a_reader_follows_a_writer_on_another_bus(
        self, bus: Bus, open_bus: Callable[..., Awaitable[Bus]], commits: str
    ) -> None:
        other = await open_bus()
        following = asyncio.create_task(read(other.reader(commits, {0: 0}), 50))
        for number in range(50):
            await bus.send(commits, key=None, value=b"%d" % number)
        assert [record.value for record in await following] == [b"%d" % number for number in range(50)]

    @pytest.mark.parametrize("size", [768 * KIB, 1024 * KIB])
    async def test_a_large_record_comes_back_byte_for_byte(self, bus: Bus, commits: str, size: int) -> None:
        value = (bytes(range(256)) * (size // 256))[:size]
        for _ in range(3):
            await bus.send(commits, key=b"height/writer/hash/part", value=value)
        records = await read(bus.reader(commits, {0: 0}), 3)
        assert all(record.value == value for record in records)

    async def test_a_reader_that_asks_evenly_gets_what_is_larger_than_its_share_too(
        self, bus: Bus, updates: str
    ) -> None:
        for partition in range(12):
            await send_all(bus, updates, [bytes([number]) * 700 * KIB for number in range(2)], partition=partition)
        reader = bus.reader(updates, dict.fromkeys(range(12), 0), evenly=True)
        found = await read(reader, 24)
        assert sorted((r.partition, r.offset, (r.value or b"")[0]) for r in found) == [
            (partition, number, number) for partition in range(12) for number in range(2)
        ]
        await reader.close()

    async def test_a_record_above_the_limit_is_refused_and_never_sent(self, bus: Bus, commits: str) -> None:
        await bus.send(commits, key=None, value=b"before")
        with pytest.raises(ConfigError, match="1,048,577 bytes is above the limit of 1,048,576"):
            await bus.send(commits, key=None, value=bytes(1024 * KIB + 1))
        with pytest.raises(ConfigError, match="a key of 1,025 bytes"):
            await bus.send(commits, key=bytes(1025), value=b"")
        assert await bus.send(commits, key=None, value=b"after") == Position(0, 1)

    async def test_back_pressure_bounds_what_is_under_way(
        self, bus: Bus, open_bus: Callable[..., Awaitable[MeasuredBus]], commits: str
    ) -> None:
        narrow = await open_bus(max_bytes_under_way=300_000)
        sending = asyncio.create_task(send_all(narrow, commits, [b"%03d" % n + bytes(99_996) for n in range(60)]))
        highest = 0
        while not sending.done():
            highest = max(highest, narrow.bytes_under_way)
            await asyncio.sleep(0)
        assert [position.offset for position in await sending] == list(range(60))
        assert 100_000 <= highest <= 300_000
        assert narrow.bytes_under_way == 0

    async def test_what_is_larger_than_the_bound_is_sent_alone(
        self, bus: Bus, open_bus: Callable[..., Awaitable[MeasuredBus]], commits: str
    ) -> None:
        narrow = await open_bus(max_bytes_under_way=1000)
        positions = await send_all(narrow, commits, [bytes(5000), bytes(5000), b"small"])
        assert [position.offset for position in positions] == [0, 1, 2]

    async def test_a_key_has_the_partition_that_kafka_gives_it(self, bus: Bus, updates: str, commits: str) -> None:
        assert await bus.partition_for(updates, b"w-17") == 5
        assert await bus.partition_for(updates, b"foobar") == 6
        assert await bus.partition_for(commits, b"foobar") == 0

    async def test_an_unknown_topic_is_named_with_the_mend(self, bus: Bus, task_name: str) -> None:
        mend = r"fl.typo.updates does not exist.*headwater topics apply"
        with pytest.raises(ConfigError, match=mend):
            await bus.send("fl.typo.updates", key=b"k", value=b"v")
        with pytest.raises(ConfigError, match=mend):
            await bus.reader("fl.typo.updates", {0: 0}).fetch()
        with pytest.raises(ConfigError, match=mend):
            await bus.end_offsets("fl.typo.updates")
        assert await bus.describe(["fl.typo.updates"]) == {}

    async def test_an_unknown_partition_is_refused(self, bus: Bus, commits: str) -> None:
        with pytest.raises(ConfigError, match="no partition 1, only 0 to 0"):
            await bus.send(commits, key=b"k", value=b"v", partition=1)
        with pytest.raises(ConfigError, match="does not read partition 3"):
            bus.reader(commits, {0: 0}).seek(3, 0)
        with pytest.raises(ConfigError, match="at least one partition"):
            bus.reader(commits, {})

    async def test_topics_are_described_as_they_were_created(self, bus: Bus, task_name: str) -> None:
        specs = topic_specs(task_name, replication=self.replication)
        await bus.create(specs)
        found = await bus.describe([spec.name for spec in specs] + ["fl.typo.updates"])
        assert set(found) == {spec.name for spec in specs}
        assert await bus.existing([specs[0].name, "fl.typo.updates"]) == {specs[0].name}
        for spec in specs:
            assert (found[spec.name].partitions, found[spec.name].replication) == (spec.partitions, spec.replication)
            assert {name: found[spec.name].settings[name] for name in spec.settings} == spec.settings

    async def test_a_closed_bus_and_reader_say_so(self, backend: Backend, bus: Bus, commits: str) -> None:
        other = backend.new_bus()
        await other.start()
        reader = other.reader(commits, {0: 0})
        await reader.fetch(timeout_s=0.01)
        await reader.close()
        with pytest.raises(BusError, match="closed"):
            await reader.fetch()
        await other.close()
        await other.close()
        with pytest.raises(BusError, match="closed"):
            await other.send(commits, key=None, value=b"a")
        with pytest.raises(BusError, match="closed"):
            await other.end_offsets(commits)

    async def test_closing_ends_within_a_deadline_while_the_broker_says_nothing(
        self, backend: Backend, bus: Bus, commits: str
    ) -> None:
        other = backend.new_bus()
        await other.start()
        reader = other.reader(commits, {0: 0})
        await other.send(commits, key=None, value=b"before")
        await read(reader, 1)
        with backend.silence():
            sending = asyncio.create_task(other.send(commits, key=None, value=b"under way"))
            await asyncio.sleep(0.1)
            async with asyncio.timeout(30):
                await reader.close()
                await other.close()
            with pytest.raises(BusError):
                await sending
        assert (await read(bus.reader(commits, {0: 0}), 1))[0].value == b"before"
