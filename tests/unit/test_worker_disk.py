"""A device on a disk that is really full: a file system of sixteen megabytes. Mounting one needs root, as CI is."""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import numpy as np
import pytest

from broker_topics.errors import ConfigError
from broker_topics.layout import Layout, Tensor
from broker_topics.memory import MemoryBus
from broker_topics.memory_log import MemoryLog
from tests.fleet import make_task, running, until
from worker import LocalResult, Worker
from worker.events import Kind
from worker.outbox import OutboxFullError, SqliteOutbox
from worker.outbox_format import Owner
from worker.pacing import Limits
from worker.reporting import WorkerEvent
from worker.state import DeviceState

SIZE = 20_000
LAYOUT = Layout(tensors=(Tensor(name="w", shape=(SIZE,)),))
OWNER = Owner(task="t", client_id="w-1", layout=LAYOUT.fingerprint, size=SIZE)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system that holds 16 MiB."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
async def bus() -> AsyncIterator[MemoryBus]:
    async with MemoryBus(MemoryLog()) as bus:
        yield bus


def fill(disk: Path) -> Path:
    """Take every byte that is left."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
    return ballast


def save_often(outbox: SqliteOutbox) -> None:
    for number in range(2, 100):
        outbox.save(state_of(float(number)))


def state_of(number: float) -> DeviceState:
    return DeviceState(residual=np.full(SIZE, number, np.float32))


def test_what_was_stored_is_whole_after_the_disk_was_full(small_disk: Path) -> None:
    outbox = SqliteOutbox(small_disk / "state")
    outbox.open(OWNER)
    outbox.save(state_of(1.0))
    ballast = fill(small_disk)
    with pytest.raises(OutboxFullError, match="free space on that disk"):
        save_often(outbox)
    outbox.close()
    ballast.unlink()
    again = SqliteOutbox(small_disk / "state")
    found = again.open(OWNER)
    assert found is not None
    assert again.moved_aside is None
    assert len(set(found.residual.tolist())) == 1
    again.save(state_of(3.0))
    again.close()


def test_a_disk_that_is_full_from_the_start_is_told_with_the_mend(small_disk: Path) -> None:
    fill(small_disk)
    with pytest.raises(ConfigError, match=r"(cannot be used|cannot be opened).*") as caught:
        SqliteOutbox(small_disk / "state").open(OWNER)
    assert "space" in str(caught.value)


async def test_a_device_on_a_full_disk_waits_loses_nothing_and_goes_on_when_there_is_space(
    bus: MemoryBus, small_disk: Path
) -> None:
    await make_task(bus, "t", LAYOUT, buffer_size=1)
    told: list[WorkerEvent] = []

    def train(model: dict[str, np.ndarray], context: object) -> LocalResult:
        model["w"] += np.random.default_rng(len(told)).normal(size=SIZE).astype(np.float32)
        return LocalResult(num_examples=1, num_steps=1)

    def count(kind: Kind) -> int:
        return sum(event.kind is kind for event in told)

    worker = Worker(
        task="t",
        client_id="w-1",
        model={"w": np.zeros(SIZE, np.float32)},
        train=train,
        bus=bus,
        state_dir=small_disk / "state",
        on_event=told.append,
        limits=Limits(backoff_initial_s=0.05, backoff_max_s=0.1),
    )
    async with running(bus, "t"):
        serving = asyncio.create_task(worker.serve())
        await until(lambda: count(Kind.SETTLED) >= 1)
        ballast = fill(small_disk)
        await until(lambda: count(Kind.OUTBOX_FULL) >= 2)
        settled = count(Kind.SETTLED)
        ballast.unlink()
        await until(lambda: count(Kind.SETTLED) >= settled + 3)
        worker.stop()
        await serving
    assert count(Kind.DISCARDED) == count(Kind.OUTBOX_CORRUPT) == count(Kind.INCARNATION) == 0
    assert all(event.facts["outcome"] == "accepted" for event in told if event.kind is Kind.SETTLED)
