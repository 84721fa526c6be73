"""Keeps a fold warm beside the one that leads, and hands it over when this process is to lead."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

from aggregator.chain.cache import KeyframeCache, SpoiledCacheError
from aggregator.restore.recovery import Accept
from aggregator.restore.restart import Replica, Restored
from broker_topics.bus import Bus, OffsetGoneError
from broker_topics.commits_log import ChainLostError
from broker_topics.errors import BusError, InputsLostError
from broker_topics.models_log import PartMissingError
from broker_topics.patience import Patience
from monitoring.health import Readiness
from monitoring.logs import get_logger
from monitoring.metrics import Metrics

_POLL_S = 0.1
"""How long a standby looks at the chain before it looks whether it is to lead."""

_PAUSE_S = 0.5
_FAR_BEHIND = 50
"""Records at once that a standby may find and still count as warm."""

_AT_ONCE_S = 0.01

_ANEW = (ChainLostError, OffsetGoneError, PartMissingError, SpoiledCacheError)
"""What a replica that has entered cannot go on after."""

T = TypeVar("T")

log = get_logger("aggregator")


@dataclass(slots=True)
class Standby:
    """Restores, follows the chain until `elected`, and checks the log; a leader that need not wait follows nothing.

    patience_s: how long a broker that is away is waited for at the start and before leading.
    warm: set once the fold stands at the chain's end; whoever is not warm should not ask to lead.
    """

    bus: Bus
    task: str
    metrics: Metrics
    readiness: Readiness
    accept: Accept = field(default_factory=Accept)
    patience_s: float = 0.0
    cache: KeyframeCache | None = None
    warm: asyncio.Event = field(default_factory=asyncio.Event)
    _replica: Replica | None = None

    async def run(self, elected: asyncio.Event) -> Restored:
        """The fold at the chain's end once this process is to lead.

        Raises:  ConfigError, InputsLostError, DivergedError; BusError when patience is over.
        """
        try:
            while True:
                try:
                    replica = await self._entered()
                    await self._follow(replica, elected)
                    log.info("takeover_started", task=self.task, height=replica.height)
                    return await self._patiently(replica.lead)
                except _ANEW as error:
                    log.warning("standby_enters_anew", reason=str(error))
                    await asyncio.sleep(_PAUSE_S)
        finally:
            await self.close()

    async def close(self) -> None:
        """Give up the connections, but for what was handed over."""
        replica, self._replica = self._replica, None
        if replica is not None:
            await replica.close()

    async def _entered(self) -> Replica:
        log.info("restore_started", task=self.task)

        async def enter() -> Replica:
            await self.close()
            self._replica = replica = Replica(self.bus, self.task, accept=self.accept, cache=self.cache)
            await replica.enter()
            return replica

        return await self._patiently(enter)

    async def _follow(self, replica: Replica, elected: asyncio.Event) -> None:
        self._show(replica)
        self.warm.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(_AT_ONCE_S):  # whoever leads without a contest is told so now
                await elected.wait()
        if not elected.is_set():
            log.info("standby_warm", task=self.task, height=replica.height)
        while not elected.is_set():
            try:
                found = await replica.follow(_POLL_S)
            except _ANEW:
                raise
            except InputsLostError as error:  # retention was quicker than this standby
                raise ChainLostError(str(error)) from error
            except BusError as error:
                log.warning("broker_unreachable", reason=str(error))
                self.readiness.not_ready(f"waits for the broker: {error}")
                await asyncio.sleep(_PAUSE_S)
                continue
            if found > _FAR_BEHIND:
                self.readiness.not_ready("far behind the chain")
            elif not self.readiness.is_ready:
                self.readiness.ready()
            if found:
                self._show(replica)

    def _show(self, replica: Replica) -> None:
        self.metrics.model_version.set(replica.fold.state.model.version)
        self.metrics.chain_length.set(replica.height)

    async def _patiently(self, work: Callable[[], Awaitable[T]]) -> T:
        """What `work` gives; a broker that is away is waited for as long as it may."""
        patience = Patience(self.patience_s)
        while True:
            try:
                return await work()
            except BusError as error:
                if isinstance(error, SpoiledCacheError) or (self.warm.is_set() and isinstance(error, _ANEW)):
                    raise
                log.warning("broker_unreachable", reason=str(error), patience_s=self.patience_s)
                self.readiness.restoring(f"waits for the broker: {error}")
                await patience.after(error)
