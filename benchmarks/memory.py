"""What an aggregator keeps in memory for models of several sizes, and how soon it commits again after kill -9."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.backlog import Task, send_all, updates
from benchmarks.figures import Figure, at_most, plain
from benchmarks.ingest import records
from benchmarks.place import Place
from benchmarks.process import AggregatorProcess, quantile_s
from broker_topics.backpressure import MAX_BYTES_UNDER_WAY
from broker_topics.commits_log import Official

_K = 4
_VECTORS = 4
"""x, x̂, served and the accumulator; the plain server optimizer carries nothing."""

_BUFFERS = MAX_BYTES_UNDER_WAY + 4 * 1024 * 1024
"""What sends and one fetch may hold, whatever the model: a tiny one fills neither."""

_DENSITY = 0.005
_TINY = 1024


@dataclass(frozen=True, slots=True)
class _Life:
    """Two lives of an aggregator: restore, three versions with a keyframe, kill -9, restart, a version.

    peak_bytes: of both. restart_s: from the second start to its first record. lag_s: p99 of the event loop, first life.
    """

    peak_bytes: int
    restart_s: float
    lag_s: float


async def memory_figures(place: Place, *, megabytes: tuple[int, ...]) -> list[Figure]:
    """Peak of each size, through restore, steps, a keyframe, kill -9 and the restart, above that of a tiny model."""
    base = (await _life(place, _TINY)).peak_bytes + _BUFFERS
    figures = [plain("memory base: interpreter and libraries (a model of 4 KB), 12 MiB of buffers", base / 1e6, "MB")]
    for size in megabytes:
        model = 4 * (size * 250_000)
        life = await _life(place, model // 4)
        beyond = (life.peak_bytes - base - _VECTORS * model) / model
        name = f"model of {size} MB"
        figures += [
            plain(f"{name}: peak memory", life.peak_bytes / 1e6, "MB"),
            at_most(f"{name}: peak beyond that base and {_VECTORS} vectors, against the model", beyond, 2),
            plain(f"{name}: kill -9 → next commit, start of the process included", life.restart_s, "s"),
            at_most(f"{name}: event-loop lag from the start on, p99", 1e3 * life.lag_s, 15, "ms"),
        ]
    return figures


async def _life(place: Place, size: int) -> _Life:
    place.say(f"memory and restart with {size:,} numbers")
    async with place.task(size, buffer_size=_K, backlog_buffer_size=_K, keyframe_every=2) as task:
        waiting = updates(task, 4 * _K, density=_DENSITY)
        async with place.aggregator(task) as aggregator:
            await _versions(aggregator, task, waiting, after=0, count=3)
            peak, lags = aggregator.peak_bytes(), await aggregator.lags()
            await aggregator.kill()
        begin = time.monotonic()
        async with place.aggregator(task) as again:
            await _versions(again, task, waiting, after=3, count=1)
            lag_s = quantile_s(0.99, dict.fromkeys(lags, 0.0), lags)
            return _Life(max(peak, again.peak_bytes()), time.monotonic() - begin, lag_s)


async def _versions(
    aggregator: AggregatorProcess,
    task: Task,
    waiting: Iterator[tuple[bytes, bytes]],
    *,
    after: int,
    count: int,
) -> Official:
    """Send `count` buffers and wait until they are official."""
    await send_all(task, (next(waiting) for _ in range(count * _K)))
    async for official in records(aggregator, task):
        if official.record.body.version >= after + count:
            return official
    raise AssertionError("records never end")
