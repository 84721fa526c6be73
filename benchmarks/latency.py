"""From the send of the last update of a buffer until the version that it completes is official, as a device sees it."""

import asyncio
import time

import numpy as np

from benchmarks.backlog import send_all, updates
from benchmarks.figures import Figure, plain
from benchmarks.ingest import records
from benchmarks.place import Place

_SIZE = 262_144
_K = 5


async def latency_figures(place: Place, *, versions: int) -> list[Figure]:
    """Measure `versions` buffers of five, one after the other, with a model of 1 MB; keyframes fall in between."""
    place.say(f"last update of a buffer → version official: {versions} versions")
    async with place.task(_SIZE, buffer_size=_K, backlog_buffer_size=_K) as task:
        waiting = updates(task, _K * versions)
        async with place.aggregator(task) as aggregator:
            official = records(aggregator, task)
            seconds = []
            for _ in range(versions):
                await send_all(task, (next(waiting) for _ in range(_K - 1)))
                begin = time.perf_counter()
                _, record = await asyncio.gather(send_all(task, iter([next(waiting)])), anext(official))
                seconds.append(time.perf_counter() - begin)
                assert record.record.body.steps[0].inputs == _K
            await official.aclose()
    p50, p99 = (1e3 * float(np.quantile(seconds[1:], share)) for share in (0.5, 0.99))
    name = "last update of a buffer → version official, 1 MB model"
    return [plain(f"{name}, p50", p50, "ms"), plain(f"{name}, p99", p99, "ms")]
