"""The demo as a stranger runs it, short: a killed aggregator comes back, and the kept log replays to the same model."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from aggregator.restore.replay import replay
from aggregator.verify import verify
from broker_topics.kafka import KafkaBus
from broker_topics.local.cluster import LocalCluster
from broker_topics.settings import ConnectionSettings

pytestmark = pytest.mark.timeout(400)


def demo(out: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "headwater", "demo", "--out", str(out), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


async def role(out: Path, name: str, *, other_than: int | None = None) -> int:
    """The pid of a role, once it runs."""
    async with asyncio.timeout(180):
        while True:
            if (out / "roles.json").exists():
                pid = json.loads((out / "roles.json").read_text())[name]
                if pid is not None and pid != other_than:
                    return pid
            await asyncio.sleep(0.1)


async def version_reached(bootstrap: str, task: str, version: int) -> None:
    from broker_topics.follow import Follower

    async with KafkaBus(ConnectionSettings(bootstrap=bootstrap)) as bus, asyncio.timeout(180):
        follower = Follower(bus, task)
        await follower.enter()
        while follower.model.version < version:
            await follower.poll(timeout_s=1.0)
        await follower.close()


async def test_a_killed_aggregator_comes_back_and_the_kept_log_replays_to_the_model_of_the_report(tmp_path):
    out = tmp_path / "report"
    process = demo(out, "--keep", "--max-seconds", "240")
    plan_file = out / "data" / "plan.json"
    first = await role(out, "aggregator")
    plan = json.loads(plan_file.read_text())
    await version_reached(plan["bootstrap"], plan["task"], 3)
    os.kill(first, signal.SIGKILL)
    assert await role(out, "aggregator", other_than=first) != first
    await version_reached(plan["bootstrap"], plan["task"], 10)
    process.send_signal(signal.SIGINT)  # a stranger who has seen enough
    text, _ = await asyncio.to_thread(process.communicate, None, 300)
    assert process.returncode in (0, 1), text

    summary = json.loads((out / "summary.json").read_text())
    assert summary["restarts"] == {"aggregator": 1}
    assert summary["updates_accepted"] > 20
    assert summary["updates_refused"] == 0
    assert summary["uplink_bytes_float32"] > 200 * summary["uplink_bytes"]
    assert {path.suffix for path in out.iterdir() if path.is_file()} == {".json", ".png"}
    async with (
        LocalCluster(data=out / "data" / "kafka") as cluster,
        KafkaBus(ConnectionSettings(bootstrap=cluster.bootstrap)) as bus,
    ):
        replayed = await replay(bus, summary["task"])
        verdict = await verify(bus, summary["task"])
    assert verdict.violations == []
    assert replayed.served_hash.hex() == summary["served_hash"]
    assert replayed.chain_head.hex() == summary["chain_head"]
    assert replayed.accepted == summary["updates_accepted"]


async def test_on_ones_own_kafka_the_topics_stay_and_two_wearers_may_be_kept_out(tmp_path, bootstrap):
    out = tmp_path / "report"
    process = demo(out, "--bootstrap", bootstrap, "--held-out", "wearers", "--max-seconds", "12")
    text, _ = await asyncio.to_thread(process.communicate, None, 200)
    summary = json.loads((out / "summary.json").read_text())
    assert process.returncode in (0, 1), text
    assert (summary["held_out"], summary["devices"]) == ("wearers", 16)
    assert f"headwater replay --task {summary['task']} --bootstrap {bootstrap}" in text
    async with KafkaBus(ConnectionSettings(bootstrap=bootstrap)) as bus:
        replayed = await replay(bus, summary["task"])
    assert replayed.accepted == summary["updates_accepted"] > 5
    assert replayed.chain_head.hex() == summary["chain_head"]


async def test_the_demo_without_a_broker_trains_in_one_process_and_says_that_the_target_was_missed(tmp_path):
    out = tmp_path / "report"
    process = demo(out, "--broker", "memory", "--max-seconds", "8")
    text, _ = await asyncio.to_thread(process.communicate, None, 200)
    summary = json.loads((out / "summary.json").read_text())
    assert process.returncode == 1, text
    assert summary["updates_accepted"] > 5
    assert summary["seconds_to_target"] is None
    assert "not reached" in text
