"""The status of a task from nothing but its log: what it reads, and when it says that somebody must act."""

import io
import json
import math
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from aggregator.insight.telemetry import EVALUATOR
from broker_topics.errors import ConfigError
from broker_topics.memory import MemoryBus
from broker_topics.memory_log import MemoryLog
from broker_topics.messages import Control, Telemetry
from broker_topics.topics import Topic, topic_name
from headwater.checkup.facts import Facts, Slow, read_facts
from headwater.checkup.finding import Level, as_json, healthy
from headwater.checkup.neighbour import Neighbour, ask
from headwater.checkup.status import judge, screen
from headwater.checkup.tail import Scored
from headwater.commands.control import send_until_decided
from monitoring.health import HealthServer, Readiness
from monitoring.metrics import Metrics
from tests.fleet import Device, make_task, running

TASK = "watch"
URL = "http://127.0.0.1:9464"
DAY_S = 86_400.0

WELL = Facts(
    task=TASK,
    version=158,
    height=160,
    head="9bc3d4458fcb3aad" * 4,
    record_age_s=2.0,
    version_age_s=2.0,
    versions_a_minute=120.0,
    keyframe_version=100,
    keyframe_age_s=40.0,
    unreadable="",
    paused=False,
    flush_deadline_s=5.0,
    lag=[0] * 12,
    lost=0,
    retention_s=7 * DAY_S,
    oldest_needed_s=40.0,
    accepted=290,
    refused=0,
    refusals={},
    refused_devices=[],
    devices=20,
    population=20.0,
    buffer_size=5,
    slow=[Slow(client_id="w-17", times_rarer=9.5, versions_ago=40, silent_s=8.0)],
    scored=Scored(version=157, scores={"accuracy": 0.94}, age_s=3.0),
)
READY = Neighbour(url=URL, ready=True, reason="ready", task=TASK, leader=True)


def levels(facts: Facts, neighbour: Neighbour | None = READY, *, insists: bool = False) -> dict[str, Level]:
    return {found.check: found.level for found in judge(facts, URL, neighbour, insists=insists)}


def words(facts: Facts, check: str, neighbour: Neighbour | None = READY) -> str:
    found = next(found for found in judge(facts, URL, neighbour, insists=False) if found.check == check)
    return f"{found.words} → {found.mend}"


@pytest.fixture
async def bus():
    async with MemoryBus(MemoryLog()) as bus:
        yield bus


async def trained(bus, *, versions: int, **settings: Any) -> None:
    """A task with two devices that were heard in every version."""
    await make_task(bus, TASK, **settings)
    a, b = [await Device(bus, TASK, name).enter() for name in ("a", "b")]
    async with running(bus, TASK):
        for version in range(1, versions + 1):
            await a.send(a.update(1.0).to_bytes())
            await b.send(b.update(1.0).to_bytes())
            await a.until_version(version)
            await b.until_version(version)


def test_a_task_in_order_is_healthy_in_every_respect():
    assert set(levels(WELL).values()) == {Level.GOOD}


@pytest.mark.parametrize(
    ("change", "check"),
    [
        ({"lag": [0] * 11 + [3], "record_age_s": 61.0}, "progress"),
        ({"lost": 7}, "log"),
        ({"unreadable": "a part is gone"}, "keyframe"),
        ({"oldest_needed_s": 4 * DAY_S}, "retention"),
        ({"accepted": 70, "refused": 30}, "refusals"),
    ],
)
def test_each_of_these_alone_makes_somebody_act(change, check):
    found = judge(replace(WELL, **change), URL, READY, insists=False)
    assert [each.check for each in found if each.level is Level.BAD] == [check]
    assert all(each.mend for each in found if each.level is Level.BAD)
    assert not healthy(found)


@pytest.mark.parametrize(
    "change",
    [
        {"lag": [0] * 11 + [3], "record_age_s": 59.0},
        {"lag": [0] * 11 + [3], "record_age_s": 100.0, "flush_deadline_s": 60.0},
        {"lag": [0] * 11 + [3], "record_age_s": 9000.0, "paused": True},
        {"record_age_s": 9000.0},
        {"oldest_needed_s": 3 * DAY_S},
        {"retention_s": math.inf, "oldest_needed_s": 400 * DAY_S},
        {"retention_s": None},
        {"accepted": 5, "refused": 14},
        {"accepted": 81, "refused": 19},
        {"scored": None},
    ],
)
def test_none_of_these_makes_somebody_act(change):
    assert healthy(judge(replace(WELL, **change), URL, READY, insists=False))


def test_an_aggregator_that_does_not_answer_is_a_fault_only_where_it_was_named():
    assert levels(WELL, None)["aggregator"] is Level.NOTE
    assert levels(WELL, None, insists=True)["aggregator"] is Level.BAD


def test_an_aggregator_that_is_not_ready_or_serves_another_task_is_told_apart():
    assert levels(WELL, replace(READY, ready=False, reason="starting"))["aggregator"] is Level.BAD
    assert levels(WELL, replace(READY, task="other", ready=False))["aggregator"] is Level.NOTE


def test_the_words_name_numbers_and_the_mend():
    behind = replace(WELL, lag=[0] * 11 + [3], record_age_s=90.0)
    assert words(behind, "progress").startswith("3 updates wait, and nothing was decided for 90 s")
    assert "headwater aggregator --task watch" in words(behind, "progress")
    refused = replace(WELL, accepted=1, refused=40, refusals={"stale": 40}, refused_devices=["w-3"])
    assert "40 of 41 updates" in words(refused, "refusals")
    assert "stale 40; most by w-3" in words(refused, "refusals")


def test_one_screen_of_eighty_columns_holds_it_all():
    shown = io.StringIO()
    Console(file=shown, width=80).print(screen(WELL, judge(WELL, URL, READY, insists=False)))
    lines = shown.getvalue().splitlines()
    assert len(lines) <= 24
    assert max(len(line) for line in lines) <= 80
    assert "✓ healthy" in lines[0]
    assert any("w-17" in line and "9.5×" in line for line in lines)


def test_the_json_says_the_same():
    found = json.loads(as_json(TASK, judge(replace(WELL, lost=1), URL, READY, insists=False)))
    assert found["healthy"] is False
    assert {row["check"]: row["level"] for row in found["findings"]}["log"] == "bad"


async def test_the_log_alone_tells_how_far_a_task_is(bus):
    await trained(bus, versions=5, keyframe_every=2)
    a = await Device(bus, TASK, "a").enter()
    await a.send(b"never decided on")
    facts = await read_facts(bus, TASK)
    assert (facts.version, facts.height, facts.keyframe_version) == (5, 5, 4)
    assert (facts.accepted, facts.refused, sum(facts.lag), facts.lost) == (2, 0, 1, 0)
    assert {slow.client_id for slow in facts.slow} == {"a", "b"}
    assert facts.retention_s == 7 * DAY_S
    assert not facts.unreadable
    assert healthy(judge(facts, URL, None, insists=False))


async def test_refusals_carry_their_code_and_device(bus):
    await make_task(bus, TASK, flush_deadline_s=0.05)
    a = await Device(bus, TASK, "a").enter()
    async with running(bus, TASK):
        await a.send(a.update(1.0, layout=7).to_bytes())
        await a.send(a.update(1.0).to_bytes())
        await a.until_version(1)
    facts = await read_facts(bus, TASK)
    assert (facts.refusals, list(facts.refused_devices), facts.refused) == ({"unknown_layout": 1}, ["a"], 1)


async def test_a_pause_is_seen_and_so_is_its_end(bus):
    await trained(bus, versions=1)
    async with running(bus, TASK):
        await send_until_decided(bus, TASK, Control(command="pause"))
    assert (await read_facts(bus, TASK)).paused
    async with running(bus, TASK):
        await send_until_decided(bus, TASK, Control(command="resume"))
    assert not (await read_facts(bus, TASK)).paused


async def test_updates_that_retention_took_unread_are_counted(bus):
    await trained(bus, versions=1)
    a = await Device(bus, TASK, "a").enter()
    where = await a.send(b"first")
    await a.send(b"second")
    bus.log.partition(topic_name(TASK, Topic.UPDATES), where.partition).delete_before(where.offset + 2)
    facts = await read_facts(bus, TASK)
    assert facts.lost == 2
    assert not healthy(judge(facts, URL, None, insists=False))


async def test_the_newest_evaluation_is_found_among_other_telemetry(bus):
    await make_task(bus, TASK)
    topic = topic_name(TASK, Topic.TELEMETRY)
    partition = await bus.partition_for(topic, EVALUATOR.encode())
    for name, accuracy in ((EVALUATOR, 0.5), (EVALUATOR, 0.75), ("w-1", 0.1)):
        report = Telemetry(
            client_id=name, task=TASK, incarnation=1, values={"version": int(100 * accuracy), "accuracy": accuracy}
        )
        await bus.send(topic, key=name.encode(), value=report.to_bytes(), partition=partition)
    scored = (await read_facts(bus, TASK)).scored
    assert scored is not None
    assert (scored.version, dict(scored.scores)) == (75, {"accuracy": 0.75})


async def test_a_keyframe_whose_parts_are_gone_is_said(bus):
    await trained(bus, versions=1)
    models = bus.log.partition(topic_name(TASK, Topic.MODELS), 0)
    models.delete_before(models.end)
    facts = await read_facts(bus, TASK)
    assert facts.unreadable
    assert not healthy(judge(facts, URL, None, insists=False))


async def test_an_unknown_task_is_a_clear_error(bus):
    with pytest.raises(ConfigError, match="headwater task create"):
        await read_facts(bus, "nobody")


def test_an_aggregator_is_asked_over_its_port():
    metrics, readiness = Metrics(task=TASK), Readiness()
    with HealthServer(metrics.registry, heartbeat_age_s=lambda: 0.0, readiness=readiness) as server:
        url = f"http://127.0.0.1:{server.port}"
        assert ask(url) == Neighbour(url=url, ready=False, reason="starting", task=TASK, leader=False)
        readiness.ready()
        metrics.leader.set(1)
        assert ask(url) == Neighbour(url=url, ready=True, reason="ready", task=TASK, leader=True)
    assert ask(url) is None


@pytest.mark.parametrize("url", ["127.0.0.1:9464", "https://a:1", "http://a:x", "http://a:1/metrics", "file:///etc"])
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(ConfigError, match="http://HOST:PORT"):
        ask(url)
