"""Every metric is set by the code that it speaks of; here an aggregator and its devices do what they do."""

import ast
from pathlib import Path

import pytest

from broker_topics.errors import ConfigError
from broker_topics.memory import MemoryBus
from broker_topics.memory_log import Fault, MemoryLog
from broker_topics.messages import Telemetry
from broker_topics.topics import Topic, topic_name
from monitoring.metrics import Metrics
from tests.fleet import Device, make_task, metric, running, until

TASK = "watch"
ROOT = Path(__file__).parents[2]
SETTERS = {"inc", "set", "observe", "info", "labels"}


@pytest.fixture
async def bus():
    async with MemoryBus(MemoryLog()) as bus:
        yield bus


def attributes_used() -> set[str]:
    """Every attribute that the product's code reads from anything, the registry and its stages left out."""
    files = [
        path for folder in ("aggregator", "headwater", "monitoring", "worker") for path in (ROOT / folder).rglob("*.py")
    ]
    trees = [
        ast.parse(path.read_text(encoding="utf-8")) for path in files if path.name not in ("metrics.py", "stages.py")
    ]
    return {node.attr for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


def test_no_metric_is_declared_that_no_code_touches() -> None:
    itself = {"build_info"}  # set once, where the registry is built
    names = {definition.name.removeprefix("headwater_") for definition in Metrics.definitions()} - itself
    by_stage = {"stage_duration_seconds"}  # through the context managers of `monitoring.stages`
    assert names - attributes_used() == by_stage


def test_every_label_value_that_code_names_is_used_by_some_code() -> None:
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "aggregator").rglob("*.py"))
    for definition in Metrics.definitions():
        if definition.label in {"stage", "outcome", "kind"}:
            for value in definition.values:
                by_enum = definition.name == "headwater_void_offsets_total"
                assert by_enum or f'"{value}"' in source, (definition.name, value)


async def send_telemetry(bus: MemoryBus, client_id: str, **values: object) -> None:
    report = Telemetry(client_id=client_id, task=TASK, incarnation=1, values=values)  # type: ignore[arg-type]
    topic = topic_name(TASK, Topic.TELEMETRY)
    await bus.send(topic, key=client_id.encode(), value=report.to_bytes(), partition=0)


async def test_two_updates_feed_the_metrics_of_updates_model_log_and_reconciliation(bus) -> None:
    await make_task(bus, TASK)
    a, b = Device(bus, TASK, "a"), Device(bus, TASK, "b")
    await a.enter()
    await b.enter()
    async with running(bus, TASK) as aggregator:
        await a.send(a.update(1.0).to_bytes())
        await b.send(b.update(3.0).to_bytes())
        await a.until_version(1)
        await until(lambda: metric(aggregator, "headwater_server_step_norm_count") == 1)
        await a.send(b"garbage")
        await b.send(b.update(1.0).to_bytes())
        await a.send(a.update(1.0).to_bytes())
        await a.until_version(2)
        await until(lambda: metric(aggregator, "headwater_server_step_norm_count") == 2)
        await until(lambda: metric(aggregator, "headwater_fetch_probes_total") == 1)
        value = lambda name, **labels: metric(aggregator, f"headwater_{name}", **labels)  # noqa: E731
        assert value("updates_received_total") == 5
        assert value("updates_processed_total", outcome="applied") == 4
        assert value("rejects_total", code="malformed") == 1
        assert value("cohort_updates_total", cohort="other") == 5
        assert value("cohort_updates_refused_total", cohort="other") == 1
        assert value("cohort_weight_total", cohort="other") > 0
        assert value("reconcile_gap_updates") == 0
        assert value("update_age_seconds_count") == 4
        assert value("bytes_published_total", kind="reject") > 0
        assert value("bytes_published_total", kind="delta") > 0
        assert value("consumer_lag_seconds") == 0
        assert value("buffer_size_updates") == 2
        assert value("staleness_limit_versions") == 200
        assert value("paused") == 0
        assert value("retention_seconds") == 7 * 86_400
        assert value("fetch_probe_failures_total") == 0


async def test_a_restart_knows_when_the_newest_version_and_keyframe_were_made(bus) -> None:
    await make_task(bus, TASK)
    async with running(bus, TASK) as aggregator:
        await until(lambda: metric(aggregator, "headwater_leader") == 1)
        first = bus.log.partition(topic_name(TASK, Topic.COMMITS)).read(0, 1)[0].timestamp_ms / 1000
        assert metric(aggregator, "headwater_model_published_timestamp_seconds") == first
        assert metric(aggregator, "headwater_keyframe_last_success_timestamp_seconds") == first


async def test_a_device_counts_for_the_cohort_that_it_states(bus) -> None:
    await make_task(bus, TASK)
    a = await Device(bus, TASK, "a").enter()
    async with running(bus, TASK) as aggregator:
        await until(lambda: metric(aggregator, "headwater_leader") == 1)
        await send_telemetry(bus, "a", cohort="android-14", outbox_age_seconds=3.0)
        await until(lambda: metric(aggregator, "headwater_cohort_updates_total", cohort="android-14") == 0)
        await a.send(a.update(1.0).to_bytes())
        await a.send(a.update(1.0).to_bytes())
        await a.until_version(1)
        await until(lambda: metric(aggregator, "headwater_cohort_updates_total", cohort="android-14") == 2)
        assert metric(aggregator, "headwater_cohort_updates_total", cohort="other") == 0
        assert metric(aggregator, "headwater_outbox_age_seconds_count") == 1
        assert aggregator.observer is not None
        aggregator.observer.audience.refresh(aggregator.observer.audience.forget(0.0), 0.0)


async def test_an_update_that_waits_is_as_old_as_the_log_says(bus) -> None:
    await make_task(bus, TASK, flush_deadline_s=60.0)
    a = await Device(bus, TASK, "a").enter()
    await a.send(a.update(1.0).to_bytes())
    async with running(bus, TASK) as aggregator:
        await until(lambda: (metric(aggregator, "headwater_consumer_lag_seconds") or 0) > 0.5)
        headroom = metric(aggregator, "headwater_retention_headroom_seconds")
        assert headroom is not None
        assert headroom < 7 * 86_400 - 0.5


async def test_a_keyframe_that_the_broker_refuses_is_counted_and_the_model_goes_on(bus) -> None:
    await make_task(bus, TASK, keyframe_every=1)
    refused = True

    def on_send(topic: str, partition: int, key: bytes | None, value: bytes | None) -> Fault | None:
        if refused and topic == topic_name(TASK, Topic.MODELS) and key is not None and key.endswith(b"server-0"):
            raise ConfigError("larger than the topic's max.message.bytes")
        return None

    a = await Device(bus, TASK, "a").enter()
    bus.log.on_send = on_send
    async with running(bus, TASK) as aggregator:
        for version in (1, 2):
            await a.send(a.update(1.0).to_bytes())
            await a.send(a.update(1.0).to_bytes())
            records = await a.until_version(version)
            assert not records[-1].body.keyframe
        assert metric(aggregator, "headwater_keyframe_failures_total") == 1  # the second was not tried so soon
        refused = False
        version = 2
        while not records[-1].body.keyframe:
            version += 1
            await a.send(a.update(1.0).to_bytes())
            await a.send(a.update(1.0).to_bytes())
            records = await a.until_version(version)
