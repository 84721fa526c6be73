"""Ten thousand devices, each with a name and a cohort of its own, are not one series more than ten."""

from prometheus_client import generate_latest

from broker_topics.memory import MemoryBus
from broker_topics.memory_log import MemoryLog
from broker_topics.messages import Telemetry
from broker_topics.topics import Topic, topic_name
from monitoring.metrics import Metrics
from tests.fleet import Device, make_task, metric, running, until

TASK = "watch"
DEVICES = 10_000


async def test_ten_thousand_devices_that_are_heard_and_report_leave_the_number_of_series_bounded() -> None:
    async with MemoryBus(MemoryLog()) as bus:
        await make_task(bus, TASK, buffer_size=500, backlog_buffer_size=1000, flush_deadline_s=0.2)
        device = await Device(bus, TASK, "first").enter()
        async with running(bus, TASK) as aggregator:
            await until(lambda: metric(aggregator, "headwater_leader") == 1)
            updates, telemetry = topic_name(TASK, Topic.UPDATES), topic_name(TASK, Topic.TELEMETRY)
            for number in range(DEVICES):
                name = f"watch-{number}"
                report = Telemetry(
                    client_id=name, task=TASK, incarnation=1, values={"cohort": f"c-{number}", "train_seconds": 1.0}
                )
                key, data = name.encode(), device.update(1.0, client_id=name, sequence=1).to_bytes()
                await bus.send(telemetry, key=key, value=report.to_bytes(), partition=0)
                await bus.send(updates, key=key, value=data, partition=await bus.partition_for(updates, key))
            await until(
                lambda: metric(aggregator, "headwater_updates_processed_total", outcome="applied") == DEVICES,
                within_s=60,
            )
            await until(lambda: metric(aggregator, "headwater_train_seconds_count") == DEVICES, within_s=60)
            assert aggregator.observer is not None
            audience, now_s = aggregator.observer.audience, aggregator.now_s()
            audience.refresh(audience.forget(now_s), now_s)
            assert metric(aggregator, "headwater_clients_active", window="1h") == DEVICES
            assert metric(aggregator, "headwater_silent_share", speed="middle") == 0.0
            assert metric(aggregator, "headwater_reconcile_gap_updates") == 0
            text = generate_latest(aggregator.metrics.registry).decode()
    series = [line for line in text.splitlines() if line.startswith("headwater_")]
    assert len(series) == sum(definition.series for definition in Metrics.definitions())
    assert len(series) < 600
    assert "watch-" not in text
    assert 'cohort="c-19"' in text
    assert 'cohort="c-20"' not in text
