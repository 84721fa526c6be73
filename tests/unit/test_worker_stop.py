"""A device that is stopped while it trains, or while its outbox is being written."""

import asyncio
import threading
from pathlib import Path

import numpy as np

from broker_topics.memory import MemoryBus
from broker_topics.memory_log import MemoryLog
from broker_topics.topics import Topic, topic_name
from tests.fleet import LAYOUT, make_task, running
from worker import LocalResult, TrainContext, Worker
from worker.outbox import SqliteOutbox
from worker.state import DeviceState


class SlowOutbox(SqliteOutbox):
    """The first save of a decision takes until the next one begins, or half a second."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.begun, self.overtaken = threading.Event(), threading.Event()
        self.inside = 0

    def save(self, state: DeviceState) -> None:
        if self.inside:
            self.overtaken.set()
        self.inside += 1
        if state.tally.updates_accepted and not self.begun.is_set():
            self.begun.set()
            self.overtaken.wait(0.5)
        super().save(state)
        self.inside -= 1


class DeafToTelemetry(MemoryBus):
    """What a device says of itself never arrives."""

    async def partition_for(self, topic: str, key: bytes) -> int:
        if topic == topic_name("watch", Topic.TELEMETRY):
            await asyncio.Event().wait()
        return await super().partition_for(topic, key)


async def test_a_device_that_is_stopped_in_the_middle_of_a_store_ends_it_before_the_next(tmp_path: Path) -> None:
    def train(model: dict[str, np.ndarray], context: TrainContext) -> LocalResult:
        model["b"] += np.float32(0.1)
        return LocalResult(num_examples=3, num_steps=20)

    model = {tensor.name: np.zeros(tensor.shape, np.float32) for tensor in LAYOUT.tensors}
    outbox = SlowOutbox(tmp_path)
    async with MemoryBus(MemoryLog()) as bus:
        await make_task(bus, "watch", buffer_size=1)
        worker = Worker(task="watch", client_id="a", model=model, train=train, bus=bus, outbox=outbox)
        async with running(bus, "watch"):
            life = asyncio.create_task(worker.serve())
            assert await asyncio.to_thread(outbox.begun.wait, 10)
            worker.stop()
            await life
    assert not outbox.overtaken.is_set()


async def test_a_device_that_is_stopped_while_it_trains_leaves_nothing_running(tmp_path: Path) -> None:
    begun, stopped = threading.Event(), threading.Event()

    def train(model: dict[str, np.ndarray], context: TrainContext) -> LocalResult:
        begun.set()
        stopped.wait(10)
        model["b"] += np.float32(0.1)
        return LocalResult(num_examples=3, num_steps=20)

    model = {tensor.name: np.zeros(tensor.shape, np.float32) for tensor in LAYOUT.tensors}
    async with DeafToTelemetry(MemoryLog()) as bus:
        await make_task(bus, "watch", buffer_size=1)
        worker = Worker(task="watch", client_id="a", model=model, train=train, bus=bus, outbox=SqliteOutbox(tmp_path))
        before = asyncio.all_tasks()
        life = asyncio.create_task(worker.serve())
        assert await asyncio.to_thread(begun.wait, 10)
        worker.stop()
        await asyncio.sleep(0)
        stopped.set()
        await life
        assert asyncio.all_tasks() - before == set()
