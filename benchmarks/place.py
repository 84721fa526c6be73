"""Where measurements on a real Kafka happen: the broker, a folder for logs, and tasks that are deleted afterwards."""

import sys
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.backlog import Task, forget_task, make_task
from benchmarks.process import AggregatorProcess
from broker_topics.kafka import KafkaBus
from broker_topics.settings import ConnectionSettings


@dataclass(frozen=True, slots=True)
class Place:
    """A broker to measure on, and a folder for what the processes log."""

    bootstrap: str
    folder: Path
    _begin: float = field(default_factory=time.monotonic)

    @asynccontextmanager
    async def task(self, size: int, **settings: object) -> AsyncIterator[Task]:
        """A task with a model of `size` numbers and a connection of its own, while the block runs."""
        name = f"bench-{uuid.uuid4().hex[:8]}"
        try:
            async with KafkaBus(ConnectionSettings(bootstrap=self.bootstrap)) as bus:
                yield await make_task(bus, name, size, **settings)
        finally:
            await forget_task(self.bootstrap, name)

    def aggregator(self, task: Task, *more: str, preload: bool = True) -> AggregatorProcess:
        """An aggregator of the task, as a process of its own; `more` are options of its command line."""
        return AggregatorProcess(self.bootstrap, task.name, self.folder / f"{task.name}.log", *more, preload=preload)

    def say(self, text: str) -> None:
        """Show what is being done."""
        print(f"{time.monotonic() - self._begin:5.0f} s  {text}", file=sys.stderr, flush=True)
