"""Six hundred hostile records in a real log: each gets its code, honest devices go on, a restart finds the same."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable

import pytest
from aiokafka import AIOKafkaProducer

from broker_topics.kafka import KafkaBus
from broker_topics.record import Record
from broker_topics.topics import Topic, topic_name
from tests.fleet import Device, chain_of, make_task, running
from tests.kafka.support import rejects_of, settled_history
from tests.poison import ACCEPTED, LAYOUT, MAX_UPDATE_BYTES, Corpus, Poison

Place = tuple[int, int]


@pytest.fixture
async def foreign(bootstrap: str) -> AsyncIterator[AIOKafkaProducer]:
    """A client that is none of ours, and fills a request to the brim."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, max_batch_size=1_100_000, max_request_size=1_200_000)
    await producer.start()
    yield producer
    await producer.stop()


async def send_all(producer: AIOKafkaProducer, topic: str, records: Iterable[Poison]) -> dict[Place, str]:
    """Send records as they are, in order within each partition; where each lies, and the code that it must get."""
    by_partition: defaultdict[int, list[Poison]] = defaultdict(list)
    for record in records:
        by_partition[record.partition].append(record)
    expected: dict[Place, str] = {}

    async def fill(partition: int, rest: list[Poison]) -> None:
        while rest:
            batch, taken = producer.create_batch(), list[Poison]()
            while rest and batch.append(
                key=rest[0].key, value=rest[0].value, timestamp=None, headers=list(rest[0].headers)
            ):
                taken.append(rest.pop(0))
            place = await (await producer.send_batch(batch, topic, partition=partition))
            expected.update({(partition, place.offset + i): poison.code for i, poison in enumerate(taken)})

    await asyncio.gather(*(fill(partition, rest) for partition, rest in by_partition.items()))
    return expected


def codes_of(chain: Iterable[Record]) -> dict[Place, str]:
    """What the chain decided on each input."""
    found: dict[Place, str] = {}
    for record in chain:
        for run, decisions in record.body.decided():
            for offset, decision in enumerate(decisions, run.first):
                found[run.partition, offset] = decision.code or ACCEPTED
    return found


async def test_every_hostile_record_gets_its_code_and_honest_devices_go_on(
    bus: KafkaBus, foreign: AIOKafkaProducer, task_name: str
) -> None:
    await make_task(bus, task_name, LAYOUT, max_update_bytes=MAX_UPDATE_BYTES, buffer_size=4, flush_deadline_s=0.3)
    honest = [await Device(bus, task_name, f"w-{number}").enter() for number in range(3)]
    topic = topic_name(task_name, Topic.UPDATES)
    genesis = (await chain_of(bus, task_name))[0]
    async with running(bus, task_name):
        for device in honest:
            await device.send(device.update(0.1).to_bytes())
        expected = await send_all(foreign, topic, Corpus(task_name, genesis.body.base_hash).records())
        for device in honest:
            await device.send(device.update(0.2).to_bytes())
        await settled_history(bus, task_name)
        refused = {place: code for place, code in expected.items() if code != ACCEPTED}
        told = await rejects_of(bus, task_name, at_least=len(refused))
    chain = await chain_of(bus, task_name)
    decided = codes_of(chain)
    assert len(expected) >= 600
    assert {place: decided[place] for place in expected} == expected
    assert [decided[place] for place in decided if place not in expected] == [ACCEPTED] * 6
    assert {(reject.partition, reject.offset): reject.code for reject in told} == refused
    async with running(bus, task_name):  # a restart replays every one of them
        await honest[0].send(honest[0].update(0.3).to_bytes())
        await settled_history(bus, task_name)


async def test_hostile_records_in_transactions_are_judged_and_their_markers_are_passed(
    bus: KafkaBus, bootstrap: str, task_name: str
) -> None:
    await make_task(bus, task_name, LAYOUT, buffer_size=1, flush_deadline_s=0.3)
    topic = topic_name(task_name, Topic.UPDATES)
    device = await Device(bus, task_name, "w-1").enter()
    partition = await bus.partition_for(topic, b"w-1")
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, transactional_id=f"device-{task_name}")
    await producer.start()
    try:
        for value in (b"committed", b"aborted"):
            await producer.begin_transaction()
            await producer.send_and_wait(topic, value, key=b"w-1", partition=partition)
            await (producer.abort_transaction() if value == b"aborted" else producer.commit_transaction())
    finally:
        await producer.stop()
    async with running(bus, task_name):
        await device.send(device.update(1.0).to_bytes())
        await device.until_version(1)
        await settled_history(bus, task_name)
    runs = [run for record in await chain_of(bus, task_name) for run in record.body.runs]
    kinds = {run.first + i: run.kind for run in runs for i in range(run.count)}
    assert kinds == {0: "data", 1: "control", 2: "data", 3: "control", 4: "data"}
