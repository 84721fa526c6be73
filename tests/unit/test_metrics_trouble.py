"""What goes wrong is counted, once, and by who can still be asked."""

import pytest

from aggregator.fold.outcome import Admission
from aggregator.insight.audience import Audience
from aggregator.insight.fetch_probe import FetchProbe
from broker_topics.commits_log import CommitsReader
from broker_topics.errors import RejectCode
from broker_topics.memory import MemoryBus
from broker_topics.memory_log import MemoryLog
from broker_topics.record import Decision, build
from broker_topics.topics import Topic, topic_name
from monitoring.metrics import Metrics
from tests.fleet import Device, make_task, metric, running, until
from tests.folding import genesis, vector

TASK = "watch"


@pytest.fixture
async def bus():
    async with MemoryBus(MemoryLog()) as bus:
        yield bus


async def test_who_won_a_race_counts_the_loser_once_and_a_copy_of_its_own_record_never(bus) -> None:
    await make_task(bus, TASK)
    a = await Device(bus, TASK, "a").enter()
    async with running(bus, TASK) as aggregator:
        for version in (1, 2):
            await a.send(a.update(1.0).to_bytes())
            await a.send(a.update(1.0).to_bytes())
            record = (await a.until_version(version))[-1]
        loser = build(height=record.height, parent=record.parent, writer=b"r" * 16, body=record.body)
        commits = topic_name(TASK, Topic.COMMITS)
        await bus.send(commits, key=None, value=record.data)
        await bus.send(commits, key=None, value=loser.data)
        await until(lambda: metric(aggregator, "headwater_chain_lost_races_total") == 1)
        await a.send(a.update(1.0).to_bytes())
        await a.send(a.update(1.0).to_bytes())
        await a.until_version(3)
        assert metric(aggregator, "headwater_chain_lost_races_total") == 1
    async with running(bus, TASK) as aggregator:
        await until(lambda: metric(aggregator, "headwater_leader") == 1)
        assert metric(aggregator, "headwater_chain_lost_races_total") == 0


async def test_garbage_of_other_shapes_in_the_chain_is_no_lost_race(bus) -> None:
    await make_task(bus, TASK)
    await bus.send(topic_name(TASK, Topic.COMMITS), key=None, value=b"")
    await bus.send(topic_name(TASK, Topic.COMMITS), key=None, value=b"\xff" * 200)
    reader = CommitsReader(bus, TASK)
    await reader.to_the_end()
    assert reader.lost_races == 0
    await reader.close()


async def test_void_offsets_are_part_of_the_reckoning(bus) -> None:
    await make_task(bus, TASK, flush_deadline_s=0.05)
    a = await Device(bus, TASK, "a").enter()
    where = await a.send(a.update(1.0).to_bytes())
    partition = bus.log.partition(topic_name(TASK, Topic.UPDATES), where.partition)
    partition.spoil(where.offset)
    partition.leave_gap(2)
    await a.send(a.update(1.0).to_bytes())
    async with running(bus, TASK) as aggregator:
        await a.until_version(1)
        await until(lambda: metric(aggregator, "headwater_updates_processed_total", outcome="applied") == 1)
        await until(lambda: metric(aggregator, "headwater_server_step_norm_count") == 1)
        assert metric(aggregator, "headwater_void_offsets_total", kind="control") == 2
        assert metric(aggregator, "headwater_void_offsets_total", kind="unreadable") == 1
        assert metric(aggregator, "headwater_reconcile_gap_updates") == 0


async def test_parts_that_are_gone_fail_the_probe_and_end_nothing(bus) -> None:
    await make_task(bus, TASK)
    models = bus.log.partition(topic_name(TASK, Topic.MODELS))
    reader = CommitsReader(bus, TASK)
    (first,) = await reader.to_the_end()
    metrics = Metrics()
    probe = FetchProbe(bus, TASK, metrics, lambda: first.record)
    await probe.probe()
    models.delete_before(models.end)
    await probe.probe()
    assert metrics.registry.get_sample_value("headwater_fetch_probes_total") == 2
    assert metrics.registry.get_sample_value("headwater_fetch_probe_failures_total") == 1
    await reader.close()


def audience() -> Audience:
    return Audience(Metrics(), genesis(vector(0.0, 0.0)))


def admission(client_id: str, staleness: int, code: RejectCode | None = None) -> Admission:
    decision = Decision(0, 0.0 if code else 1.0, code)
    return Admission(
        decision=decision, partition=0, offset=0, bytes=100, client_id=client_id, staleness=staleness, work=1.0
    )


def straggler_share(heard: Audience) -> float | None:
    heard.judge_recent()
    heard.refresh(heard.forget(0.0), 0.0)
    return heard.metrics.registry.get_sample_value("headwater_straggler_share")


def test_a_fleet_in_which_everybody_is_late_now_and_then_has_no_stragglers() -> None:
    heard = audience()
    for update in range(400):
        heard.decided([admission(f"w-{update % 20}", 30 if update % 17 == 0 else 3)], 0.0)
    assert straggler_share(heard) == 0.0


def test_the_one_device_that_is_usually_late_is_a_straggler_and_named() -> None:
    heard = audience()
    for update in range(400):
        heard.judge_recent()
        heard.decided([admission(f"w-{update % 20}", 3)], 0.0)
        if update % 40 == 0:
            heard.decided([admission("slow", 50)], 0.0)
    assert straggler_share(heard) == pytest.approx(1 / 21)
    assert heard.stragglers(5)[0]["client_id"] == "slow"


def test_who_was_refused_as_stale_is_a_straggler_until_it_is_accepted_again() -> None:
    heard = audience()
    for device in ("a", "b"):
        heard.decided([admission(device, 1)], 0.0)
    heard.decided([admission("a", 0, RejectCode.STALE)], 0.0)
    assert straggler_share(heard) == 0.5
    heard.decided([admission("a", 1)], 0.0)
    assert straggler_share(heard) == 0.0


def test_a_refusal_without_an_established_sender_makes_no_device() -> None:
    heard = audience()
    heard.decided([admission("", 0, RejectCode.MALFORMED)], 0.0)
    assert heard.forget(0.0) == []
