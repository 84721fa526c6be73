"""`headwater stragglers` finds who lags in nothing but the log."""

import asyncio
import json

import pytest

from broker_topics.errors import BusError, ConfigError
from broker_topics.memory import MemoryBus
from broker_topics.memory_log import MemoryLog
from headwater.checkup.stragglers import read_stragglers
from headwater.cli import run
from monitoring.health import HealthServer, Readiness
from monitoring.metrics import Metrics
from tests.fleet import Device, make_task, running

TASK = "watch"


@pytest.fixture
async def bus():
    async with MemoryBus(MemoryLog()) as bus:
        yield bus


async def trained(bus, *, keyframe_every: int) -> None:
    """Nine versions: `fast` is in each twice but three times once, `slow` only then, and once with an old base."""
    await make_task(bus, TASK, keyframe_every=keyframe_every, max_staleness=1)
    fast, slow = await Device(bus, TASK, "fast").enter(), await Device(bus, TASK, "slow").enter()
    async with running(bus, TASK):
        for version in range(1, 10):
            second = slow if version in (1, 4, 7) else fast
            await fast.send(fast.update(1.0).to_bytes())
            await second.send(second.update(1.0).to_bytes())
            await asyncio.gather(fast.until_version(version), slow.until_version(version))
        await slow.send(slow.update(1.0, base_version=7, base_hash=b"x" * 8).to_bytes())
        await fast.send(fast.update(1.0).to_bytes())
        await fast.send(fast.update(1.0).to_bytes())
        await fast.until_version(10)


@pytest.mark.parametrize("keyframe_every", [4, 1000])
async def test_the_device_that_is_rarely_heard_comes_first_wherever_the_keyframe_lies(bus, keyframe_every) -> None:
    await trained(bus, keyframe_every=keyframe_every)
    rows = await read_stragglers(bus, TASK)
    assert {row.client_id for row in rows} == {"fast", "slow"}
    if keyframe_every == 4:
        assert rows[0].client_id == "slow"
        assert rows[0].times_rarer > 1 > rows[1].times_rarer


async def test_who_was_refused_as_stale_comes_first_by_staleness(bus) -> None:
    await trained(bus, keyframe_every=4)
    worst, other = await read_stragglers(bus, TASK, order="staleness")
    assert (worst.client_id, worst.stale, worst.staleness, worst.last_outcome) == ("slow", 1, 2, "stale")
    assert (other.stale, other.last_outcome) == (0, "accepted")


@pytest.mark.parametrize("keyframe_every", [4, 6])
async def test_who_is_silent_for_long_by_its_own_measure_comes_first_wherever_the_keyframe_lies(
    bus, keyframe_every
) -> None:
    await make_task(bus, TASK, keyframe_every=keyframe_every)
    one, two = await Device(bus, TASK, "one").enter(), await Device(bus, TASK, "two").enter()
    async with running(bus, TASK):
        for version in range(1, 12):
            other = two if version <= 6 else one
            await one.send(one.update(1.0).to_bytes())
            await other.send(other.update(1.0).to_bytes())
            await one.until_version(version)
            await two.until_version(version)
    silent, heard = await read_stragglers(bus, TASK, order="silence")
    assert silent.client_id == "two"
    assert silent.silent_for > 4 > heard.silent_for


async def test_an_unknown_task_is_named(bus) -> None:
    with pytest.raises(ConfigError, match="unknown to this broker"):
        await read_stragglers(bus, "nobody")


def test_a_running_aggregator_is_asked_by_its_address(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"client_id": "w-9", "late_versions_total": 17.0}]
    with HealthServer(
        Metrics().registry, heartbeat_age_s=lambda: 0.0, readiness=Readiness(), stragglers=lambda k: rows[:k]
    ) as server:
        url = f"http://127.0.0.1:{server.port}"
        assert run(["stragglers", "--task", TASK, "--url", url, "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == rows
        assert run(["stragglers", "--task", TASK, "--url", url]) == 0
        assert "w-9" in capsys.readouterr().out
    assert run(["stragglers", "--task", TASK, "--url", url]) == BusError.exit_code
    assert "leave --url out to ask the broker" in capsys.readouterr().err
