"""Keeps roles running as a supervisor does, and kills them on request."""

import asyncio
import signal
from collections.abc import Callable
from dataclasses import dataclass, field

import psutil

from aggregator.verify import Memory
from broker_topics.errors import ExitCode
from tests.kafka.support import Role

STARTS_AGAIN = {ExitCode.LOST_RACE, ExitCode.BROKER_UNREACHABLE}
"""How a role may end by itself while it is being hurt; everything else is a violation."""

_LOOK_S = 0.1


@dataclass(slots=True)
class Kept:
    """One role that is started again whenever it has ended.

    peak_bytes: the most resident memory that any life of it had. kills: how often it was killed.
    """

    name: str
    start: Callable[[], Role]
    peak_bytes: int = 0
    kills: int = 0
    ended_by_itself: list[int] = field(default_factory=list)
    _role: Role | None = None
    _wanted: bool = True
    _killing: bool = False

    @property
    def role(self) -> Role:
        """The living one, or the one that just ended."""
        if self._role is None:
            self._role = self._started()
        return self._role

    def _started(self) -> Role:
        role = self.start()
        role.may_end = True
        return role

    async def run(self) -> None:
        """Look after it for ever; raises AssertionError when it ends as it must not."""
        while self._wanted:
            status = self.role.process.poll()
            if status is None:
                self._measure()
            elif not self._killing:
                self.ended_by_itself.append(status)
                assert status in STARTS_AGAIN, f"{self.name} ended with {status}:\n{self.role.text[-2000:]}"
                self._role = self._started()
            await asyncio.sleep(_LOOK_S)

    def kill(self) -> None:
        """kill -9, and start it again at once."""
        self._killing = True
        try:
            self.role.kill()
            self.kills += 1
            self._role = self._started()
        finally:
            self._killing = False

    async def stop(self) -> None:
        """Ask it to end, and leave it so."""
        self._wanted = False  # from here on `run` returns
        status = await self.role.stop()
        young = -signal.SIGTERM  # it was started a moment ago and cannot be asked yet
        assert status in {0, young, *STARTS_AGAIN}, f"{self.name} ended with {status}:\n{self.role.text[-2000:]}"

    def memory(self, limit_bytes: int) -> Memory:
        """What it took, against what it may take."""
        return Memory(process=self.name, peak_bytes=self.peak_bytes, limit_bytes=limit_bytes)

    def _measure(self) -> None:
        try:
            self.peak_bytes = max(self.peak_bytes, psutil.Process(self.role.process.pid).memory_info().rss)
        except psutil.NoSuchProcess:
            return
