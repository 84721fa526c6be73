"""Random kill -9 of aggregator, workers and brokers every 0.2 to 3 seconds, and the log held to every rule."""

import asyncio
import itertools
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from aggregator.verify import Evidence
from broker_topics.kafka import KafkaBus
from broker_topics.local.cluster import LocalCluster
from broker_topics.settings import ConnectionSettings
from broker_topics.topics import Topic, topic_name
from tests.chaos.diary import assert_sequences_continue, told_by
from tests.chaos.ground import Ground
from tests.chaos.registry import scenario
from tests.chaos.supervisor import Kept
from tests.chaos.watcher import RECOVERED_S, Watcher, watching
from tests.kafka.support import leader_of, settled_history

AGGREGATOR_BYTES = 192 * 1024 * 1024
"""What an aggregator of a small model may take; it takes less than half of it."""

STORM_S = 40.0

LAGGING_RUNS, LAGGING_S = 3, 60.0

LONGEST_LAG_S = 15.0
"""Longer than a broker's session lasts: the one that lags falls out of the replicas in sync, or just does not."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What can be hurt, and who sees how it gets on."""

    cluster: LocalCluster
    task: str
    roles: Sequence[Kept]
    rng: np.random.Generator
    watcher: Watcher

    def draw(self, low: float, high: float) -> float:
        """A number in between."""
        return float(self.rng.uniform(low, high))


class Hurt(Protocol):
    """Hurts whatever it likes as long as it may go on; all brokers are back when it ends."""

    __name__: str

    async def __call__(self, scene: Scene, goes_on: Callable[[], bool]) -> None: ...


@scenario("kills", "kill -9 of aggregator, workers and the one broker at random, for half of the time")
async def kills(ground: Ground) -> None:
    """Storm after storm on one node."""
    await _storms(ground, nodes=1)


@scenario("lagging", "three brokers: a leader is killed while a follower lags behind, and comes back after it")
async def lagging(ground: Ground) -> None:
    """Whoever is elected must have all that was acknowledged; the one that lagged and the one that led give way."""
    async with LocalCluster(data=ground.folder / "kafka-lagging", nodes=3) as cluster:
        for number in range(LAGGING_RUNS):
            await storm(ground, cluster, number, LAGGING_S, leaders_die)


@scenario("kills-three", "the same on three brokers, replication 3, min ISR 2, for the other half")
async def kills_three(ground: Ground) -> None:
    """Storm after storm on three nodes."""
    await _storms(ground, nodes=3)


async def _storms(ground: Ground, *, nodes: int) -> None:
    async with LocalCluster(data=ground.folder / f"kafka-{nodes}", nodes=nodes) as cluster:
        goes_on = ground.within(ground.seconds / 2)
        for number in itertools.count():
            if not goes_on():
                return
            await storm(ground, cluster, number, min(STORM_S, ground.seconds / 2))


async def storm(ground: Ground, cluster: LocalCluster, number: int, seconds: float, hurt: Hurt | None = None) -> None:
    """One run: hurt for a while, kill at random if nothing else is given, let everybody recover, check every rule."""
    nodes, hurt = len(cluster.pids), hurt or kill_at_random
    name = f"{hurt.__name__.replace('_', ' ')} {number} on {nodes} node{'s'[: nodes - 1]}"
    async with ground.run(name), AsyncExitStack() as stack:
        fleet, bus = await stack.enter_async_context(ground.fleet(cluster.bootstrap))
        await fleet.create(keyframe_every=4)
        aggregator = Kept("aggregator", fleet.aggregator)
        workers = [
            Kept("worker 1", lambda: fleet.worker("w-0", "w-3", HEADWATER_LOG_LEVEL="debug")),
            Kept("worker 2", lambda: fleet.worker("w-6", "w-8", HEADWATER_LOG_LEVEL="debug")),
        ]
        eyes = await stack.enter_async_context(KafkaBus(ConnectionSettings(bootstrap=cluster.bootstrap)))
        watcher = await stack.enter_async_context(watching(eyes, fleet.task))
        rng = ground.rng(hurt.__name__, nodes, number)
        scene = Scene(cluster, fleet.task, [aggregator, *workers], rng, watcher)
        async with asyncio.TaskGroup() as group:
            keeping = [group.create_task(role.run()) for role in (aggregator, *workers)]
            async with asyncio.timeout(RECOVERED_S):
                await watcher.until_accepted(4)
            await hurt(scene, ground.within(seconds))
            stalls = await watcher.recovered(RECOVERED_S)
            for worker in workers:
                await worker.stop()
            await watcher.caught_up()
            memory = aggregator.memory(AGGREGATOR_BYTES)
            evidence = Evidence.of([*told_by(fleet.roles), *watcher.seen, *stalls, memory])
            history = await settled_history(bus, fleet.task, evidence=evidence)
            await aggregator.stop()
            await asyncio.gather(*keeping)
        assert_sequences_continue(history, "w-0", "w-3", "w-6", "w-8")
        ground.say(
            f"  killed: {', '.join(f'{role.name} {role.kills}' for role in (aggregator, *workers))}; "
            f"{len(history.chain)} records, {watcher.accepted} updates; slowest partition after the storm "
            f"{max(stall.seconds for stall in stalls):.1f} s; aggregator {memory.peak_bytes / 2**20:.0f} MiB"
        )


async def kill_at_random(scene: Scene, goes_on: Callable[[], bool]) -> None:
    """Every 0.2 to 3 seconds a role or a broker."""
    bounce = asyncio.create_task(asyncio.sleep(0))
    try:
        while goes_on():
            await asyncio.sleep(scene.draw(0.2, 3.0))
            chosen = int(scene.rng.integers(len(scene.roles) + 1))
            if chosen < len(scene.roles):
                await asyncio.to_thread(scene.roles[chosen].kill)
            elif bounce.done():
                node = int(scene.rng.choice(list(scene.cluster.pids)))
                bounce = asyncio.create_task(_bounce(scene.cluster, node, scene.draw(0.2, 3.0)))
    finally:
        await bounce


async def leaders_die(scene: Scene, goes_on: Callable[[], bool]) -> None:
    """Freeze a follower of the chain, kill its leader some time later, and let the follower go on first."""
    cluster, commits = scene.cluster, topic_name(scene.task, Topic.COMMITS)
    while goes_on():
        leader = await leader_of(cluster.bootstrap, commits)
        follower = int(scene.rng.choice([node for node in cluster.pids if node != leader]))
        cluster.freeze(follower)
        try:
            await asyncio.sleep(scene.draw(0.5, LONGEST_LAG_S))
            await cluster.kill(leader)
            await asyncio.sleep(scene.draw(0.0, 2.0))
        finally:
            cluster.thaw(follower)
        await asyncio.sleep(scene.draw(0.0, 5.0))
        await cluster.restart(leader)
        await scene.watcher.recovered(RECOVERED_S)


async def _bounce(cluster: LocalCluster, node: int, away_s: float) -> None:
    await cluster.kill(node)
    await asyncio.sleep(away_s)
    await cluster.restart(node)
