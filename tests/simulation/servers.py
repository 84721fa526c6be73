"""The aggregators of the simulation: the product's own, started again whenever one ends."""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from aggregator.restore.recovery import Accept
from aggregator.shell import Aggregator
from broker_topics.commits_log import ChainLostError
from broker_topics.errors import BusError, InputsLostError, LostRaceError
from broker_topics.follow import Follower
from monitoring.metrics import Metrics
from tests.simulation.network import TASK, Link

METRICS = Metrics()
"""Shared by all: making thousands of registries would be most of the time."""


@dataclass(slots=True, kw_only=True)
class Supervisor:
    """Keeps one aggregator running, as an operator's tool would; counts how each ended.

    may_be_overtaken: whether retention may take what this one has not read, because another has.
    was_cut: whether the log lost acknowledged data, so that the operator accepts by name to go on without it.
    """

    rng: Random
    link_up: Callable[[], Link]
    complain: Callable[[str], None]
    wall: Callable[[], float]
    may_be_overtaken: Callable[[], bool]
    was_cut: Callable[[], bool]
    accept: Accept = field(default_factory=Accept)
    ends: Counter[str] = field(default_factory=Counter)
    link: Link | None = None
    aggregator: Aggregator | None = None

    async def live(self) -> None:
        while True:
            link = self.link = self.link_up()
            identity = self.rng.randbytes(16)
            self.aggregator = Aggregator(
                bus=link, task=TASK, metrics=METRICS, now_s=self.wall, identity=identity, accept=self.accept
            )
            self.accept = Accept()
            process = asyncio.ensure_future(self.aggregator.run())
            link.on_kill = process.cancel
            try:
                await asyncio.wait([process])
            finally:
                link.kill()
            self._ended(process)
            await asyncio.sleep(self.rng.choice([0.2, 1.0, 5.0]))

    def _ended(self, process: "asyncio.Task[None]") -> None:
        if process.cancelled():
            self.ends["killed"] += 1
            return
        error = process.exception()
        self.ends[type(error).__name__ if error else "stopped"] += 1
        if isinstance(error, InputsLostError) and (self.was_cut() or self.may_be_overtaken()):
            self.accept = Accept(loss=self.was_cut(), divergence=self.was_cut())
        elif error is not None and not isinstance(error, LostRaceError | BusError):
            self.complain(f"crash: an aggregator ended with {type(error).__name__}: {error}")


@dataclass(slots=True, kw_only=True)
class Witness:
    """Follows the chain as a dashboard would, from one process to the next; what it saw must stay true.

    excused: whether records of the chain were lost, so that it may have seen what is no more.
    """

    rng: Random
    link_up: Callable[[], Link]
    complain: Callable[[str], None]
    excused: Callable[[], bool]
    version: int = 0
    seen: list[tuple[int, bytes]] = field(default_factory=list)
    link: Link | None = None

    async def live(self) -> None:
        while True:
            link = self.link = self.link_up()
            process = asyncio.ensure_future(self._follow(link))
            link.on_kill = process.cancel
            try:
                await asyncio.wait([process])
            finally:
                link.kill()
            if not process.cancelled() and (error := process.exception()) is not None:
                self.complain(f"crash: a reader ended with {type(error).__name__}: {error}")
            await asyncio.sleep(self.rng.choice([0.5, 10.0]))

    async def _follow(self, link: Link) -> None:
        follower = Follower(link, TASK)
        entered = False
        while True:
            try:
                if not entered:
                    await follower.enter()
                    entered = True
                    self._saw(follower)
                await follower.poll(timeout_s=2.0)
                self._saw(follower)
            except BusError as error:
                entered = entered and not isinstance(error, ChainLostError)
                await asyncio.sleep(1.0)

    def _saw(self, follower: Follower) -> None:
        version = follower.model.version
        if version < self.version and not self.excused():
            self.complain(f"I9: a reader saw version {self.version} and then {version}")
        self.version = version
        self.seen.append((follower.last.height, follower.last.hash))
