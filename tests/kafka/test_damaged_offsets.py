"""A real broker whose disk flipped a bit in a batch's base offset, which no CRC covers: nothing there is believed."""

import asyncio

from broker_topics.kafka import KafkaBus
from broker_topics.local.cluster import LocalCluster
from broker_topics.record import RunKind
from broker_topics.settings import ConnectionSettings
from broker_topics.topics import Topic
from tests.fleet import Device, chain_of, running
from tests.kafka import segments
from tests.kafka.damage import VERSIONS, Made, accepting, goes_on, make, refused, repairs
from tests.kafka.support import rejects_of, settled_history

MOVED = {"later": 9, "beyond": VERSIONS + 1 + 2**33, "before": 2, "behind all": 2**62}
"""Where the second of three inputs that wait, at offset 7, says that it lies; one task each."""


def name_of(how: str) -> str:
    return how.replace(" ", "-")


async def damage(cluster: LocalCluster) -> dict[str, Made]:
    await cluster.start()
    names = (*map(name_of, MOVED), "consumed")
    async with KafkaBus(ConnectionSettings(bootstrap=cluster.bootstrap)) as bus:
        tasks = dict(zip(names, await asyncio.gather(*(make(bus, name) for name in names)), strict=True))
        for name in map(name_of, MOVED):
            device = await Device(bus, name, "a", sequence=VERSIONS).enter()
            for _ in range(3):
                await device.send(device.update(1.0).to_bytes())
    await cluster.stop_node()
    for how, to in {**MOVED, "consumed": 2**33}.items():
        made = tasks[name_of(how)]
        folder = segments.log_folder(cluster, made.topic(Topic.UPDATES), made.partition)
        segments.move(folder, VERSIONS - 2 if how == "consumed" else VERSIONS + 1, to)
    await cluster.restart()
    return tasks


async def test_a_batch_that_says_it_lies_elsewhere_is_unreadable_and_all_others_are_decided(
    bus: KafkaBus, tasks: dict[str, Made]
) -> None:
    for name in map(name_of, MOVED):
        async with running(bus, name):
            (told,) = await rejects_of(bus, name, at_least=1)
            assert (told.offset, told.code) == (VERSIONS + 1, "unreadable"), name
            await goes_on(bus, name)
            await settled_history(bus, name)
        runs = [run for record in await chain_of(bus, name) for run in record.body.runs]
        void = [(run.first, run.count, run.kind) for run in runs if run.kind is not RunKind.DATA]
        assert void == [(VERSIONS + 1, 1, RunKind.UNREADABLE)], name


async def test_a_consumed_input_that_says_it_lies_elsewhere_stops_the_start_until_it_is_given_up(
    bus: KafkaBus, tasks: dict[str, Made]
) -> None:
    lost = f"partition {tasks['consumed'].partition}, offset {VERSIONS - 2}"
    said = await refused(bus, "consumed")
    assert lost in said
    assert "--accept-divergence" in said
    async with accepting(bus, "consumed", loss=True, divergence=True):
        await goes_on(bus, "consumed")
    assert any(f"input {VERSIONS - 2} of partition" in note for note in await repairs(bus, "consumed"))
