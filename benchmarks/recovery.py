"""From kill -9 of the leader to the next commit: cold from Kafka, beside a local cache, and with a warm standby.

`python -m benchmarks.recovery --kills 20` gives the distribution: a model of 100 MB, a backlog of 10,000 updates that
is filled up before each kill, kills at random moments. The broker's own restart time is measured beside it.
"""

import argparse
import asyncio
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from aggregator.restore.inputs import end_vector
from benchmarks.backlog import Task, send_all, updates
from benchmarks.figures import Figure, at_most, plain, show, write
from benchmarks.place import Place
from benchmarks.process import AggregatorProcess
from broker_topics.commits_log import CommitsReader, Official
from broker_topics.local.cluster import LocalCluster

_PATIENCE_S = 120.0
_TINY_DENSITY = 1e-4
"""Of a model of 25 million numbers that is 6 KB an update: what is measured is recovery, not the backlog's bytes."""

BARS_S = {"cold": (6.0, 12.0), "cache": (2.0, 5.0), "standby": (2.0, 5.0)}
"""How the task is restored → what p50 and p99 should not exceed."""


@dataclass(slots=True)
class _Life:
    """A task under a leader that is killed again and again."""

    place: Place
    task: Task
    way: str
    backlog: int
    rng: np.random.Generator
    waiting: Iterator[tuple[bytes, bytes]]
    commits: CommitsReader = field(init=False)
    seen: Official | None = None
    processes: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def kills(self, count: int) -> list[float]:
        """Seconds from each kill to the next record."""
        self.commits = CommitsReader(self.task.bus, self.task.name)
        self.processes.push_async_callback(self.commits.close)
        seconds = []
        async with self.processes:
            leader = await self._begun()
            while len(seconds) < count:
                successor = await self._warm() if self.way == "standby" else None
                await self._filled_up()
                await self._next(leader)
                await asyncio.sleep(float(self.rng.uniform(0.0, 1.0)))
                await self._filled_up()  # a quick leader may have taken a small backlog meanwhile
                begin = time.monotonic()
                await leader.kill()
                await self._drain()
                leader = successor or self._start()
                if successor is not None:
                    leader.signal(signal.SIGUSR1)
                await self._next(leader)
                seconds.append(time.monotonic() - begin)
                self.place.say(f"{self.way}: kill {len(seconds)}: {seconds[-1]:.2f} s, load {os.getloadavg()[0]:.1f}")
        return seconds

    def _start(self, *more: str) -> AggregatorProcess:
        cache = ["--cache-dir", str(self.place.folder / "cache")] if self.way == "cache" else []
        process = self.place.aggregator(self.task, *cache, *more, preload=self.way == "standby")
        self.processes.push_async_exit(process)
        return process

    async def _begun(self) -> AggregatorProcess:
        leader = self._start()
        await self._filled_up()
        await self._next(leader)
        return leader

    async def _warm(self) -> AggregatorProcess:
        standby = self._start("--standby")
        async with asyncio.timeout(_PATIENCE_S):
            while not await standby.ready():
                standby.check()
                await asyncio.sleep(0.05)
        return standby

    async def _filled_up(self) -> None:
        """Top the backlog up, quicker than the leader takes from it: that many updates wait in the log."""
        async with asyncio.timeout(_PATIENCE_S):
            while True:
                await self._drain()
                consumed = sum(self.seen.record.body.vector) if self.seen else 0
                missing = self.backlog - (sum(await end_vector(self.task.bus, self.task.name)) - consumed)
                if missing <= self.backlog // 10:
                    return
                await send_all(self.task, (next(self.waiting) for _ in range(missing)))

    async def _next(self, leader: AggregatorProcess) -> None:
        """Wait for one more official record."""
        async with asyncio.timeout(_PATIENCE_S):
            while True:
                leader.check()
                found = await self.commits.poll(0.2)
                if found:
                    self.seen = found[-1]
                    return

    async def _drain(self) -> None:
        """What the dead one still wrote is not the next commit."""
        for official in await self.commits.catch_up():
            self.seen = official


async def recovery_figures(
    place: Place, *, megabytes: int, backlog: int, kills: int, ways: tuple[str, ...] = tuple(BARS_S)
) -> list[Figure]:
    """p50 and p99 (of so few: nearly the worst) of each way."""
    figures = []
    for way in ways:
        place.say(f"kill -9 → next commit, {way}: {megabytes} MB, backlog {backlog:,}, {kills} kills")
        async with place.task(250_000 * megabytes, keyframe_every=10) as task:
            waiting = updates(task, 400 * backlog, density=_TINY_DENSITY, kinds=4)
            life = _Life(place, task, way, backlog, np.random.default_rng(7), waiting)
            seconds = await life.kills(kills)
        shutil.rmtree(place.folder / "cache", ignore_errors=True)
        p50, p99 = (float(np.quantile(seconds, share)) for share in (0.5, 0.99))
        name = f"kill -9 → next commit, {way}, model of {megabytes} MB, backlog of {backlog:,}, {kills} kills"
        figures += [
            at_most(f"{name}: p50", p50, BARS_S[way][0], "s"),
            at_most(f"{name}: p99", p99, BARS_S[way][1], "s"),
        ]
    return figures


async def broker_figures(own: LocalCluster, kills: int) -> list[Figure]:
    """How long the broker itself takes from kill -9 until it lists all its nodes again."""
    seconds = []
    for _ in range(kills):
        begin = time.monotonic()
        await own.kill(1)
        await own.restart(1)
        seconds.append(time.monotonic() - begin)
    p50, worst = float(np.quantile(seconds, 0.5)), max(seconds)
    return [
        plain(f"the broker itself, kill -9 → ready, {kills} kills: p50", p50, "s"),
        plain(f"the broker itself, kill -9 → ready, {kills} kills: worst", worst, "s"),
    ]


async def _measure(chosen: argparse.Namespace) -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as name:
        folder = Path(name)
        async with LocalCluster(data=folder / "kafka", progress=lambda text: print(text, flush=True)) as own:
            place = Place(own.bootstrap, folder)
            figures = await recovery_figures(
                place,
                megabytes=chosen.megabytes,
                backlog=chosen.backlog,
                kills=chosen.kills,
                ways=tuple(chosen.way or BARS_S),
            )
            return figures + await broker_figures(own, min(5, chosen.kills))


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(prog="benchmarks.recovery", description="Measure kill -9 → next commit.")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--backlog", type=int, default=10_000)
    parser.add_argument("--way", choices=sorted(BARS_S), action="append", help="only this way; may be repeated")
    parser.add_argument("--out", type=Path, default=Path("report/recovery.json"))
    chosen = parser.parse_args()
    figures = asyncio.run(_measure(chosen))
    show(figures)
    write(figures, chosen.out)


if __name__ == "__main__":
    main()
