"""What happens when the log lost what it had acknowledged, and what an operator may accept then."""

import asyncio

import pytest

from aggregator.fold.commands import PAUSE, RESUME, ROLL_BACK
from aggregator.restore.recovery import Accept
from aggregator.restore.replay import replay
from aggregator.shell import Aggregator
from broker_topics import models_log
from broker_topics.commits_log import ChainLostError, CommitsReader
from broker_topics.errors import BusError, ConfigError, InputsLostError, RejectCode
from broker_topics.follow import Follower
from broker_topics.memory import MemoryBus
from broker_topics.memory_log import MemoryLog, MemoryPartition
from broker_topics.messages import Control
from broker_topics.record import Cause, RunKind, build
from broker_topics.topics import Topic, topic_name
from headwater.commands.control import send_until_decided
from tests.fleet import Device, chain_of, ended, make_task, metric, running, until

TASK = "watch"


@pytest.fixture
async def bus():
    async with MemoryBus(MemoryLog()) as bus:
        yield bus


async def three_versions(bus):
    """Three updates of one device, a version each; where each lies."""
    await make_task(bus, TASK, buffer_size=1)
    device = await Device(bus, TASK, "a").enter()
    places = []
    async with running(bus, TASK):
        for version in (1, 2, 3):
            places.append(await device.send(device.update(float(version)).to_bytes()))
            await device.until_version(version)
    return device, places


def partition(bus, place):
    return bus.log.partition(topic_name(TASK, Topic.UPDATES), place.partition)


async def serve_until(bus, height, **accept):
    aggregator = Aggregator(bus=bus, task=TASK, accept=Accept(**accept))
    service = asyncio.create_task(aggregator.run())
    await until(lambda: service.done() or (metric(aggregator, "headwater_chain_length") or 0) >= height)
    if service.done():
        await service
    await ended([service])


async def follows(bus):
    follower = Follower(bus, TASK)
    await follower.enter()
    return follower


async def test_a_log_cut_below_the_vector_stops_the_start_and_names_the_flag(bus):
    _, places = await three_versions(bus)
    partition(bus, places[-1]).cut(places[-1].offset)
    with pytest.raises(InputsLostError, match="accept-divergence"):
        await serve_until(bus, 4)


async def test_accepted_divergence_goes_on_without_the_input_and_names_it_in_the_chain(bus):
    device, places = await three_versions(bus)
    partition(bus, places[-1]).cut(places[-1].offset)
    await serve_until(bus, 4, loss=True, divergence=True)
    repair = (await chain_of(bus, TASK))[-1]
    assert (repair.body.cause, repair.body.version, repair.body.keyframe) == (Cause.REPAIR, 4, True)
    assert f"input {places[-1].offset}" in repair.body.note
    assert partition(bus, places[-1]).end == places[-1].offset + 1
    async with running(bus, TASK):
        late = await Device(bus, TASK, "b").enter()
        await late.send(late.update(0.5).to_bytes())
        await late.until_version(5)
        await device.until_version(5)
    assert device.follower.model.hidden_hash() == late.follower.model.hidden_hash()
    assert (await replay(bus, TASK)).to_version == 5


async def test_a_cut_of_inputs_that_a_keyframe_covers_needs_only_accept_loss(bus):
    await make_task(bus, TASK, buffer_size=1, keyframe_every=1)
    device = await Device(bus, TASK, "a").enter()
    async with running(bus, TASK):
        place = await device.send(device.update(1.0).to_bytes())
        await device.until_version(1)
    partition(bus, place).cut(place.offset)
    with pytest.raises(InputsLostError, match="accept-loss"):
        await serve_until(bus, 2)
    await serve_until(bus, 2, loss=True)
    await serve_until(bus, 2)
    assert [record.body.cause for record in await chain_of(bus, TASK)] == [Cause.GENESIS, Cause.FULL, Cause.REPAIR]


async def test_another_record_at_an_acknowledged_offset_is_never_taken_silently(bus):
    await make_task(bus, TASK, buffer_size=1, keyframe_every=1)
    device = await Device(bus, TASK, "a").enter()
    async with running(bus, TASK):
        place = await device.send(device.update(1.0).to_bytes())
        await device.until_version(1)
    partition(bus, place).cut(place.offset)
    await device.send(device.update(2.0).to_bytes())
    with pytest.raises(InputsLostError, match="another record"):
        await serve_until(bus, 2)


async def test_unread_inputs_that_retention_took_are_a_void_run_once_accepted(bus):
    device, places = await three_versions(bus)
    for _ in range(2):
        last = await device.send(device.update(1.0).to_bytes())
    partition(bus, last).delete_before(last.offset + 1)
    with pytest.raises(InputsLostError, match="accept-divergence"):
        await serve_until(bus, 4)
    await serve_until(bus, 4, loss=True, divergence=True)
    runs = (await chain_of(bus, TASK))[-1].body.runs
    assert [(run.kind, run.first, run.count) for run in runs] == [(RunKind.LOST, places[-1].offset + 1, 2)]


async def test_a_paused_task_keeps_updates_waiting_also_over_a_restart(bus):
    await make_task(bus, TASK, buffer_size=1)
    device = await Device(bus, TASK, "a").enter()
    async with running(bus, TASK):
        assert (await send_until_decided(bus, TASK, Control(command=PAUSE))).accepted
        await device.send(device.update(1.0).to_bytes())
    async with running(bus, TASK) as aggregator:
        await until(lambda: metric(aggregator, "headwater_consumer_lag_records", partition="4") is not None)
        assert metric(aggregator, "headwater_model_version") == 0
        assert (await send_until_decided(bus, TASK, Control(command=RESUME))).accepted
        await device.until_version(1)
    assert (await replay(bus, TASK)).to_version == 1


async def test_a_roll_back_makes_an_older_model_the_next_version_for_everybody(bus):
    await make_task(bus, TASK, buffer_size=1, keyframe_every=2)
    device = await Device(bus, TASK, "a").enter()
    seen = {}
    async with running(bus, TASK):
        for version in (1, 2, 3):
            await device.send(device.update(float(version)).to_bytes())
            await device.until_version(version)
            seen[version] = device.follower.model.hidden_hash()
        assert (await send_until_decided(bus, TASK, Control(command=ROLL_BACK, argument=2))).accepted
        await device.until_version(4)
        assert device.follower.model.hidden_hash() == seen[2]
        await device.send(device.update(1.0).to_bytes())
        await device.until_version(5)
    records = await chain_of(bus, TASK)
    assert [record.body.cause for record in records][-2:] == [Cause.ROLL_BACK, Cause.FULL]
    assert (await replay(bus, TASK)).to_version == 5
    assert (await follows(bus)).model.hidden_hash() == device.follower.model.hidden_hash()


async def test_a_roll_back_to_a_version_that_is_not_kept_is_refused_as_gone(bus):
    await three_versions(bus)
    async with running(bus, TASK):
        decision = await send_until_decided(bus, TASK, Control(command=ROLL_BACK, argument=1))
    assert decision.code is RejectCode.GONE


@pytest.mark.parametrize("kept", [3, 2, 1])
async def test_a_live_writer_puts_back_official_records_that_the_log_lost(bus, kept):
    """Also where only the very last is gone: reading right at the log's end, it would wait for ever."""
    await make_task(bus, TASK, buffer_size=1)
    device = await Device(bus, TASK, "a").enter()
    commits = bus.log.partition(topic_name(TASK, Topic.COMMITS), 0)
    async with running(bus, TASK):
        for version in (1, 2, 3):
            await device.send(device.update(float(version)).to_bytes())
            await device.until_version(version)
        before = [record.data for record in await chain_of(bus, TASK)]
        commits.cut(kept)
        await until(lambda: commits.end == 4)
        assert [record.data for record in await chain_of(bus, TASK)] == before
        late = await Device(bus, TASK, "b").enter()
        await late.send(late.update(1.0).to_bytes())
        await late.until_version(4)
    assert [record.height for record in await chain_of(bus, TASK)] == [0, 1, 2, 3, 4]


async def test_a_live_writer_forgets_no_record_when_putting_it_back_is_cut_short(bus, monkeypatch):
    await make_task(bus, TASK, buffer_size=1)
    device = await Device(bus, TASK, "a").enter()
    commits = bus.log.partition(topic_name(TASK, Topic.COMMITS), 0)
    read, cuts = CommitsReader.catch_up, [2]

    async def cut_again(self):
        if cuts:
            commits.cut(cuts.pop())
            raise BusError("the broker went away once more")
        return await read(self)

    async with running(bus, TASK):
        for version in (1, 2, 3):
            await device.send(device.update(float(version)).to_bytes())
            await device.until_version(version)
        before = [record.data for record in await chain_of(bus, TASK)]
        late = await Device(bus, TASK, "b").enter()
        monkeypatch.setattr(CommitsReader, "catch_up", cut_again)
        commits.cut(2)
        await until(lambda: not cuts and commits.end == 4)  # also while nobody sends
        await late.send(late.update(1.0).to_bytes())
        await until(lambda: commits.end == 5)
        await late.until_version(4)
    chain = await chain_of(bus, TASK)
    assert [record.data for record in chain[:4]] == before
    assert [record.height for record in chain] == [0, 1, 2, 3, 4]


async def test_a_record_far_ahead_is_noise_that_stops_nobody(bus):
    await make_task(bus, TASK, buffer_size=1)
    device = await Device(bus, TASK, "a").enter()
    last = (await chain_of(bus, TASK))[-1]
    far = build(height=9, parent=bytes(32), writer=bytes(16), body=last.body)
    await bus.send(topic_name(TASK, Topic.COMMITS), key=None, value=far.data)
    async with running(bus, TASK):
        fresh = await Device(bus, TASK, "b").enter()
        await fresh.send(fresh.update(1.0).to_bytes())
        await fresh.until_version(1)
        await device.until_version(1)
    assert device.follower.model.hidden_hash() == fresh.follower.model.hidden_hash()


async def test_a_reader_that_finds_only_a_record_far_ahead_says_once_that_it_missed_something(bus):
    await make_task(bus, TASK)
    device = await Device(bus, TASK, "a").enter()
    last = (await chain_of(bus, TASK))[-1]
    far = build(height=9, parent=bytes(32), writer=bytes(16), body=last.body)
    await bus.send(topic_name(TASK, Topic.COMMITS), key=None, value=far.data)
    with pytest.raises(ChainLostError):
        await device.follower.poll(timeout_s=0.1)
    await device.follower.enter()
    assert await device.follower.poll(timeout_s=0.1) == []


async def test_a_newcomer_enters_at_an_older_keyframe_when_parts_of_the_newest_are_gone(bus):
    await make_task(bus, TASK, buffer_size=1, keyframe_every=2)
    device = await Device(bus, TASK, "a").enter()
    async with running(bus, TASK):
        for version in (1, 2, 3):
            await device.send(device.update(float(version)).to_bytes())
            await device.until_version(version)
    newest = [record for record in await chain_of(bus, TASK) if record.body.keyframe][-1]
    gone = {part.offset for part in newest.body.parts if part.name == "hidden"}
    models = bus.log.partition(topic_name(TASK, Topic.MODELS), 0)
    models.records[:] = [record for record in models.records if record.offset not in gone]
    newcomer = await follows(bus)
    assert newcomer.model.version == 3
    assert newcomer.model.hidden_hash() == device.follower.model.hidden_hash()


async def test_partitions_added_under_a_running_aggregator_end_it_before_work_is_lost_there(bus):
    await make_task(bus, TASK)
    aggregator = Aggregator(bus=bus, task=TASK)
    service = asyncio.create_task(aggregator.run())
    await until(lambda: aggregator.readiness.is_ready)
    partitions = bus.log.partitions(topic_name(TASK, Topic.UPDATES))
    partitions.append(MemoryPartition(partitions[0].topic, 12, lambda: None, lambda: 0.0))
    with pytest.raises(ConfigError, match="12 partitions of updates, the topic has 13"):
        async with asyncio.timeout(20):
            await service


async def test_a_chain_cut_short_while_nobody_ran_stops_the_start_and_goes_on_once_accepted(bus):
    await make_task(bus, TASK, buffer_size=1)
    device = await Device(bus, TASK, "a").enter()
    async with running(bus, TASK):
        for version in range(1, 7):
            await device.send(device.update(float(version)).to_bytes())
            await device.until_version(version)
    bus.log.partition(topic_name(TASK, Topic.COMMITS), 0).cut(3)
    with pytest.raises(InputsLostError, match=r"ends with record 2, but record 6 has left parts.*accept-loss"):
        await serve_until(bus, 3)
    await serve_until(bus, 3, loss=True)
    repair = (await chain_of(bus, TASK))[3]
    assert (repair.body.cause, repair.body.keyframe) == (Cause.REPAIR, True)
    assert "record 6 has left parts in models" in repair.body.note
    async with running(bus, TASK):  # the same loss is told once; what was consumed behind the cut is consumed again
        newcomer = await Device(bus, TASK, "b").enter()
        place = await newcomer.send(newcomer.update(1.0).to_bytes())
        async with asyncio.timeout(20):
            while (await chain_of(bus, TASK))[-1].body.vector[place.partition] <= place.offset:
                await newcomer.until_version(newcomer.follower.model.version + 1)
    assert (await chain_of(bus, TASK))[-1].body.vector[place.partition] == place.offset + 1
    assert sum(sum(run.count for run in record.body.runs) for record in await chain_of(bus, TASK)) == 7
    assert (await replay(bus, TASK)).to_version >= 4


async def test_a_chain_record_that_cannot_be_read_stops_the_start(bus):
    await make_task(bus, TASK, buffer_size=1)
    device = await Device(bus, TASK, "a").enter()
    commits = bus.log.partition(topic_name(TASK, Topic.COMMITS), 0)
    async with running(bus, TASK):
        for version in (1, 2):
            await device.send(device.update(float(version)).to_bytes())
            await device.until_version(version)
    commits.spoil(2)
    with pytest.raises(InputsLostError, match="offset 2 of the commits topic cannot be read"):
        await serve_until(bus, 3)
    await serve_until(bus, 2, loss=True)
    await serve_until(bus, 3)
    assert [record.body.cause for record in await chain_of(bus, TASK)][2] is Cause.REPAIR


async def test_an_empty_chain_beside_a_model_is_a_loss_and_no_new_task(bus):
    await three_versions(bus)
    bus.log.partition(topic_name(TASK, Topic.COMMITS), 0).cut(0)
    with pytest.raises(InputsLostError, match="is empty, although models holds parts up to record 3"):
        await serve_until(bus, 4)
    with pytest.raises(InputsLostError, match="is empty"):
        await serve_until(bus, 4, loss=True)


async def test_a_models_topic_cut_short_is_mended_by_a_keyframe_although_nobody_can_send(bus, monkeypatch):
    monkeypatch.setattr(models_log, "_FETCH_S", 0.2)  # how long each reader waits for a part that is gone
    await three_versions(bus)
    bus.log.partition(topic_name(TASK, Topic.MODELS), 0).cut(6)
    with pytest.raises(ChainLostError, match="only the next keyframe"):
        await follows(bus)
    async with running(bus, TASK) as aggregator:
        await until(lambda: metric(aggregator, "headwater_chain_length") == 4)
        newcomer = await Device(bus, TASK, "b").enter()
        await newcomer.send(newcomer.update(1.0).to_bytes())
        await newcomer.until_version(4)
    assert [record.body.keyframe for record in await chain_of(bus, TASK)] == [True, False, False, False, True, False]


async def test_another_part_of_the_same_size_in_a_parts_place_is_taken_for_a_missing_one(bus):
    await make_task(bus, TASK, buffer_size=1, keyframe_every=2)
    device = await Device(bus, TASK, "a").enter()
    async with running(bus, TASK):
        for version in (1, 2, 3):
            await device.send(device.update(float(version)).to_bytes())
            await device.until_version(version)
    newest = [record for record in await chain_of(bus, TASK) if record.body.keyframe][-1]
    (hidden,) = [part for part in newest.body.parts if part.name == "hidden"]
    models = bus.log.partition(topic_name(TASK, Topic.MODELS), 0)
    models.records[hidden.offset] = models.records[hidden.offset]._replace(value=bytes(hidden.size))
    newcomer = await follows(bus)
    assert newcomer.model.hidden_hash() == device.follower.model.hidden_hash()
    await serve_until(bus, 4)
