"""Ways to hurt a running fleet for real, each as an operator would meet it."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from broker_topics.errors import ExitCode
from broker_topics.kafka import KafkaBus
from broker_topics.settings import ConnectionSettings
from broker_topics.topics import UPDATE_PARTITIONS, Topic, topic_name
from tests.kafka.live import Live
from tests.kafka.support import Role


@contextmanager
def in_background(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Run something in a thread that ends when its event is set, at the end of the block."""
    stop = threading.Event()
    thread = threading.Thread(target=work, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def poisoned(bootstrap: str, task: str, *, at_once: int = 1) -> Iterator[None]:
    """Garbage in every partition of updates, fifty times a second so many, while the block runs."""

    async def pour(stop: threading.Event) -> None:
        topic, number = topic_name(task, Topic.UPDATES), 0
        async with KafkaBus(ConnectionSettings(bootstrap=bootstrap)) as bus:
            while not stop.is_set():
                number += at_once
                places = ((number + k) % UPDATE_PARTITIONS for k in range(at_once))
                await asyncio.gather(*(bus.send(topic, key=b"m", value=os.urandom(64), partition=p) for p in places))
                await asyncio.sleep(0.02)

    with in_background(lambda stop: asyncio.run(pour(stop))):
        yield


@contextmanager
def throttled(role: Role, *, share: float) -> Iterator[None]:
    """A process that gets only a share of the time, as under a CPU limit that is too small."""

    def halve(stop: threading.Event) -> None:
        while not stop.is_set():
            role.send(signal.SIGSTOP)
            time.sleep(0.2 * (1 - share))
            role.send(signal.SIGCONT)
            time.sleep(0.2 * share)

    with in_background(halve):
        yield


def refuse_keyframes(bootstrap: str, task: str) -> None:
    """Let the models topic take nothing much larger than a delta: Kafka refuses every keyframe."""

    async def alter() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
        await admin.start()
        try:
            settings = {"max.message.bytes": "4096", "cleanup.policy": "compact"}
            topic = topic_name(task, Topic.MODELS)
            await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, settings)])
        finally:
            await admin.close()

    asyncio.run(alter())


class Rivals:
    """Two aggregators of one task, each started again whenever it lost, as two supervisors would."""

    def __init__(self, live: Live, second_port: int) -> None:
        self._live, self._second_port = live, second_port
        self._roles = {live.port: live.aggregator, second_port: self._start(second_port)}
        self.lost = 0

    def keep_both(self) -> None:
        """Start again what ended; it may end for one reason only."""
        for port, role in self._roles.items():
            if role.process.poll() is not None:
                assert role.process.returncode == ExitCode.LOST_RACE, role.text
                self.lost += 1
                self._roles[port] = self._start(port)

    def end_one(self) -> None:
        """Leave the first to itself, running."""
        self._roles.pop(self._second_port).kill()
        self.keep_both()
        self._live.aggregator = self._roles[self._live.port]

    def _start(self, port: int) -> Role:
        role = self._live.fleet.start("aggregator", "--listen-port", str(port))
        role.may_end = True
        return role
