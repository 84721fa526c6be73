"""A broker's disk loses the end of a log, and whoever mends that dies in the midst of it."""

import signal

from broker_topics.crash_points import VARIABLE, Io
from broker_topics.kafka import KafkaBus
from broker_topics.local.cluster import LocalCluster
from broker_topics.topics import Topic, topic_name
from tests.chaos.crash_points import points_of
from tests.chaos.ground import Ground
from tests.chaos.registry import scenario
from tests.kafka import segments
from tests.kafka.support import Fleet, accepted, hashes, until_settled
from tests.simulation.invariants import check

MENDING = (Io.PUT_BACK, Io.FILL_UP)
"""What an aggregator writes only where the log lost something."""


@scenario("cuts", "the log loses its end on a broker's disk, and whoever mends it dies in the midst")
async def cuts(ground: Ground) -> None:
    """Both points of both mends, each on a task of its own."""
    async with LocalCluster(data=ground.folder / "kafka-cuts") as cluster:
        for point in points_of(Io.PUT_BACK):
            await putting_back_dies_at(ground, cluster, point)
        for point in points_of(Io.FILL_UP):
            await filling_up_dies_at(ground, cluster, point)


async def putting_back_dies_at(ground: Ground, cluster: LocalCluster, point: str) -> None:
    """Only the one that dies still knew the newest record: it is there again, or what it said is decided anew."""
    async with ground.run(f"putting records back dies at {point}"), ground.fleet(cluster.bootstrap) as (fleet, bus):
        await fleet.create(keyframe_every=3)
        aggregator = fleet.aggregator(**{VARIABLE: f"{point}:1"})
        await some_updates(fleet, bus, "w-0")
        whole = await hashes(bus, fleet.task)
        await cut_by_one(cluster, bus, topic_name(fleet.task, Topic.COMMITS), 0)
        assert await aggregator.ended() == -signal.SIGKILL, aggregator.text[-2000:]
        kept = whole if point.endswith(":after") else whole[:-1]
        assert await hashes(bus, fleet.task) == kept
        successor = fleet.aggregator()
        await some_updates(fleet, bus, "w-3")
        history = await check(bus, fleet.task, settled=True)
        assert not history.violations, history.violations
        assert [record.hash for record in history.chain][: len(kept)] == kept
        assert await successor.stop() == 0, successor.text


async def filling_up_dies_at(ground: Ground, cluster: LocalCluster, point: str) -> None:
    """A consumed input is gone, which an operator accepted: in the end its place is filled, and nothing lands there."""
    async with ground.run(f"filling up dies at {point}"), ground.fleet(cluster.bootstrap) as (fleet, bus):
        await fleet.create(keyframe_every=3)
        first = fleet.aggregator()
        await some_updates(fleet, bus, "w-0")
        assert await first.stop() == 0, first.text
        updates = topic_name(fleet.task, Topic.UPDATES)
        ends = await bus.end_offsets(updates)
        partition = max(ends, key=ends.__getitem__)
        await cut_by_one(cluster, bus, updates, partition)
        accepting = ("--accept-loss", "--accept-divergence")
        dying = fleet.aggregator(*accepting, **{VARIABLE: f"{point}:1"})
        assert await dying.ended() == -signal.SIGKILL, dying.text[-2000:]
        successor = fleet.aggregator(*accepting)
        await some_updates(fleet, bus, "w-0")
        assert (await bus.end_offsets(updates))[partition] > ends[partition]
        history = await check(bus, fleet.task, settled=True, excused={(partition, ends[partition] - 1)})
        assert not history.violations, history.violations
        assert await successor.stop() == 0, successor.text


async def some_updates(fleet: Fleet, bus: KafkaBus, client: str) -> None:
    """A device sends until a few more updates are accepted, and all that was sent is decided."""
    worker = fleet.worker(client, PACE_S="0.05")
    await fleet.until_accepted(bus, await accepted(bus, fleet.task) + 5)
    assert await worker.stop() == 0, worker.text
    await until_settled(bus, fleet.task)


async def cut_by_one(cluster: LocalCluster, bus: KafkaBus, topic: str, partition: int) -> None:
    """Take the last record of a partition from the broker's disk; the broker is back when this returns."""
    end = (await bus.end_offsets(topic))[partition]
    await cluster.stop_node()
    segments.cut(segments.log_folder(cluster, topic, partition), end - 1)
    await cluster.restart()
