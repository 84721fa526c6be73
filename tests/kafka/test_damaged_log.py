"""A real broker that lost what it had acknowledged: its segments are cut short, as by a power cut of all replicas.

All damage is done in one go to the tasks of one broker, each its own: one stop, one start.
"""

import asyncio

import pytest

from aggregator.restore.replay import replay
from broker_topics import models_log
from broker_topics.kafka import KafkaBus
from broker_topics.local.cluster import LocalCluster
from broker_topics.settings import ConnectionSettings
from broker_topics.topics import Topic
from tests.fleet import Device, chain_of, metric, running, until
from tests.kafka import segments
from tests.kafka.damage import VERSIONS, Made, accepting, goes_on, make, refused, repairs
from tests.kafka.support import fleet_in, settled_history


async def damage(cluster: LocalCluster) -> dict[str, Made]:
    await cluster.start()
    names = ("cut", "other", "chain", "models")
    async with KafkaBus(ConnectionSettings(bootstrap=cluster.bootstrap)) as bus:
        tasks = dict(zip(names, await asyncio.gather(*(make(bus, name) for name in names)), strict=True))
    await cluster.stop_node()
    for name in ("cut", "other"):
        made = tasks[name]
        folder = segments.log_folder(cluster, made.topic(Topic.UPDATES), made.partition)
        segments.cut(folder, made.places[-1].offset)
    segments.cut(segments.log_folder(cluster, tasks["chain"].topic(Topic.COMMITS)), 2)
    segments.cut(segments.log_folder(cluster, tasks["models"].topic(Topic.MODELS)), 7)
    await cluster.restart()
    return tasks


async def test_inputs_cut_from_the_log_stop_the_start_until_they_are_given_up(
    bus: KafkaBus, tasks: dict[str, Made]
) -> None:
    made = tasks["cut"]
    assert "--accept-divergence" in await refused(bus, "cut")
    async with accepting(bus, "cut", loss=True, divergence=True):
        await goes_on(bus, "cut")
    (note,) = await repairs(bus, "cut")
    assert f"input {made.places[-1].offset} of partition {made.partition}" in note
    assert (await replay(bus, "cut")).to_version >= VERSIONS + 2


async def test_another_record_in_a_lost_ones_place_is_never_taken_for_it(bus: KafkaBus, tasks: dict[str, Made]) -> None:
    made = tasks["other"]
    device = await Device(bus, "other", "a").enter()
    device.sequence = VERSIONS
    place = await device.send(device.update(9.0).to_bytes())
    assert place == made.places[-1]
    said = await refused(bus, "other")
    assert f"partition {made.partition}, offset {place.offset}: another record lies there" in said
    async with accepting(bus, "other", loss=True, divergence=True):
        await goes_on(bus, "other")


async def test_a_chain_cut_from_the_log_stops_the_command_with_76_and_goes_on_once_accepted(
    bus: KafkaBus, cluster: LocalCluster, tasks: dict[str, Made], tmp_path: object
) -> None:
    with fleet_in(tmp_path, cluster.bootstrap, "chain") as fleet:  # type: ignore[arg-type]
        status, printed = await fleet.run("aggregator", "--listen-port", "0")
    assert status == 76, printed
    assert "the commits topic was cut short: it ends with record 1, but record 6 has left parts in models" in printed
    assert "headwater aggregator --accept-loss" in printed
    assert "Traceback" not in printed
    async with accepting(bus, "chain", loss=True):
        await goes_on(bus, "chain")
    assert "record 6 has left parts" in (await repairs(bus, "chain"))[0]
    async with running(bus, "chain"):
        await goes_on(bus, "chain", "another")


async def test_a_models_topic_cut_short_needs_nobody(bus: KafkaBus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models_log, "_FETCH_S", 3.0)  # how long each reader waits for a part that is gone
    async with running(bus, "models") as aggregator:
        await until(lambda: (metric(aggregator, "headwater_chain_length") or 0) > VERSIONS, within_s=60)
        await goes_on(bus, "models")
        await settled_history(bus, "models")
    assert (await chain_of(bus, "models"))[VERSIONS + 1].body.keyframe
