"""Errors that the simulation found, each as the shortest story that shows it."""

import asyncio
from dataclasses import replace

import pytest

from aggregator.restore.restart import Replica
from aggregator.shell import Aggregator
from broker_topics.bus import BusRecord
from broker_topics.commits_log import ChainLostError, CommitsReader, Official
from broker_topics.errors import InputsLostError, LostRaceError
from broker_topics.follow import Follower
from broker_topics.memory import MemoryBus, MemoryReader
from broker_topics.memory_log import Fault, MemoryLog
from broker_topics.record import Cause, Record, build, parse
from broker_topics.topics import Topic, topic_name
from tests.fleet import Device, chain_of, make_task, running, until

TASK = "watch"


@pytest.fixture
async def bus():
    async with MemoryBus(MemoryLog()) as bus:
        yield bus


async def test_an_aggregator_that_is_often_restarted_still_writes_its_keyframes(bus):
    await make_task(bus, TASK, buffer_size=1, keyframe_every=3)
    device = await Device(bus, TASK, "a").enter()
    for version in range(1, 7):
        async with running(bus, TASK):
            await device.send(device.update(1.0).to_bytes())
            await device.until_version(version)
    # The first record of a leader waits for half as many steps more.
    assert [r.body.version for r in await chain_of(bus, TASK) if r.body.keyframe] == [0, 4]


async def test_a_writer_whose_next_inputs_were_deleted_ends_with_the_code_for_it(bus):
    await make_task(bus, TASK)
    aggregator = Aggregator(bus=bus, task=TASK)
    service = asyncio.create_task(aggregator.run())
    await until(lambda: aggregator.readiness.is_started)
    partition = bus.log.partition(topic_name(TASK, Topic.UPDATES), 3)
    for _ in range(3):
        partition.append(b"a", b"never read")
    partition.delete_before(2)
    with pytest.raises(InputsLostError):
        await service


async def test_a_newcomer_waits_for_a_keyframe_where_a_delta_was_lost(bus):
    await make_task(bus, TASK, buffer_size=1, keyframe_every=50)
    device = await Device(bus, TASK, "a").enter()
    async with running(bus, TASK):
        for version in (1, 2):
            await device.send(device.update(1.0).to_bytes())
            await device.until_version(version)
    models = bus.log.partition(topic_name(TASK, Topic.MODELS))
    models.records.remove(next(record for record in models.records if b"/delta-" in (record.key or b"")))
    with pytest.raises(ChainLostError, match="keyframe"):
        await Follower(bus, TASK).enter()


async def replaced(bus: MemoryBus) -> list[Record]:
    """A power cut takes record 1; an aggregator that never saw it wrote another and one more. Theirs, in order."""
    commits = bus.log.partition(topic_name(TASK, Topic.COMMITS))
    vanished = parse(commits.records[1].value or b"")
    commits.cut(1)
    other = build(height=1, parent=vanished.parent, writer=bytes(16), body=vanished.body)
    body = replace(vanished.body, runs=(), decisions=(), steps=(), keyframe=True)
    after = build(height=2, parent=other.hash, writer=bytes(16), body=body)
    for record in (other, after):
        commits.append(None, record.data)
    return [other, after]


async def test_a_writer_whose_last_record_was_replaced_after_a_power_cut_lost_the_race(bus):
    # Else it would go on for ever on a fork of its own, and name it in `head`.
    await make_task(bus, TASK, buffer_size=1)
    device = await Device(bus, TASK, "a").enter()
    service = asyncio.create_task(Aggregator(bus=bus, task=TASK).run())
    await device.send(device.update(1.0).to_bytes())
    await device.until_version(1)
    await replaced(bus)
    await device.send(device.update(1.0).to_bytes())
    with pytest.raises(LostRaceError):
        await service


async def test_a_writer_notices_another_record_behind_a_late_copy_of_its_last_one_in_the_very_place(bus):
    # The last record alone would look as if nothing had happened (seed 100341).
    await make_task(bus, TASK, buffer_size=1)
    device = await Device(bus, TASK, "a").enter()
    service = asyncio.create_task(Aggregator(bus=bus, task=TASK).run())
    for version in (1, 2):
        await device.send(device.update(1.0).to_bytes())
        await device.until_version(version)
    commits = bus.log.partition(topic_name(TASK, Topic.COMMITS))
    first, second = (parse(record.value or b"") for record in commits.records[1:3])
    commits.cut(1)
    commits.append(None, build(height=1, parent=first.parent, writer=bytes(16), body=first.body).data)
    commits.append(None, second.data)
    await device.send(device.update(1.0).to_bytes())
    with pytest.raises(LostRaceError):
        await service


@pytest.mark.parametrize("outcome", ["written", "unacknowledged"])
async def test_a_record_is_not_official_where_another_lies_in_its_parents_place(bus, outcome):
    # To its writer alone it would be: whoever reads from the beginning goes on from the other one.
    await make_task(bus, TASK, buffer_size=1)
    device = await Device(bus, TASK, "a").enter()
    service = asyncio.create_task(Aggregator(bus=bus, task=TASK).run())
    await device.send(device.update(1.0).to_bytes())
    await device.until_version(1)
    commits = bus.log.partition(topic_name(TASK, Topic.COMMITS))
    vanished = parse(commits.records[1].value or b"")
    other = build(height=1, parent=vanished.parent, writer=bytes(16), body=vanished.body)
    commits.cut(1)
    commits.append(None, other.data)
    faults = [Fault(outcome=outcome)]
    bus.log.on_send = lambda topic, *_: faults.pop() if faults and topic == commits.topic else None
    await device.send(device.update(1.0).to_bytes())
    with pytest.raises(LostRaceError):
        await service
    assert [record.hash for record in await chain_of(bus, TASK)][1:] == [other.hash]
    # Nor is the vanished one put back: at the very offset where it lay, `head` would lead to it.
    assert vanished.data not in {record.value for record in commits.records}


class Slow(MemoryReader):
    """Has nothing at hand right after a seek, as where records come over a network."""

    def seek(self, partition: int, offset: int) -> None:
        super().seek(partition, offset)
        self.far = True

    async def fetch(self, *, max_records: int = 500, timeout_s: float = 1.0) -> list[BusRecord]:
        far, self.far = getattr(self, "far", False), timeout_s < 0.01
        return [] if far and self.far else await super().fetch(max_records=max_records, timeout_s=timeout_s)


async def test_a_reader_on_a_fork_finds_out_once_the_chain_goes_on(bus):
    await make_task(bus, TASK, buffer_size=1)
    device = await Device(bus, TASK, "a").enter()
    async with running(bus, TASK):
        await device.send(device.update(1.0).to_bytes())
        await device.until_version(1)
    bus.reader = lambda topic, positions: Slow(bus.log, topic, positions)
    reader = CommitsReader(bus, TASK)
    await reader.catch_up()
    commits = bus.log.partition(topic_name(TASK, Topic.COMMITS))
    ours = parse(commits.records[1].value or b"")
    commits.cut(1)
    body = replace(ours.body, runs=(), decisions=(), steps=())
    chain = [build(height=1, parent=ours.parent, writer=bytes(16), body=ours.body)]
    for height in (2, 3):
        chain.append(build(height=height, parent=chain[-1].hash, writer=bytes(16), body=body))
    fork = build(height=2, parent=ours.hash, writer=ours.writer, body=body)
    for record in (chain[0], fork):
        commits.append(None, record.data)
    assert [official.record.hash for official in await reader.poll(0.1)] == [
        fork.hash
    ]  # as yet nothing speaks against it
    for record in chain[1:]:
        commits.append(None, record.data)
    with pytest.raises(ChainLostError):
        await reader.poll(0.1)
    follower = Follower(bus, TASK)
    assert await follower.enter(reader.position) is False
    assert follower.last.hash == chain[-1].hash


async def test_a_standby_that_followed_a_fork_does_not_lead_on_from_it(bus):
    await make_task(bus, TASK, buffer_size=1)
    device = await Device(bus, TASK, "a").enter()
    async with running(bus, TASK):
        await device.send(device.update(1.0).to_bytes())
        await device.until_version(1)
    replica = Replica(bus, TASK)
    await replica.enter()
    commits = bus.log.partition(topic_name(TASK, Topic.COMMITS))
    ours = parse(commits.records[1].value or b"")
    other = build(height=1, parent=ours.parent, writer=bytes(16), body=ours.body)
    body = replace(ours.body, runs=(), decisions=(), steps=(), cause=Cause.CONTROL)
    fork = build(height=2, parent=ours.hash, writer=ours.writer, body=body)
    commits.cut(1)
    for record in (other, fork):
        commits.append(None, record.data)
    assert await replica.follow(0.1) == 1
    with pytest.raises(ChainLostError, match="no longer leads to record 2"):
        await replica.lead()
    await replica.close()


async def test_a_reader_whose_last_record_was_replaced_enters_again(bus):
    await make_task(bus, TASK, buffer_size=1)
    device = await Device(bus, TASK, "a").enter()
    async with running(bus, TASK):
        await device.send(device.update(1.0).to_bytes())
        await device.until_version(1)
    stood = device.follower.position
    theirs = await replaced(bus)
    with pytest.raises(ChainLostError):
        await device.follower.poll(timeout_s=0.1)
    assert await device.follower.enter(stood) is False
    assert device.follower.last.hash == theirs[-1].hash


async def test_who_enters_on_a_fork_that_a_power_cut_left_behind_finds_the_chain(bus):
    await make_task(bus, TASK, buffer_size=1)
    device = await Device(bus, TASK, "a").enter()
    async with running(bus, TASK):
        await device.send(device.update(1.0).to_bytes())
        await device.until_version(1)
    commits = bus.log.partition(topic_name(TASK, Topic.COMMITS))
    vanished = parse(commits.records[1].value or b"")
    theirs = await replaced(bus)
    offset = commits.append(None, vanished.data)  # by a writer that puts back what it knows
    last = build(height=3, parent=theirs[-1].hash, writer=bytes(16), body=theirs[-1].body)
    commits.append(None, last.data)
    reader = CommitsReader(bus, TASK, Official(vanished, offset, 0))
    assert [official.record.hash for official in await reader.to_the_end()][1:] == [
        theirs[0].hash,
        theirs[1].hash,
        last.hash,
    ]


async def test_a_writer_whose_record_lands_in_its_parents_place_puts_the_parent_back(bus):
    # Else the chain would have a gap that nobody who reads it from the beginning gets over.
    await make_task(bus, TASK, buffer_size=1)
    device = await Device(bus, TASK, "a").enter()
    async with running(bus, TASK):
        await device.send(device.update(1.0).to_bytes())
        await device.until_version(1)
        commits = bus.log.partition(topic_name(TASK, Topic.COMMITS))
        commits.end = 1  # the cut, before anybody looks
        del commits.records[1:]
        await device.send(device.update(1.0).to_bytes())
        async with asyncio.timeout(30):
            while len(await chain_of(bus, TASK)) < 3:
                await asyncio.sleep(0.05)
    assert [record.body.version for record in await chain_of(bus, TASK)] == [0, 1, 2]
