"""Inputs that a record lists, read again: in any order, ahead of time, and again after a failure."""

import asyncio
from dataclasses import replace

import pytest

from aggregator.restore.inputs import InputLog, end_vector, start_vector
from broker_topics.errors import BusError
from broker_topics.memory import MemoryBus
from broker_topics.memory_log import MemoryLog
from broker_topics.record import Run, RunKind
from broker_topics.topics import Topic, topic_name
from tests.fleet import chain_of, make_task

TASK = "watch"
UPDATES = topic_name(TASK, Topic.UPDATES)


@pytest.fixture
async def bus():
    async with MemoryBus(MemoryLog()) as bus:
        await make_task(bus, TASK)
        for number in range(6):
            await bus.send(UPDATES, key=b"w", value=bytes([number]), partition=number % 2)
        yield bus


async def listing(bus, *runs):
    """A record's body that lists runs of (partition, first, count), consumed in this order."""
    body = (await chain_of(bus, TASK))[0].body
    return replace(body, runs=tuple(Run(p, first, count, RunKind.DATA) for p, first, count in runs))


async def opened(bus, wanted=None):
    starts, ends = await start_vector(bus, TASK), await end_vector(bus, TASK)
    return InputLog(bus, TASK, first=starts, starts=starts, ends=ends, wanted=wanted)


async def test_what_was_begun_is_what_fetch_gives(bus):
    log, body = await opened(bus), await listing(bus, (1, 0, 2), (0, 0, 1))
    log.begin(body)
    assert await log.fetch(body) == {(1, 0): b"\x01", (1, 1): b"\x03", (0, 0): b"\x00"}
    await log.close()


async def test_another_record_than_the_one_begun_is_read_from_where_it_lies(bus):
    log = await opened(bus)
    log.begin(await listing(bus, (0, 1, 2)))
    await asyncio.sleep(0)
    assert await log.fetch(await listing(bus, (0, 0, 2))) == {(0, 0): b"\x00", (0, 1): b"\x02"}
    await log.close()


async def test_the_oldest_input_counts_from_when_it_was_given_not_from_when_it_was_read(bus):
    log, first, second = await opened(bus), await listing(bus, (0, 0, 1)), await listing(bus, (0, 1, 1))
    await log.fetch(first)
    log.begin(second)
    while not log._begun[1].done():
        await asyncio.sleep(0)
    log.oldest_ms = float("inf")  # a keyframe was passed in between
    await log.fetch(second)
    assert log.oldest_ms < float("inf")
    await log.close()


async def test_a_broker_that_was_silent_is_asked_again(bus, monkeypatch):
    log, body = await opened(bus), await listing(bus, (0, 0, 3))
    with monkeypatch.context() as patch:

        async def silent(partition):
            raise BusError("silence")

        patch.setattr(log, "_fill", silent)
        log.begin(body)
        with pytest.raises(BusError):
            await log.fetch(body)
    assert len(await log.fetch(body)) == 3
    await log.close()


async def test_what_no_record_lists_is_not_read_ahead_until_one_does(bus):
    starts = await start_vector(bus, TASK)
    log = await opened(bus, wanted=[2, *starts[1:]])
    assert await log.fetch(await listing(bus, (0, 0, 2))) == {(0, 0): b"\x00", (0, 1): b"\x02"}
    assert log._position(1) == 0
    body = replace(await listing(bus, (0, 2, 1), (1, 0, 1)), vector=(3, 3, *starts[2:]))
    assert await log.fetch(body) == {(0, 2): b"\x04", (1, 0): b"\x01"}
    assert log._position(1) == 3
    await log.close()


async def test_an_input_whose_offset_a_marker_took_after_a_cut_is_gone_and_no_silence(bus, monkeypatch):
    monkeypatch.setattr("aggregator.restore.inputs._FETCH_S", 0.05)
    partition = bus.log.partition(UPDATES, 0)
    partition.cut(2)
    partition.leave_gap(2)
    log = await opened(bus)
    async with asyncio.timeout(60):
        assert await log.fetch(await listing(bus, (0, 0, 3))) == {(0, 0): b"\x00", (0, 1): b"\x02"}
    await log.close()


async def test_a_partition_that_was_cut_below_where_we_stand_does_not_keep_others_from_being_read(bus):
    log = await opened(bus)
    log._first[1], log._wanted[1] = 3, 4
    bus.log.partition(UPDATES, 1).cut(1)
    log._ends[1] = 1
    assert await log.at(1, 2) is None
    assert (await log.at(0, 0)).value == b"\x00"
    await log.close()


async def test_closing_gives_up_what_was_begun(bus):
    log = await opened(bus)
    log.begin(await listing(bus, (0, 0, 3)))
    begun = log._begun[1]
    await log.close()
    assert begun.cancelled()
