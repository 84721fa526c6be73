"""Devices over a real broker: killed at any moment, cut off, started by the command that users type."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from broker_topics.errors import ConfigError, ExitCode
from broker_topics.kafka import KafkaBus
from broker_topics.local.cluster import LocalCluster
from broker_topics.messages import Update
from broker_topics.record import Decision
from broker_topics.settings import ConnectionSettings
from broker_topics.topics import Topic, topic_name
from tests.fleet import LAYOUT, chain_of, make_task, running, until
from tests.kafka.certificates import Authority
from tests.kafka.support import until_accepted
from tests.markdown import ROOT
from worker import Kind, Limits, LocalResult, TrainContext, Worker, WorkerEvent

MY_FLEET = """
import os
import numpy as np
from headwater import LocalResult, Worker

def train(model, context):
    context.stop.wait(0.05)
    for array in model.values():
        array += np.float32(0.1) * (np.float32(1) - array)
    return LocalResult(num_examples=3, num_steps=20, metrics={"loss": 1.0})

def make_worker():
    names = os.environ["WATCHES"].split(",")
    return [
        Worker(task="t", client_id=name, train=train, telemetry=False,
               model={"w": np.zeros((2, 3), np.float32), "b": np.zeros(2, np.float32)})
        for name in names
    ]

def make_nothing():
    return "a worker"
"""


@asynccontextmanager
async def connected(bootstrap: str) -> AsyncIterator[KafkaBus]:
    async with KafkaBus(ConnectionSettings(bootstrap=bootstrap)) as bus:
        yield bus


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A user's own folder, with a file whose name is also one of our packages."""
    (tmp_path / "my_fleet.py").write_text(MY_FLEET)
    (tmp_path / "worker.py").write_text("raise RuntimeError('the user’s own worker.py was imported')")
    return tmp_path


def command(
    folder: Path, bootstrap: str, task: str, *names: str, function: str = "make_worker"
) -> subprocess.Popen[str]:
    """`headwater worker` as a user starts it."""
    arguments = ["worker", "--module", f"my_fleet:{function}", "--task", task, "--bootstrap", bootstrap]
    return subprocess.Popen(
        [sys.executable, "-m", "headwater", *arguments, "--state-dir", str(folder / "state")],
        cwd=folder,
        env={**os.environ, "WATCHES": ",".join(names), "HEADWATER_LOG_FORMAT": "json"},
        stderr=subprocess.PIPE,
        text=True,
    )


async def accepted(bus: KafkaBus, task: str) -> list[Decision]:
    return [d for record in await chain_of(bus, task) for d in record.body.decisions if d.accepted]


async def acknowledged(bus: KafkaBus, task: str) -> list[Update]:
    """Every update that lies in the log."""
    topic = topic_name(task, Topic.UPDATES)
    ends = await bus.end_offsets(topic)
    reader, updates = bus.reader(topic, dict.fromkeys(ends, 0)), []
    try:
        async with asyncio.timeout(30):
            while any(reader.position(p) < end for p, end in ends.items()):
                updates += [Update.from_bytes(r.value or b"") for r in await reader.fetch(timeout_s=0.5)]
    finally:
        await reader.close()
    return updates


async def test_killed_and_started_again_a_device_goes_on_and_nothing_counts_twice(
    bootstrap: str, task_name: str, folder: Path
) -> None:
    async with connected(bootstrap) as bus:
        await make_task(bus, task_name, flush_deadline_s=0.2)
        async with running(bus, task_name):
            for round_ in range(1, 4):
                process = command(folder, bootstrap, task_name, "w-1", "w-2")
                try:
                    await until_accepted(bus, task_name, 8 * round_)
                finally:
                    process.kill()
                    process.communicate()
            before = len(await acknowledged(bus, task_name))
            process = command(folder, bootstrap, task_name, "w-1", "w-2")
            await until_accepted(bus, task_name, before + 8)  # its own: those before it may still be decided on
            process.send_signal(signal.SIGTERM)
            _, errors = await asyncio.to_thread(process.communicate, timeout=30)
            assert process.returncode == ExitCode.DONE, errors
        decisions, updates = await accepted(bus, task_name), await acknowledged(bus, task_name)
    assert len({decision.crc for decision in decisions}) == len(decisions)
    for name in ("w-1", "w-2"):
        mine = [update for update in updates if update.client_id == name]
        assert {update.incarnation for update in mine} == {1}, "no restart was taken for a copy"
        assert {u.sequence for u in mine} == set(range(1, max(u.sequence for u in mine) + 1))


async def test_a_broker_that_is_killed_and_comes_back_finds_all_the_work(
    own_broker: LocalCluster, task_name: str, tmp_path: Path
) -> None:
    events: list[WorkerEvent] = []

    def train(model: Any, context: TrainContext) -> LocalResult:
        context.stop.wait(0.02)
        model["w"] += np.float32(0.1)
        return LocalResult(num_examples=3, num_steps=20)

    def count(kind: Kind) -> int:
        return sum(event.kind is kind for event in events)

    async with connected(own_broker.bootstrap) as bus:
        await make_task(bus, task_name, flush_deadline_s=0.2)
        device = Worker(
            task=task_name,
            client_id="w-1",
            model=LAYOUT.unflatten(np.zeros(LAYOUT.size, np.float32)),
            train=train,
            bootstrap=own_broker.bootstrap,
            state_dir=tmp_path,
            on_event=events.append,
            limits=Limits(backoff_initial_s=0.1, backoff_max_s=1.0),
        )
        serving = asyncio.create_task(device.serve())
        async with running(bus, task_name):
            await until(lambda: count(Kind.SETTLED) >= 3, within_s=60)
        await own_broker.kill()
        trained = count(Kind.TRAINED)
        await until(lambda: count(Kind.TRAINED) >= trained + 20, within_s=60)
        await own_broker.restart()
        settled = count(Kind.SETTLED)
        async with running(bus, task_name):
            await until(lambda: count(Kind.SETTLED) >= settled + 3, within_s=90)
        device.stop()
        await serving
        updates = await acknowledged(bus, task_name)
    assert count(Kind.DISCARDED) == 0
    assert max(update.work for update in updates) >= 20


async def test_with_the_broker_gone_a_device_stops_in_order(
    own_broker: LocalCluster, task_name: str, folder: Path
) -> None:
    async with connected(own_broker.bootstrap) as bus:
        await make_task(bus, task_name, flush_deadline_s=0.2)
        process = command(folder, own_broker.bootstrap, task_name, "w-1")
        async with running(bus, task_name):
            await until_accepted(bus, task_name, 2)
    await own_broker.kill()
    process.send_signal(signal.SIGINT)
    _, errors = await asyncio.to_thread(process.communicate, timeout=60)
    assert process.returncode == ExitCode.DONE, errors


FIVE_LINES = """
import sys
import numpy as np
from headwater import Worker, LocalResult

def train(model, context):
    model["w"] += np.float32(context.learning_rate)
    return LocalResult(num_examples=3, num_steps=20)

model = {"w": np.zeros((2, 3), np.float32), "b": np.zeros(2, np.float32)}
Worker(task=sys.argv[1], client_id="w-17", model=model, train=train, bootstrap=sys.argv[2]).run()
print("ended in order")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_five_lines_around_one_s_own_training_are_enough(
    bootstrap: str, task_name: str, tmp_path: Path, number: signal.Signals
) -> None:
    (tmp_path / "worker.py").write_text(FIVE_LINES)  # the name that everybody gives it
    async with connected(bootstrap) as bus:
        await make_task(bus, task_name, flush_deadline_s=0.2)
        async with running(bus, task_name):
            script = subprocess.Popen(
                [sys.executable, "worker.py", task_name, bootstrap],
                cwd=tmp_path,
                env={**os.environ, "XDG_STATE_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)},
                stdout=subprocess.PIPE,
                text=True,
            )
            try:
                await until_accepted(bus, task_name, 3)
            finally:
                script.send_signal(number)
                printed, _ = await asyncio.to_thread(script.communicate, timeout=60)
    assert script.returncode == 0
    assert printed == "ended in order\n"


async def test_a_wrong_password_is_the_error_that_a_device_ends_with(
    broker: LocalCluster, authority: Authority, task_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADWATER_TLS_CA", str(authority.ca))
    monkeypatch.setenv("HEADWATER_USER", "watch")
    monkeypatch.setenv("HEADWATER_PASSWORD", "wrong-password")
    device = Worker(
        task=task_name,
        client_id="w-1",
        model=LAYOUT.unflatten(np.zeros(LAYOUT.size, np.float32)),
        train=lambda model, context: LocalResult(num_examples=1, num_steps=1),
        bootstrap=broker.address("SCRAM"),
        state_dir=tmp_path,
    )
    with pytest.raises(ConfigError, match="password"):
        await device.serve()


async def test_an_unknown_task_ends_the_command_with_the_mend(bootstrap: str, task_name: str, folder: Path) -> None:
    process = command(folder, bootstrap, task_name, "w-1")
    _, errors = await asyncio.to_thread(process.communicate, timeout=60)
    assert process.returncode == ExitCode.CONFIG
    assert "headwater task create" in errors
    assert "Traceback" not in errors


async def test_a_function_that_returns_no_worker_is_named(bootstrap: str, task_name: str, folder: Path) -> None:
    process = command(folder, bootstrap, task_name, "w-1", function="make_nothing")
    _, errors = await asyncio.to_thread(process.communicate, timeout=60)
    assert process.returncode == ExitCode.CONFIG
    assert "my_fleet:make_nothing must return a Worker or a list of them, not str" in errors


async def test_two_workers_with_one_id_are_refused(bootstrap: str, task_name: str, folder: Path) -> None:
    process = command(folder, bootstrap, task_name, "w-1", "w-1")
    _, errors = await asyncio.to_thread(process.communicate, timeout=60)
    assert process.returncode == ExitCode.CONFIG
    assert "share a client_id" in errors
