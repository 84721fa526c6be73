"""Random kill -9 of aggregator, workers and brokers every 0.2 to 3 seconds, and the log held to every rule."""

import asyncio
import itertools
from collections.abc import Sequence
from contextlib import AsyncExitStack

import numpy as np

from aggregator.verify import Evidence, Stall
from broker_topics.kafka import KafkaBus
from broker_topics.local.cluster import LocalCluster
from broker_topics.settings import ConnectionSettings
from tests.chaos.diary import assert_sequences_continue, told_by
from tests.chaos.ground import Ground
from tests.chaos.registry import scenario
from tests.chaos.supervisor import Kept
from tests.chaos.watcher import RECOVERED_S, Watcher, watching
from tests.kafka.support import settled_history

AGGREGATOR_BYTES = 192 * 1024 * 1024
"""What an aggregator of a small model may take; it takes less than half of it."""

STORM_S = 40.0


@scenario("kills", "kill -9 of aggregator, workers and the one broker at random, for half of the time")
async def kills(ground: Ground) -> None:
    """Storm after storm on one node."""
    await _storms(ground, nodes=1)


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


async def storm(ground: Ground, cluster: LocalCluster, number: int, seconds: float) -> None:
    """One run: kill for a while, let everybody recover, hold the log to every rule."""
    nodes = len(cluster.pids)
    async with ground.run(f"kills {number} on {nodes} node{'s'[: nodes - 1]}"), AsyncExitStack() as stack:
        fleet, bus = await stack.enter_async_context(ground.fleet(cluster.bootstrap))
        await fleet.create(keyframe_every=4)
        aggregator = Kept("aggregator", fleet.aggregator)
        workers = [
            Kept("worker 1", lambda: fleet.worker("w-0", "w-3", HEADWATER_LOG_LEVEL="debug")),
            Kept("worker 2", lambda: fleet.worker("w-6", "w-8", HEADWATER_LOG_LEVEL="debug")),
        ]
        eyes = await stack.enter_async_context(KafkaBus(ConnectionSettings(bootstrap=cluster.bootstrap)))
        watcher = await stack.enter_async_context(watching(eyes, fleet.task))
        rng = ground.rng("kills", nodes, number)
        async with asyncio.TaskGroup() as group:
            keeping = [group.create_task(role.run()) for role in (aggregator, *workers)]
            stalls = await _storm(cluster, [aggregator, *workers], rng, seconds, watcher)
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


async def _storm(
    cluster: LocalCluster, roles: Sequence[Kept], rng: np.random.Generator, seconds: float, watcher: Watcher
) -> list[Stall]:
    """Kill at random, then wait until what lies in the log is decided and new work follows; how long that took."""
    async with asyncio.timeout(RECOVERED_S):
        await watcher.until_accepted(4)
    clock, bounce = asyncio.get_running_loop().time, asyncio.create_task(asyncio.sleep(0))
    end = clock() + seconds
    try:
        while clock() < end:
            await asyncio.sleep(float(rng.uniform(0.2, 3.0)))
            chosen = int(rng.integers(len(roles) + 1))
            if chosen < len(roles):
                await asyncio.to_thread(roles[chosen].kill)
            elif bounce.done():
                node, away_s = int(rng.choice(list(cluster.pids))), float(rng.uniform(0.2, 3.0))
                bounce = asyncio.create_task(_bounce(cluster, node, away_s))
    finally:
        await bounce
    return await watcher.recovered(RECOVERED_S)


async def _bounce(cluster: LocalCluster, node: int, away_s: float) -> None:
    await cluster.kill(node)
    await asyncio.sleep(away_s)
    await cluster.restart(node)
