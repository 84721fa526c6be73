"""Two of what should be one: aggregators, makers of a task, devices with a copied outbox."""

import asyncio
import shutil
import signal
from contextlib import AsyncExitStack

import numpy as np

from aggregator.shell import Aggregator
from aggregator.verify import Demands, Evidence, verify
from broker_topics.errors import ConfigError, ExitCode, LostRaceError
from broker_topics.kafka import KafkaBus
from broker_topics.local.cluster import LocalCluster
from broker_topics.settings import ConnectionSettings
from tests.chaos.compaction import compact_at_once, compacting, until_compacted
from tests.chaos.diary import told_by
from tests.chaos.ground import Ground, new_task
from tests.chaos.registry import scenario
from tests.fleet import Device, chain_of, make_task
from tests.kafka.support import accepted, settled_history

RACES = 100
_DEVICES = 8
_RACE_S = 60.0


@scenario("zombies", "a frozen aggregator wakes up while its topics are compacted; a device with a copied outbox")
async def zombies(ground: Ground) -> None:
    """Doubles of whole processes."""
    async with LocalCluster(data=ground.folder / "kafka-zombies", properties=compacting()) as cluster:
        await frozen(ground, cluster.bootstrap, seconds=10.0, compacts=True)
        await copied_outbox(ground, cluster.bootstrap)


@scenario("races", "100 races of two aggregators for one backlog, and of three makers for one task")
async def races(ground: Ground) -> None:
    """Doubles inside one process, many times."""
    async with LocalCluster(data=ground.folder / "kafka-races") as cluster:
        for number in range(RACES):
            await race(ground, cluster.bootstrap, number)
            if number % 10 == 0:
                await makers(ground, cluster.bootstrap)


async def frozen(ground: Ground, bootstrap: str, *, seconds: float, compacts: bool) -> None:
    """SIGSTOP an aggregator, let another work, SIGCONT: the old one ends with 75, the new one's parts outlive it."""
    async with ground.run(f"an aggregator sleeps for {seconds:g} s"), ground.fleet(bootstrap) as (fleet, bus):
        await fleet.create(keyframe_every=3)
        if compacts:
            await compact_at_once(bootstrap, fleet.task)
        worker = fleet.worker("w-0", "w-3", "w-6", HEADWATER_LOG_LEVEL="debug")
        keep = {"HEADWATER_AGGREGATOR_KEEP_PARTS_S": "0.2"}
        sleeper = fleet.aggregator(**keep)
        await fleet.until_accepted(bus, 4)
        sleeper.send(signal.SIGSTOP)
        asleep = asyncio.create_task(asyncio.sleep(seconds))
        other = fleet.aggregator(**keep)
        await fleet.until_accepted(bus, await accepted(bus, fleet.task) + 8)
        await asleep
        sleeper.send(signal.SIGCONT)
        assert await sleeper.ended() == ExitCode.LOST_RACE, sleeper.text[-2000:]
        assert "another aggregator of this task wrote record" in sleeper.text
        assert "Traceback" not in sleeper.text
        await fleet.until_accepted(bus, await accepted(bus, fleet.task) + 8)
        assert other.process.poll() is None, other.text[-2000:]
        assert await worker.stop() == 0, worker.text
        gone = await until_compacted(bus, fleet.task) if compacts else 0
        history = await settled_history(bus, fleet.task, evidence=Evidence.of(told_by(fleet.roles)))
        assert await other.stop() == 0, other.text
        assert len({record.writer for record in history.chain}) == 3
        ground.say(f"  {len(history.chain)} records; {gone} parts were compacted away, the rest is whole")


async def race(ground: Ground, bootstrap: str, number: int) -> None:
    """Two aggregators begin at once on one backlog and compute the same bytes: one chain, one of them ends."""
    rng, task = ground.rng("race", number), new_task()
    async with ground.run(f"race {number}"), AsyncExitStack() as stack:
        async with asyncio.timeout(_RACE_S):
            buses = [
                await stack.enter_async_context(KafkaBus(ConnectionSettings(bootstrap=bootstrap))) for _ in range(3)
            ]
            await make_task(buses[0], task, keyframe_every=1, flush_deadline_s=0.2)
            await _backlog(buses[0], task, rng)
            twins = [Aggregator(bus=bus, task=task, keep_parts_s=0.0) for bus in buses[1:]]
            lives = [asyncio.create_task(twin.run()) for twin in twins]
            await asyncio.wait(lives, return_when=asyncio.FIRST_COMPLETED)
            lost = [life for life in lives if life.done()]
            assert len(lost) == 1, "both ended"
            assert isinstance(lost[0].exception(), LostRaceError), lost[0].exception()
            await _until_decided(buses[0], task)
            for twin in twins:
                twin.stop.set()
            await asyncio.wait(lives)
            assert [type(life.exception()) for life in lives if life is not lost[0]] == [type(None)]
        verdict = await verify(buses[0], task, demands=Demands(at_rest=True, whole_keyframes=2))
        assert verdict.holds, verdict.violations
        assert len({record.writer for record in await chain_of(buses[0], task)}) == 2


async def _backlog(bus: KafkaBus, task: str, rng: np.random.Generator) -> None:
    devices = [await Device(bus, task, f"d-{number}").enter() for number in range(_DEVICES)]
    for device in devices:
        await device.send(device.update(float(rng.normal())).to_bytes())
        await device.follower.close()


async def _until_decided(bus: KafkaBus, task: str) -> None:
    while sum(len(record.body.decisions) for record in await chain_of(bus, task)) < _DEVICES:
        await asyncio.sleep(0.1)


async def makers(ground: Ground, bootstrap: str) -> None:
    """Three make one task at once: one wins, the others are told, and the chain has one beginning."""
    task = new_task()
    async with ground.run("three makers of one task"), AsyncExitStack() as stack:
        buses = [await stack.enter_async_context(KafkaBus(ConnectionSettings(bootstrap=bootstrap))) for _ in range(3)]
        done = await asyncio.gather(*(make_task(bus, task) for bus in buses), return_exceptions=True)
        assert done.count(None) == 1, done
        for told in [one for one in done if one is not None]:
            assert isinstance(told, ConfigError), told
            assert "exists already" in str(told) or "was made by somebody else at this moment" in str(told)
        verdict = await verify(buses[0], task, demands=Demands(at_rest=True))
        assert verdict.holds, verdict.violations


async def copied_outbox(ground: Ground, bootstrap: str) -> None:
    """A device's folder is copied while it runs, and both go on under one name: nothing counts twice."""
    async with ground.run("a copied outbox"), ground.fleet(bootstrap) as (fleet, bus):
        await fleet.create(keyframe_every=4)
        aggregator, other = fleet.aggregator(), fleet.worker("w-6", HEADWATER_LOG_LEVEL="debug")
        device = fleet.worker("w-0", HEADWATER_LOG_LEVEL="debug")
        await fleet.until_told(device, "update_settled", 3)
        device.kill()  # only a folder at rest can be copied whole
        shutil.copytree(fleet.folder / "state", fleet.folder / "copy", ignore=shutil.ignore_patterns("lock"))
        both = [fleet.worker("w-0", state=name, HEADWATER_LOG_LEVEL="debug") for name in ("state", "copy")]
        for role in both:
            await fleet.until_told(role, "update_settled", 4)
        assert any(role.events("incarnation_changed") for role in both)
        for role in (*both, other):
            assert await role.stop() == 0, role.text
        await settled_history(bus, fleet.task, evidence=Evidence.of(told_by(fleet.roles)))
        assert await aggregator.stop() == 0, aggregator.text
