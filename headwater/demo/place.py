"""Where a run of the demo happens: its folder, and its log in a Kafka of its own, one's own Kafka, or memory."""

import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console

from broker_topics.bus import Bus
from broker_topics.kafka import KafkaBus
from broker_topics.local.cluster import LocalCluster
from broker_topics.memory import MemoryBus
from broker_topics.memory_log import MemoryLog
from headwater.demo.data import HeldOut
from headwater.prepared import connection
from monitoring.logs import configure


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line asked for; `bootstrap` is one's own Kafka, None brings one along."""

    out: Path
    seed: int
    held_out: HeldOut
    broker: Literal["kafka", "memory"]
    bootstrap: str | None
    keep: bool
    max_seconds: float


@dataclass(slots=True)
class Place:
    """Where the log is: a Kafka somewhere, or memory."""

    name: str
    bootstrap: str
    bus: Bus
    memory: MemoryLog | None = None
    cluster: LocalCluster | None = None


@asynccontextmanager
async def open_folder(options: Options) -> AsyncIterator[Path]:
    """The folder of broker and devices; deleted at the end unless it is to be kept."""
    options.out.mkdir(parents=True, exist_ok=True)
    if options.keep:
        folder = (options.out / "data").absolute()
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="headwater-demo-", ignore_cleanup_errors=True) as name:
        yield Path(name)


@asynccontextmanager
async def open_place(options: Options, folder: Path, console: Console) -> AsyncIterator[Place]:
    """The broker that the run needs, started if it is ours."""
    if options.broker == "memory":
        log = MemoryLog()
        async with MemoryBus(log) as bus:
            yield Place("memory", "", bus, memory=log)
        return
    async with AsyncExitStack() as stack:
        cluster = None
        if options.bootstrap is None:
            cluster = LocalCluster(data=folder / "kafka", progress=lambda line: console.print(line, highlight=False))
            await stack.enter_async_context(cluster)
        settings = connection(cluster.bootstrap if cluster else options.bootstrap)
        configure(level="error")
        kafka = KafkaBus(settings)
        await kafka.start()
        stack.push_async_callback(kafka.close)
        yield Place(f"Apache Kafka at {settings.bootstrap}", settings.bootstrap, kafka, cluster=cluster)


def how_to_go_on(options: Options, place: Place, task: str, folder: Path) -> str:
    """What a watcher can do next with what the run left behind."""
    if place.memory is not None:
        return "The log was in memory and is gone; without --broker memory it lies in Kafka and can be replayed."
    replay = f"headwater replay --task {task}"
    if place.cluster is None:
        return f"The task's topics are still there: {replay} --bootstrap {place.bootstrap}"
    if options.keep:
        return f"Kept: headwater broker up --data {folder / 'kafka'}   then   {replay}"
    return "The broker's data are deleted; with --keep they stay, and `headwater replay` derives the model again."
