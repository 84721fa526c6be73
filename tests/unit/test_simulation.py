"""Whole lives of a task under faults, in virtual time: no seed may break a rule, and every planted bug must show."""

import asyncio

import pytest

from broker_topics.memory import MemoryBus
from broker_topics.memory_log import MemoryLog
from broker_topics.topics import Topic, topic_name
from tests.fleet import Device, make_task, running
from tests.simulation.clock import run_virtually
from tests.simulation.invariants import check
from tests.simulation.plants import PLANTS, planted
from tests.simulation.world import simulate

TASK = "watch"
SEEDS, CHUNK = 300, 30


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_nothing_is_lost_or_counted_twice_whatever_a_seed_breaks(first):
    broken = {seed: found for seed in range(first, first + CHUNK) if (found := simulate(seed).violations)}
    again = [f"python -m tests.simulation --runs 1 --seed {seed}" for seed in broken]
    assert not broken, again


def test_a_seed_does_the_same_again():
    first, second = simulate(4), simulate(4)
    assert first == second
    assert first.counts["accepted"] > 0
    assert first.head != simulate(5).head


@pytest.mark.parametrize("plant", sorted(PLANTS))
def test_a_planted_bug_is_found(plant):
    with planted(plant):
        assert any(simulate(seed).violations for seed in range(80))


def test_a_deadlock_and_a_busy_loop_end_the_run():
    async def wait_for_ever():
        await asyncio.Event().wait()

    async def never_rest():
        while True:
            await asyncio.sleep(0)

    with pytest.raises(RuntimeError, match="deadlock"):
        run_virtually(wait_for_ever())
    with pytest.raises(RuntimeError, match="busy loop"):
        run_virtually(never_rest())


def test_an_hour_passes_at_once():
    async def hour():
        await asyncio.sleep(3600)
        return asyncio.get_running_loop().time()

    assert run_virtually(hour()) == 3600


@pytest.fixture
async def lived():
    """A log in which two updates were accepted and one waits."""
    async with MemoryBus(MemoryLog()) as bus:
        await make_task(bus, TASK, buffer_size=1)
        device = await Device(bus, TASK, "a").enter()
        async with running(bus, TASK):
            for version in (1, 2):
                await device.send(device.update(1.0).to_bytes())
                await device.until_version(version)
        await device.send(device.update(1.0).to_bytes())
        yield bus


async def test_the_rules_are_checked_from_the_log_alone(lived):
    history = await check(lived, TASK, keyframes=1)
    assert history.violations == []
    assert [record.body.version for record in history.chain] == [0, 1, 2]
    assert history.x.tolist() == [2.0] * 8


async def test_an_acknowledged_update_that_is_never_settled_shows(lived):
    history = await check(lived, TASK, settled=True)
    assert [violation[:3] for violation in history.violations] == ["I4:"]


async def test_an_input_that_became_another_shows(lived):
    updates = lived.log.partitions(topic_name(TASK, Topic.UPDATES))
    where = next(partition for partition in updates if partition.records)
    where.spoil(0)
    history = await check(lived, TASK)
    assert {violation[:3] for violation in history.violations} == {"I3:", "I6:"}


async def test_a_chain_that_a_reader_saw_and_that_is_not_there_shows(lived):
    history = await check(lived, TASK, seen=[(1, bytes(32))])
    assert history.violations == ["I2: a reader saw another record at height 1"]
