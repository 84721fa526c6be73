"""What scenarios stand on: a broker, a folder, chance from a seed, and the count of runs and violations."""

import asyncio
import time
import traceback
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np

from broker_topics.kafka import KafkaBus
from broker_topics.local.cluster import LocalCluster
from broker_topics.settings import ConnectionSettings
from tests.kafka.support import Fleet, fleet_in

_SHOWN_CHARACTERS = 3_000


def new_task() -> str:
    """A name that no other task has."""
    return f"t-{uuid.uuid4().hex[:12]}"


@dataclass(slots=True)
class Ground:
    """One soak, or one test of continuous integration.

    Args:    bootstrap: a broker that stays up and that all may share; started when it is first wanted if None.
             seconds: how long scenarios last that could go on for ever. seed: where all chance comes from.
             again: the command that repeats a scenario, for messages. plant: a bug in every process of a fleet.
    """

    folder: Path
    bootstrap: str | None = None
    seconds: float = 60.0
    seed: int = 7
    say: Callable[[str], None] = lambda line: None
    again: str = ""
    plant: str = ""
    runs: int = 0
    violations: list[str] = field(default_factory=list)
    _began: float = field(default_factory=time.monotonic)
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()

    def rng(self, *name: object) -> np.random.Generator:
        """Chance for one purpose: the same for the same seed and name, whatever else has run."""
        return np.random.default_rng([self.seed, *"/".join(map(str, name)).encode()])

    async def shared(self) -> str:
        """The address of a broker that nobody hurts."""
        if self.bootstrap is None:
            cluster = LocalCluster(data=self.folder / "kafka")
            self.bootstrap = (await self._stack.enter_async_context(cluster)).bootstrap
        return self.bootstrap

    @asynccontextmanager
    async def fleet(self, bootstrap: str) -> AsyncIterator[tuple[Fleet, KafkaBus]]:
        """A folder with a fleet of a task of its own, and a connection; all its processes are gone at the end."""
        task = new_task()
        folder = self.folder / task
        folder.mkdir()
        with fleet_in(folder, bootstrap, task) as fleet:
            fleet.plant = self.plant
            async with KafkaBus(ConnectionSettings(bootstrap=bootstrap)) as bus:
                yield fleet, bus

    @asynccontextmanager
    async def run(self, name: str) -> AsyncIterator[None]:
        """One run: counted, and every error in it is a violation; the scenario goes on behind it."""
        began, before = time.monotonic(), len(self.violations)
        try:
            yield
        except Exception as error:
            for one in _leaves(error):
                frames = traceback.extract_tb(one.__traceback__)
                where = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames[-4:]))
                self.broken(name, f"{type(one).__name__} ({where}): {str(one)[:_SHOWN_CHARACTERS]}")
        self.runs += 1
        found = len(self.violations) - before
        result = f"{found} VIOLATIONS" if found else "ok"
        self.say(f"[{time.monotonic() - self._began:5.0f} s] {name}: {result}, {time.monotonic() - began:.1f} s")

    def broken(self, name: str, what: str) -> None:
        """Note a violation."""
        self.violations.append(f"{name}: {what}")
        self.say(f"VIOLATION {name}: {what}\n  again: {self.again}")

    def within(self, seconds: float) -> Callable[[], bool]:
        """A function that says whether the time, counted from now, is not over."""
        end = asyncio.get_running_loop().time() + seconds
        return lambda: asyncio.get_running_loop().time() < end


def _leaves(error: Exception) -> list[Exception]:
    """An error, or all that are in a group of them."""
    if isinstance(error, ExceptionGroup):
        return [leaf for one in error.exceptions for leaf in _leaves(one)]
    return [error]
