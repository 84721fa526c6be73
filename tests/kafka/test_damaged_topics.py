"""Topics that retention ate, that were deleted and made anew, widened, or that hold batches which no client decodes.

All damage is done in one go to the tasks of one broker, each its own: one stop, one start.
"""

import asyncio
import zlib

from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from aiokafka.admin.records_to_delete import RecordsToDelete
from aiokafka.structs import TopicPartition

from broker_topics.kafka import KafkaBus
from broker_topics.local.cluster import LocalCluster
from broker_topics.record import RunKind
from broker_topics.settings import ConnectionSettings
from broker_topics.topics import Topic, topic_name, topic_specs
from tests.fleet import Device, chain_of, running
from tests.kafka import segments
from tests.kafka.damage import VERSIONS, Made, accepting, goes_on, make, refused, repairs
from tests.kafka.support import fleet_in, rejects_of, settled_history

UNREADABLE = {
    "gzip that is none": (b"no gzip", 1),
    "gzip that breaks off": (b"\x1f\x8b\x08\0\0\0\0\0\0\xff", 1),
    "snappy that is none": (b"no snappy", 2),
    "lz4 that is none": (b"no lz4", 3),
    "zstd that is none": (b"no zstd", 4),
    "a codec of the future": (b"\0" * 20, 7),
    "records that are none": (b"\xff" * 40, 0),
    "no record where one should be": (zlib.compress(b"", wbits=31), 1),
}


async def damage(cluster: LocalCluster) -> dict[str, Made]:
    await cluster.start()
    names = ("poison", "eaten", "renewed", "remade", "wider", "live")
    async with KafkaBus(ConnectionSettings(bootstrap=cluster.bootstrap)) as bus:
        tasks = dict(zip(names, await asyncio.gather(*(make(bus, name) for name in names)), strict=True))
        elsewhere = await bus.partition_for(tasks["poison"].topic(Topic.UPDATES), b"b")
    await cluster.stop_node()
    for partition in (tasks["poison"].partition, elsewhere):
        folder = segments.log_folder(cluster, tasks["poison"].topic(Topic.UPDATES), partition)
        for payload, attributes in UNREADABLE.values():
            segments.append(folder, payload=payload, attributes=attributes)
    await cluster.restart()
    async with KafkaBus(ConnectionSettings(bootstrap=cluster.bootstrap)) as bus:
        await eat_and_remake(cluster, bus, tasks)  # a restart without checkpoints would bring back what was eaten
    return tasks


async def eat_and_remake(cluster: LocalCluster, bus: KafkaBus, tasks: dict[str, Made]) -> None:
    """Retention takes an input that waits; topics are deleted and made anew; one gets more partitions."""
    device = await Device(bus, "eaten", "a").enter()
    device.sequence = VERSIONS
    last = await device.send(device.update(1.0).to_bytes())
    admin = AIOKafkaAdminClient(bootstrap_servers=cluster.bootstrap)
    await admin.start()
    try:
        where = TopicPartition(topic_name("eaten", Topic.UPDATES), last.partition)
        await admin.delete_records({where: RecordsToDelete(before_offset=last.offset + 1)})
        await admin.create_partitions({topic_name("wider", Topic.UPDATES): NewPartitions(total_count=13)})
        remade = [topic_name("renewed", Topic.UPDATES), topic_name("remade", Topic.COMMITS)]
        await admin.delete_topics(remade)
        async with asyncio.timeout(30):
            while await bus.describe(remade):
                await asyncio.sleep(0.05)
    finally:
        await admin.close()
    for name in ("renewed", "remade"):
        await bus.create([spec for spec in topic_specs(name, replication=1) if spec.name in remade])


async def test_batches_that_cannot_be_decoded_are_passed_one_by_one_as_unreadable(
    bus: KafkaBus, tasks: dict[str, Made]
) -> None:
    topic = topic_name("poison", Topic.UPDATES)
    devices = [await Device(bus, "poison", client).enter() for client in ("a", "b")]
    devices[0].sequence = VERSIONS
    first = {tasks["poison"].partition: VERSIONS, await bus.partition_for(topic, b"b"): 0}
    bad = {(partition, offset + number) for partition, offset in first.items() for number in range(8)}
    assert len(bad) == 16
    async with running(bus, "poison"):
        told = await rejects_of(bus, "poison", at_least=len(bad))  # while nothing comes behind them
        assert {(reject.partition, reject.offset, reject.code) for reject in told} == {
            (*place, "unreadable") for place in bad
        }
        after = [await device.send(device.update(1.0).to_bytes()) for device in devices]
        assert [place.offset for place in after] == [VERSIONS + 8, 8]
        await devices[0].until_version(VERSIONS + 2)
        await settled_history(bus, "poison")
    async with running(bus, "poison"):
        await goes_on(bus, "poison")
        await settled_history(bus, "poison")
    runs = [run for record in await chain_of(bus, "poison") for run in record.body.runs if run.kind != RunKind.DATA]
    assert {run.kind for run in runs} == {"unreadable"}
    assert sorted((run.partition, run.first + i) for run in runs for i in range(run.count)) == sorted(bad)


async def test_unread_inputs_that_retention_ate_stop_the_command_with_76_until_they_are_given_up(
    bus: KafkaBus, cluster: LocalCluster, tasks: dict[str, Made], tmp_path: object
) -> None:
    with fleet_in(tmp_path, cluster.bootstrap, "eaten") as fleet:  # type: ignore[arg-type]
        status, printed = await fleet.run("aggregator", "--listen-port", "0", "--accept-divergence")
    eaten = f"retention deleted the inputs 6 to 6 of partition {tasks['eaten'].partition} before they were read"
    assert status == 76, printed
    assert eaten in printed
    assert "headwater aggregator --accept-loss" in printed
    assert "Traceback" not in printed
    async with accepting(bus, "eaten", loss=True, divergence=True):
        await goes_on(bus, "eaten")
    assert any(eaten in note for note in await repairs(bus, "eaten"))
    async with running(bus, "eaten"):
        await goes_on(bus, "eaten", "another")


async def test_updates_deleted_and_made_anew_are_no_continuation(bus: KafkaBus, tasks: dict[str, Made]) -> None:
    partition = tasks["renewed"].partition
    said = await refused(bus, "renewed", divergence=True)
    assert f"partition {partition} was cut short: it ends at 0, but 6 inputs were acknowledged" in said
    assert "headwater aggregator --accept-loss" in said
    async with accepting(bus, "renewed", loss=True, divergence=True):
        await goes_on(bus, "renewed")
    assert any("was cut short: it ends at 0" in note for note in await repairs(bus, "renewed"))
    async with running(bus, "renewed"):
        device = await Device(bus, "renewed", "a").enter()
        device.sequence = VERSIONS
        assert (await device.send(device.update(1.0).to_bytes())).offset == VERSIONS
        await device.until_version(device.follower.model.version + 1)


async def test_commits_deleted_and_made_anew_are_no_new_task(bus: KafkaBus) -> None:
    said = await refused(bus, "remade", loss=True, divergence=True)
    assert "the commits topic of task 'remade' is empty, although models holds parts up to record 6" in said
    assert "or make a new task under another name" in said


async def test_updates_with_more_partitions_than_the_task_was_made_with_stop_the_start(bus: KafkaBus) -> None:
    said = await refused(bus, "wider", status=2, loss=True, divergence=True)
    assert "the task was made with 12 partitions of updates, the topic has 13" in said
    assert "make a new task" in said


async def test_a_living_aggregator_puts_back_what_the_brokers_disk_lost(cluster: LocalCluster, bus: KafkaBus) -> None:
    commits = topic_name("live", Topic.COMMITS)
    device = await Device(bus, "live", "b").enter()
    async with running(bus, "live"):
        for version in (VERSIONS + 1, VERSIONS + 2, VERSIONS + 3):
            await device.send(device.update(1.0).to_bytes())
            await device.until_version(version)
        before = [record.data for record in await chain_of(bus, "live")]
        await cluster.stop_node()
        segments.cut(segments.log_folder(cluster, commits), VERSIONS + 2)
        await cluster.restart()
        async with asyncio.timeout(60):
            while (await bus.end_offsets(commits))[0] < len(before):
                await asyncio.sleep(0.1)
        assert [record.data for record in await chain_of(bus, "live")] == before
        await device.send(device.update(1.0).to_bytes())
        await device.until_version(VERSIONS + 4)
        await settled_history(bus, "live")
    assert [record.data for record in await chain_of(bus, "live")][: len(before)] == before
