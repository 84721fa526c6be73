"""`headwater doctor` and `headwater status` on a real broker, each fault really made."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.structs import TopicPartition

from broker_topics.access import ACCESS, Role
from broker_topics.kafka import KafkaBus
from broker_topics.local.cluster import LocalCluster
from broker_topics.settings import ConnectionSettings
from broker_topics.topics import Topic, TopicSpec, topic_name, topic_specs
from headwater.checkup import doctor
from headwater.checkup.examine import examine
from headwater.checkup.finding import Finding, Level
from headwater.cli import run
from tests.fleet import Device, make_task, running
from tests.kafka.acls import allow
from tests.kafka.certificates import Authority
from tests.kafka.support import POLL_S, all_settled


async def look(bootstrap: str, task: str, folder: Path, **changed: Any) -> dict[str, list[Finding]]:
    """The findings by check."""
    settings = changed.pop("settings", None) or ConnectionSettings(bootstrap=bootstrap, timeout_s=10)
    found: dict[str, list[Finding]] = {}
    for finding in await examine(settings, task, changed.pop("role", Role.AGGREGATOR), folder, **changed):
        found.setdefault(finding.check, []).append(finding)
    return found


def faults(found: dict[str, list[Finding]]) -> set[str]:
    return {check for check, findings in found.items() if any(each.level is Level.BAD for each in findings)}


def words(found: dict[str, list[Finding]], check: str) -> str:
    return " | ".join(f"{each.words} → {each.mend}" for each in found[check])


async def trained(bus: KafkaBus, task: str, devices: int, **settings: Any) -> None:
    """A version or two from these devices, so that everybody was heard."""
    await make_task(bus, task, **{"flush_deadline_s": 0.2, **settings})
    fleet = [await Device(bus, task, f"w-{number}").enter() for number in range(devices)]
    async with running(bus, task):
        for device in fleet:
            await device.send(device.update(1.0).to_bytes())
        await fleet[0].until_version(1)
        while not await all_settled(bus, task):
            await asyncio.sleep(POLL_S)
    for device in fleet:
        await device.follower.close()


async def test_a_task_in_order_has_no_fault_and_its_status_is_healthy(bootstrap, task_name, tmp_path, capsys):
    async with KafkaBus(ConnectionSettings(bootstrap=bootstrap)) as bus:
        await trained(bus, task_name, 4, buffer_size=2)
    found = await look(bootstrap, task_name, tmp_path)
    assert faults(found) == set()
    assert set(found) == {
        *("broker", "kafka", "topics", "replicas", "rights", "log", "keyframe"),
        *("retention", "buffer", "clock", "packages", "disk"),
    }
    assert "1 broker, release 4.4" in words(found, "kafka")
    assert "agrees with the broker's within" in words(found, "clock")
    assert "no access rules hold" in words(found, "rights")


def test_the_commands_end_with_the_documented_codes(bootstrap, task_name, tmp_path, capsys, monkeypatch):
    import asyncio

    async def make() -> None:
        async with KafkaBus(ConnectionSettings(bootstrap=bootstrap)) as bus:
            await trained(bus, task_name, 4, buffer_size=2)

    asyncio.run(make())
    where = ["--task", task_name, "--bootstrap", bootstrap, "--json"]
    assert run(["status", *where]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["healthy"], told["facts"]["height"] >= 1) == (True, True)
    assert run(["doctor", *where]) == 0
    assert json.loads(capsys.readouterr().out)["healthy"]
    assert run(["status", *where[:-1], "--aggregator", "http://127.0.0.1:9"]) == 1
    assert "somebody must act" in capsys.readouterr().out
    assert run(["status", "--task", "nobody", "--bootstrap", bootstrap]) == 2
    assert run(["status", "--task", task_name, "--bootstrap", "127.0.0.1:9"]) == 69
    capsys.readouterr()
    assert run(["doctor", "--task", task_name, "--bootstrap", "127.0.0.1:9"]) == 1
    assert "127.0.0.1:9: nothing listens there" in capsys.readouterr().out


async def test_a_wrong_password_is_the_first_line(broker: LocalCluster, authority: Authority, task_name, tmp_path):
    settings = ConnectionSettings(
        bootstrap=broker.address("SCRAM"), tls_ca=str(authority.ca), user="watch", password="wrong", timeout_s=8
    )
    found = await look("", task_name, tmp_path, settings=settings)
    assert faults(found) == {"broker"}
    assert "wrong user or password for user 'watch'" in words(found, "broker")
    assert "topics" not in found


async def test_topics_that_are_missing_or_set_otherwise_are_named_with_the_mend(bootstrap, task_name, tmp_path):
    specs = {spec.name: spec for spec in topic_specs(task_name, replication=1)}
    updates, telemetry = topic_name(task_name, Topic.UPDATES), topic_name(task_name, Topic.TELEMETRY)
    del specs[telemetry]
    changed = {**specs[updates].settings, "retention.ms": "60000"}
    specs[updates] = TopicSpec(name=updates, partitions=5, replication=1, settings=changed)
    async with KafkaBus(ConnectionSettings(bootstrap=bootstrap)) as bus:
        await bus.create(list(specs.values()))
    found = await look(bootstrap, task_name, tmp_path)
    assert "topics" in faults(found)
    assert f"{telemetry} is missing → headwater topics apply --task {task_name}" in words(found, "topics")
    assert f"--entity-name {updates} --add-config retention.ms=604800000" in words(found, "topics")
    assert "partitions is 5 → 12 are needed and fixed for life" in words(found, "topics")


async def test_rights_that_a_role_lacks_are_named_without_a_write(
    broker: LocalCluster, authority: Authority, task_name, tmp_path
):
    settings = ConnectionSettings(
        bootstrap=broker.address("SCRAM"), tls_ca=str(authority.ca), user="watch", password="right-password"
    )
    async with KafkaBus(ConnectionSettings(bootstrap=broker.bootstrap)) as bus:
        await trained(bus, task_name, 4, buffer_size=2)
        ends = await bus.end_offsets(topic_name(task_name, Topic.UPDATES))
    rules = [
        ("watch", topic_name(task_name, topic), operation.value)
        for topic, operations in ACCESS[Role.DEVICE].items()
        for operation in operations
    ]
    closed = [("nobody", topic_name(task_name, topic), "Read") for topic in Topic]
    await allow(broker.bootstrap, [*rules, *closed])
    device = await look("", task_name, tmp_path, settings=settings, role=Role.DEVICE)
    assert faults(device) == set()
    assert "watch has the rights of the role device" in words(device, "rights")
    aggregator = await look("", task_name, tmp_path, settings=settings)
    commits = topic_name(task_name, Topic.COMMITS)
    assert "rights" in faults(aggregator)
    assert f"{commits}: may not Write" in words(aggregator, "rights")
    assert f"--allow-principal User:watch --operation Write --topic {commits}" in words(aggregator, "rights")
    async with KafkaBus(ConnectionSettings(bootstrap=broker.bootstrap)) as bus:
        assert await bus.end_offsets(topic_name(task_name, Topic.UPDATES)) == ends


async def test_updates_that_retention_took_unread_are_a_fault(bootstrap, task_name, tmp_path):
    async with KafkaBus(ConnectionSettings(bootstrap=bootstrap)) as bus:
        await trained(bus, task_name, 4, buffer_size=2)
        late = await Device(bus, task_name, "w-0").enter()
        where = await late.send(b"nobody reads this")
        await late.follower.close()
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        partition = TopicPartition(topic_name(task_name, Topic.UPDATES), where.partition)
        await admin.delete_records({partition: RecordsToDelete(before_offset=where.offset + 1)})
    finally:
        await admin.close()
    found = await look(bootstrap, task_name, tmp_path)
    assert "log" in faults(found)
    assert "retention took 1 record that nobody had read" in words(found, "log")


async def test_a_slow_clock_and_a_buffer_for_a_larger_fleet_are_faults(bootstrap, task_name, tmp_path):
    async with KafkaBus(ConnectionSettings(bootstrap=bootstrap)) as bus:
        await trained(bus, task_name, 3, buffer_size=4)
    found = await look(bootstrap, task_name, tmp_path, now_s=lambda: time.time() - 100)
    assert faults(found) == {"clock", "buffer"}
    assert "behind the broker's → synchronise" in words(found, "clock")
    assert "K is 4, 3 devices active → K should be at most 1" in words(found, "buffer")


def test_another_release_of_the_client_and_a_full_disk_are_faults(tmp_path, monkeypatch):
    assert [each.level for each in doctor.packages()] == [Level.GOOD]
    (tmp_path / "aiokafka-0.15.1.dist-info").mkdir()
    (tmp_path / "aiokafka-0.15.1.dist-info" / "METADATA").write_text("Name: aiokafka\nVersion: 0.15.1\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert "aiokafka 0.15.1 is not 0.14.x" in doctor.packages()[-1].words
    assert doctor.disk(tmp_path, 1024**3).level is Level.GOOD
    full = doctor.disk(tmp_path, 1024**3 - 1)
    assert (full.level, "HEADWATER_WORKER_STATE_DIR" in full.mend) == (Level.BAD, True)
