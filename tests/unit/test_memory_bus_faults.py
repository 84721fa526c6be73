"""What goes wrong on a memory log goes wrong as on a real one, on demand and without waiting."""

import asyncio

import pytest

from broker_topics.bus import InDoubtError, OffsetGoneError, Position
from broker_topics.errors import BusError
from broker_topics.memory import MemoryBus
from broker_topics.memory_log import Fault, MemoryLog
from broker_topics.topics import TopicSpec

TOPIC = "fl.t.commits"


@pytest.fixture
def log() -> MemoryLog:
    log = MemoryLog(now_s=lambda: 1_700_000_000.5)
    log.create(TopicSpec(name=TOPIC, partitions=1, replication=1))
    return log


@pytest.fixture
async def bus(log: MemoryLog) -> MemoryBus:
    bus = MemoryBus(log)
    await bus.start()
    return bus


def values(log: MemoryLog) -> list[bytes | None]:
    return [record.value for record in log.partition(TOPIC).records]


async def test_a_refused_record_is_not_in_the_log(log: MemoryLog, bus: MemoryBus) -> None:
    log.on_send = lambda *_: Fault(outcome="refused")
    with pytest.raises(BusError) as caught:
        await bus.send(TOPIC, key=None, value=b"a")
    assert not isinstance(caught.value, InDoubtError)
    assert values(log) == []


async def test_a_record_whose_answer_is_lost_is_in_doubt_and_in_the_log(log: MemoryLog, bus: MemoryBus) -> None:
    log.on_send = lambda *_: Fault(outcome="unacknowledged")
    with pytest.raises(InDoubtError):
        await bus.send(TOPIC, key=None, value=b"a")
    assert values(log) == [b"a"]


async def test_a_late_record_is_in_doubt_and_overtaken(log: MemoryLog, bus: MemoryBus) -> None:
    log.on_send = lambda topic, partition, key, value: Fault(outcome="late") if value == b"late" else None
    with pytest.raises(InDoubtError):
        await bus.send(TOPIC, key=None, value=b"late")
    assert await bus.send(TOPIC, key=None, value=b"next") == Position(0, 0)
    assert log.deliver_late() == 1
    assert log.deliver_late() == 0
    assert values(log) == [b"next", b"late"]


async def test_a_record_that_is_held_back_holds_back_those_behind_it(log: MemoryLog, bus: MemoryBus) -> None:
    gate = asyncio.Event()
    log.on_send = lambda topic, partition, key, value: Fault(hold=gate) if value == b"first" else None
    sends = [asyncio.create_task(bus.send(TOPIC, key=None, value=value)) for value in (b"first", b"second")]
    _, pending = await asyncio.wait(sends, timeout=0.01)
    assert len(pending) == 2
    gate.set()
    await asyncio.gather(*sends)
    assert values(log) == [b"first", b"second"]


async def test_a_log_that_is_down_fails_everything_and_comes_back_with_all_it_held(
    log: MemoryLog, bus: MemoryBus
) -> None:
    await bus.send(TOPIC, key=None, value=b"a")
    reader = bus.reader(TOPIC, {0: 1})
    waiting = asyncio.create_task(reader.fetch(timeout_s=30))
    await asyncio.sleep(0)
    log.down = True
    with pytest.raises(BusError, match="down"):
        await waiting
    with pytest.raises(BusError, match="down"):
        await bus.send(TOPIC, key=None, value=b"b")
    with pytest.raises(BusError, match="down"):
        await MemoryBus(log).start()
    log.down = False
    assert reader.position(0) == 1
    assert await bus.send(TOPIC, key=None, value=b"b") == Position(0, 1)
    assert [record.value for record in await reader.fetch()] == [b"b"]


async def test_a_log_cut_short_uses_its_offsets_again(log: MemoryLog, bus: MemoryBus) -> None:
    for value in (b"a", b"b", b"c"):
        await bus.send(TOPIC, key=None, value=value)
    reader = bus.reader(TOPIC, {0: 3})
    log.partition(TOPIC).cut(1)
    with pytest.raises(OffsetGoneError, match="offset 3 lies outside the log, which holds 0 to 1"):
        await reader.fetch()
    assert await bus.send(TOPIC, key=None, value=b"other b") == Position(0, 1)
    assert values(log) == [b"a", b"other b"]


async def test_compaction_keeps_the_newest_record_of_each_key_at_its_offset(log: MemoryLog, bus: MemoryBus) -> None:
    for key, value in ((b"a", b"1"), (b"b", b"1"), (b"a", b"2"), (b"b", None), (b"c", b"1")):
        await bus.send(TOPIC, key=key, value=value)
    log.partition(TOPIC).compact(before=2)
    assert [record.offset for record in log.partition(TOPIC).records] == [2, 3, 4]
    log.partition(TOPIC).compact(drop_tombstones=False)
    assert [record.offset for record in log.partition(TOPIC).records] == [2, 3, 4]
    log.partition(TOPIC).compact()
    assert [record.offset for record in await bus.reader(TOPIC, {0: 0}).fetch()] == [2, 4]
    assert await bus.end_offsets(TOPIC) == {0: 5}


async def test_a_gap_and_a_spoilt_record_are_seen_by_the_reader(log: MemoryLog, bus: MemoryBus) -> None:
    await bus.send(TOPIC, key=b"k", value=b"a")
    log.partition(TOPIC).leave_gap(2)
    await bus.send(TOPIC, key=b"k", value=b"b")
    log.partition(TOPIC).spoil(3)
    first, second = await bus.reader(TOPIC, {0: 0}).fetch()
    assert (first.offset, first.readable, first.timestamp_ms) == (0, True, 1_700_000_000_500)
    assert (second.offset, second.readable, second.key, second.value) == (3, False, None, None)


async def test_a_cancelled_send_gives_its_room_back(log: MemoryLog) -> None:
    bus = MemoryBus(log, max_bytes_under_way=10)
    await bus.start()
    gate = asyncio.Event()
    log.on_send = lambda topic, partition, key, value: Fault(hold=gate) if value == b"held" + bytes(6) else None
    held = asyncio.create_task(bus.send(TOPIC, key=None, value=b"held" + bytes(6)))
    waiting = asyncio.create_task(bus.send(TOPIC, key=None, value=b"waiting"))
    await asyncio.wait({held, waiting}, timeout=0.01)
    assert bus.bytes_under_way == 10
    waiting.cancel()
    held.cancel()
    await asyncio.wait({held, waiting})
    assert bus.bytes_under_way == 0
    assert await bus.send(TOPIC, key=None, value=b"after") == Position(0, 0)
