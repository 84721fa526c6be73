"""The way into the chain stays near the end of the models topic, whatever is published behind it."""

import pytest

from broker_topics.errors import BusError
from broker_topics.memory import MemoryBus
from broker_topics.memory_log import MemoryLog
from broker_topics.messages import Head
from broker_topics.models_log import HEAD_KEY, ModelsReader, ModelsWriter
from broker_topics.parts import Part
from broker_topics.topics import Topic, topic_name
from tests.fleet import make_task

TASK = "watch"
MODELS = topic_name(TASK, Topic.MODELS)
HEAD = Head(offset=3, height=7, record_hash=bytes(32))


@pytest.fixture
async def bus():
    async with MemoryBus(MemoryLog()) as bus:
        await make_task(bus, TASK)
        yield bus


def parts(count):
    return [Part("x", index, bytes([index]), bytes([index]) * 32) for index in range(count)]


async def keys(bus, start):
    reader = bus.reader(MODELS, {0: start})
    found = await reader.fetch(max_records=500)
    await reader.close()
    return [record.key for record in found]


async def test_head_is_written_again_after_every_eight_parts_whichever_record_they_belong_to(bus):
    writer = ModelsWriter(bus, TASK, bytes(16), head=HEAD)
    start = (await bus.end_offsets(MODELS))[0]
    refs = await writer.publish(8, parts(20)) + await writer.publish(9, parts(80))
    found = await keys(bus, start)
    assert [found[ref.offset - start].split(b"/")[0] for ref in refs] == [b"%016x" % 8] * 20 + [b"%016x" % 9] * 80
    heads = [index for index, key in enumerate(found) if key == HEAD_KEY]
    assert len(heads) == 12
    assert max(b - a for a, b in zip([0, *heads], [*heads, len(found)], strict=True)) <= 16
    assert await ModelsReader(bus, TASK).head() == HEAD
    tail = await ModelsReader(bus, TASK).tail()
    assert tail.head == HEAD
    assert [key for _, key in tail.keys] == found[-16:]


async def test_what_is_repeated_is_the_newest_head_and_before_the_first_nothing(bus):
    writer = ModelsWriter(bus, TASK, bytes(16))
    start = (await bus.end_offsets(MODELS))[0]
    await writer.publish(8, parts(40))
    assert HEAD_KEY not in await keys(bus, start)
    await writer.write_head(HEAD)
    await writer.publish(9, parts(15))
    assert (await keys(bus, start)).count(HEAD_KEY) == 2
    assert await ModelsReader(bus, TASK).head() == HEAD


async def test_a_head_that_cannot_be_repeated_is_no_reason_not_to_publish(bus, monkeypatch):
    writer = ModelsWriter(bus, TASK, bytes(16), head=HEAD)
    send = bus.send

    async def refusing(topic, *, key, value, partition=0):
        if key == HEAD_KEY:
            raise BusError("not now")
        return await send(topic, key=key, value=value, partition=partition)

    monkeypatch.setattr(bus, "send", refusing)
    assert len(await writer.publish(8, parts(70))) == 70
