"""A bad line between every client and the broker: slower, nothing lost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aggregator.verify import Evidence
from broker_topics.kafka import KafkaBus
from broker_topics.local.cluster import LocalCluster
from broker_topics.settings import ConnectionSettings
from tests.chaos.diary import assert_sequences_continue, told_by
from tests.chaos.ground import Ground
from tests.chaos.proxy import Line, Proxy
from tests.chaos.registry import scenario
from tests.chaos.watcher import RECOVERED_S, Watcher, watching
from tests.kafka.support import settled_history

CLEAN = Line()
ROUGH = Line(latency_s=0.15, resets=0.2)
"""300 milliseconds there and back; of five produce requests one is reset in its middle or loses its answer."""


@asynccontextmanager
async def behind_proxy(ground: Ground) -> AsyncIterator[Proxy]:
    """A broker of one node that clients reach by way of a proxy only."""
    async with Proxy(ground.rng("proxy")) as proxy:
        advertised = {"advertised.listeners": f"PLAINTEXT://{proxy.address}"}
        async with LocalCluster(data=ground.folder / "kafka-behind-proxy", properties=advertised) as cluster:
            proxy.target = int(cluster.bootstrap.rpartition(":")[2])
            yield proxy


async def _alone(ground: Ground, what: str, bad: Line | None, seconds: float) -> None:
    async with behind_proxy(ground) as proxy:
        await bad_line(ground, proxy, what, bad, seconds)


@scenario("line-resets", "of five produces one is reset, 300 ms there and back")
async def line_resets(ground: Ground) -> None:
    """For up to a minute."""
    await _alone(ground, "20 % resets and 300 ms", ROUGH, min(60.0, ground.seconds / 2))


@scenario("line-silence", "nothing passes for 45 s, and then what was sent arrives late")
async def line_silence(ground: Ground) -> None:
    """Longer than every deadline of a client."""
    await _alone(ground, "silence", Line(silent=True), 45.0)


@scenario("line-half-open", "every connection is closed and no client is told")
async def line_half_open(ground: Ground) -> None:
    """Once."""
    await _alone(ground, "half-open", None, 5.0)


@scenario("line-short-lived", "every connection is reset after a second and a half")
async def line_short_lived(ground: Ground) -> None:
    """Again and again."""
    await _alone(ground, "connections reset at 1.5 s", Line(lifetime_s=1.5), 20.0)


@scenario("line-narrow", "8 KiB a second for each connection")
async def line_narrow(ground: Ground) -> None:
    """For as long as several keyframes take."""
    await _alone(ground, "8 KiB a second", Line(bytes_per_s=8192.0), 20.0)


async def bad_line(ground: Ground, proxy: Proxy, what: str, bad: Line | None, seconds: float) -> None:
    """One run: a good line, a bad one, a good one again; then the log is held to every rule.

    bad: the line meanwhile; None leaves every open connection half-open, once.
    """
    async with ground.run(f"network: {what}"), ground.fleet(proxy.address) as (fleet, bus):
        await fleet.create(keyframe_every=4)
        aggregator = fleet.aggregator(HEADWATER_TIMEOUT_S="10")
        quick = {"HEADWATER_LOG_LEVEL": "debug", "HEADWATER_TIMEOUT_S": "10"}
        workers = [fleet.worker("w-0", "w-3", **quick), fleet.worker("w-6", "w-8", **quick)]
        async with (
            KafkaBus(ConnectionSettings(bootstrap=proxy.address, timeout_s=10.0)) as eyes,
            watching(eyes, fleet.task) as watcher,
        ):
            async with asyncio.timeout(RECOVERED_S):
                await watcher.until_accepted(4)
            good, rate = await _rates(proxy, watcher, bad, seconds)
            stalls = await watcher.recovered(RECOVERED_S)
            for worker in workers:
                assert await worker.stop() == 0, worker.text[-2000:]
            await watcher.caught_up()
            evidence = Evidence.of([*told_by(fleet.roles), *watcher.seen, *stalls])
            history = await settled_history(bus, fleet.task, evidence=evidence)
        assert await aggregator.stop() == 0, aggregator.text[-2000:]
        assert_sequences_continue(history, "w-0", "w-3", "w-6", "w-8")
        ground.say(
            f"  {good:.1f} updates a second on a good line, {rate:.1f} on this one; {proxy.resets} resets in produces; "
            f"slowest partition afterwards {max(stall.seconds for stall in stalls):.1f} s"
        )


async def _rates(proxy: Proxy, watcher: Watcher, bad: Line | None, seconds: float) -> tuple[float, float]:
    """Updates a second before and while the line is bad."""
    good = await _rate(watcher, min(seconds, 5.0))
    if bad is None:
        proxy.half_open()
    else:
        proxy.line = bad
    try:
        return good, await _rate(watcher, seconds)
    finally:
        proxy.line = CLEAN


async def _rate(watcher: Watcher, seconds: float) -> float:
    before = watcher.accepted
    await asyncio.sleep(seconds)
    return (watcher.accepted - before) / seconds
