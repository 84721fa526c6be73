"""How fast a backlog goes into the model, against a consumer that only reads it; and how late the event loop gets.

The aggregator is the command that operators type, in a process of its own, and everything is included: fetching, gate,
decoding, folding, server steps, parts, records read back. Both rates are taken from the first batch on, in one run.
"""

import asyncio
import sys
from collections.abc import AsyncGenerator

from benchmarks.backlog import Task, send_all, updates
from benchmarks.figures import Figure, at_least, at_most, plain
from benchmarks.place import Place
from benchmarks.process import AggregatorProcess, quantile_s
from broker_topics.commits_log import CommitsReader, Official
from broker_topics.task import TaskSettings
from broker_topics.topics import Topic, topic_name

_PROMISED = 1_270_000
"""Numbers of a model whose updates at 1 % density have 15 KB: the promise is about those."""

_STALL_S = 120.0


async def ingest_figures(place: Place, *, size: int, count: int) -> list[Figure]:
    """Measure `count` updates of as many devices, prepared beforehand, with the settings that a task has by itself."""
    place.say(f"ingest, n = {size:,}: preparing {count:,} updates")
    async with place.task(size) as task:
        name = f"ingest, n = {size:,}, {await send_all(task, updates(task, count)) / count / 1000:.1f} KB updates"
        topic = topic_name(task.name, Topic.UPDATES)
        place.say(f"{name}: measuring")
        bare = [await _bare(place.bootstrap, topic)]
        async with place.aggregator(task) as aggregator:
            rate, lag_s = await _rate(aggregator, task, count - TaskSettings().backlog_buffer_size)
        bare.append(await _bare(place.bootstrap, topic))
    mean = sum(bare) / len(bare)
    against = f"{name}: against a bare consumer"
    return [
        at_least(against, rate / mean, 0.5) if size == _PROMISED else plain(against, rate / mean, "×"),
        plain(f"{name}: updates", rate, "updates/s"),
        plain(f"{name}: bare consumer of the same topic", mean, "updates/s"),
        at_most(f"{name}: event-loop lag, p99", 1e3 * lag_s, 15, "ms"),
    ]


async def _bare(bootstrap: str, topic: str) -> float:
    arguments = ["-m", "benchmarks.consumer", bootstrap, topic]
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    return float(out)


async def _rate(aggregator: AggregatorProcess, task: Task, wanted: int) -> tuple[float, float]:
    """Inputs per second from the first record to the one that reaches `wanted`, by the log's clock; and the lag."""
    decided, begin_ms, before = 0, 0, None
    async for official in records(aggregator, task):
        decided += len(official.record.body.decisions)
        if before is None:
            first, begin_ms, before = decided, official.timestamp_ms, await aggregator.lags()
        elif decided >= wanted:
            after = await aggregator.lags()
            return 1e3 * (decided - first) / (official.timestamp_ms - begin_ms), quantile_s(0.99, before, after)
    raise AssertionError("records never end")


async def records(aggregator: AggregatorProcess, task: Task) -> AsyncGenerator[Official, None]:
    """The official records after the genesis, as they come, while the aggregator lives."""
    commits = CommitsReader(task.bus, task.name)
    try:
        async with asyncio.timeout(_STALL_S):
            while True:
                aggregator.check()
                for official in await commits.poll(1.0):
                    if official.record.height:
                        yield official
    finally:
        await commits.close()
