"""The table of topics, and what happens when a broker's differ from it."""

import pytest

from broker_topics.errors import ConfigError
from broker_topics.memory import MemoryBus
from broker_topics.memory_log import MemoryLog
from broker_topics.provision import apply_topics, compare_topics
from broker_topics.topics import RECORD_BYTES, Topic, TopicSpec, topic_name, topic_specs

TABLE = {spec.name.rpartition(".")[2]: spec for spec in topic_specs("watch", replication=3)}


def test_the_table_is_the_one_that_the_protocol_names() -> None:
    assert {name: spec.partitions for name, spec in TABLE.items()} == {
        "updates": 12,
        "models": 1,
        "commits": 1,
        "rejects": 3,
        "clients": 12,
        "control": 1,
        "telemetry": 12,
    }
    assert {name for name, spec in TABLE.items() if spec.settings["cleanup.policy"] == "compact"} == {
        "models",
        "clients",
    }
    assert {name for name, spec in TABLE.items() if spec.settings.get("retention.ms") == "-1"} == {"commits", "control"}
    assert TABLE["updates"].settings["retention.ms"] == "604800000"
    assert TABLE["rejects"].settings["retention.ms"] == "1209600000"
    assert TABLE["telemetry"].settings["retention.ms"] == "86400000"
    assert TABLE["models"].settings["min.compaction.lag.ms"] == "86400000"


def test_no_topic_trusts_a_devices_clock_or_lets_a_device_compress() -> None:
    assert {spec.settings["message.timestamp.type"] for spec in TABLE.values()} == {"LogAppendTime"}
    assert {spec.settings["compression.type"] for spec in TABLE.values()} == {"uncompressed"}


def test_every_topic_takes_the_largest_record_and_its_batch() -> None:
    assert all(int(spec.settings["max.message.bytes"]) >= RECORD_BYTES + 1024 + 100 for spec in TABLE.values())


@pytest.mark.parametrize(("copies", "in_sync"), [(1, "1"), (2, "1"), (3, "2"), (5, "2")])
def test_with_three_copies_two_must_have_a_record(copies: int, in_sync: str) -> None:
    specs = topic_specs("watch", replication=copies)
    assert {spec.settings["min.insync.replicas"] for spec in specs} == {in_sync}
    assert {spec.settings["unclean.leader.election.enable"] for spec in specs} == {"false"}


@pytest.mark.parametrize("task", ["", "a.b", "a b", "ä", "x" * 101, "../etc"])
def test_a_task_name_that_kafka_would_not_take_is_refused(task: str) -> None:
    with pytest.raises(ConfigError, match="use 1 to 100 letters"):
        topic_name(task, Topic.UPDATES)


def altered(name: str, **changes: object) -> TopicSpec:
    spec = TABLE[name]
    values = {"partitions": spec.partitions, "replication": 3, "settings": dict(spec.settings)} | changes
    return TopicSpec(name=spec.name, **values)  # type: ignore[arg-type]


@pytest.fixture
async def bus() -> MemoryBus:
    bus = MemoryBus(MemoryLog())
    await bus.start()
    return bus


async def test_apply_creates_what_is_missing_and_the_second_time_nothing(bus: MemoryBus) -> None:
    specs = topic_specs("watch", replication=3)
    await bus.create(specs[:2])
    assert [difference.name for difference in await apply_topics(bus, specs)] == [spec.name for spec in specs[2:]]
    assert await apply_topics(bus, specs) == []
    assert await compare_topics(bus, specs) == []


async def test_a_dry_run_creates_nothing(bus: MemoryBus) -> None:
    specs = topic_specs("watch", replication=1)
    assert len(await apply_topics(bus, specs, dry_run=True)) == 7
    assert bus.log.topics == {}


async def test_a_change_of_partitions_is_refused_and_nothing_is_created(bus: MemoryBus) -> None:
    await bus.create([altered("updates", partitions=6)])
    with pytest.raises(ConfigError, match=r"fl.watch.updates: partitions is 6, should be 12; .* fixed for life"):
        await apply_topics(bus, topic_specs("watch", replication=3))
    assert list(bus.log.topics) == ["fl.watch.updates"]


async def test_other_settings_are_named_with_the_mend(bus: MemoryBus) -> None:
    settings = dict(TABLE["commits"].settings) | {"retention.ms": "1000", "segment.bytes": "1048576"}
    await bus.create([altered("commits", settings=settings)])
    with pytest.raises(ConfigError, match=r"retention.ms is 1000, should be -1; .*kafka-configs.sh"):
        await apply_topics(bus, topic_specs("watch", replication=3))


async def test_other_replication_is_named_with_the_mend(bus: MemoryBus) -> None:
    await bus.create(topic_specs("watch", replication=1))
    with pytest.raises(ConfigError, match=r"replication is 1, should be 3; .*--replication"):
        await apply_topics(bus, topic_specs("watch", replication=3))
