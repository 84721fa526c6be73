"""What every role's process does alike: connect, serve until a signal, close in order."""

import asyncio
import gc
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from typing import TypeVar

from broker_topics.bus import Bus
from broker_topics.errors import BusError
from broker_topics.kafka import KafkaBus
from broker_topics.patience import Patience
from broker_topics.settings import ConnectionSettings
from headwater.sections import AggregatorSettings
from monitoring.health import HealthServer, Readiness, Stragglers
from monitoring.logs import get_logger
from monitoring.loop_lag import EventLoopLag
from monitoring.metrics import Metrics
from monitoring.page.history import History
from monitoring.page.page import FleetPage
from monitoring.page.picture import Picture

T = TypeVar("T")

_TURN_S = 0.001
"""What a thread may keep the interpreter for while the event loop wants it, which asks several times a turn of its own;
Python's own five milliseconds each add up."""

log = get_logger("process")


def with_bus(settings: ConnectionSettings, work: Callable[[Bus], Awaitable[T]]) -> T:
    """Connect, do one piece of work, close; Ctrl-C ends it in order."""

    async def main() -> T:
        async with KafkaBus(settings) as bus:
            return await work(bus)

    return asyncio.run(main())


def serve(settings: ConnectionSettings, work: Callable[[Bus, asyncio.Event], Awaitable[None]]) -> None:
    """Serve until Ctrl-C or SIGTERM, which set the event; a second Ctrl-C ends at once.

    The bus connects when it is first used, so that probes answer while the broker is away.
    """

    async def main() -> None:
        stop, bus = stop_on_signals(), KafkaBus(settings)
        try:
            await work(bus, stop)
        finally:
            await bus.close()

    be_punctual()
    asyncio.run(main())


def be_punctual() -> None:
    """Set the interpreter up for an event loop beside busy threads; to be called when everything is imported.

    What was loaded stays for good, so the garbage collector need not look at it again and again: a full look at a
    compiler's objects takes a tenth of a second, and nothing else runs meanwhile. The little garbage among it stays
    too: looking for it would be such a look.
    """
    gc.freeze()
    sys.setswitchinterval(_TURN_S)


async def reach(bus: Bus, *, patience_s: float) -> None:
    """Connect; a broker that is away is waited for so long. Raises ConfigError at once, BusError in the end."""
    patience = Patience(patience_s)
    while True:
        try:
            return await bus.start()
        except BusError as error:
            log.warning("broker_unreachable", reason=str(error), patience_s=patience_s)
            await patience.after(error)


def stop_on_signals() -> asyncio.Event:
    """An event that the first Ctrl-C or SIGTERM sets; the next one has its usual, abrupt effect."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def asked(number: signal.Signals) -> None:
        stop.set()
        loop.remove_signal_handler(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, asked, number)
    return stop


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What the fleet page of a task shows beside the metrics."""

    task: str
    history: History


def told_by(number: signal.Signals) -> asyncio.Event:
    """An event that a signal sets."""
    word = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(number, word.set)
    return word


@asynccontextmanager
async def observed(
    metrics: Metrics,
    readiness: Readiness,
    *,
    settings: AggregatorSettings,
    stragglers: Stragglers = lambda k: (),
    shown: Shown | None = None,
) -> AsyncIterator[HealthServer]:
    """Serve metrics and probes, and measure how long the event loop is blocked, while the block runs.

    shown: serve the fleet page too, if the settings say so.
    """
    async with AsyncExitStack() as stack:
        lag = await stack.enter_async_context(EventLoopLag(metrics))
        page = None
        if shown is not None and settings.fleet_page:
            picture = Picture(
                metrics.registry,
                shown.history,
                task=shown.task,
                readiness=readiness,
                heartbeat_age_s=lag.age_s,
                started_s=time.time(),
                hash_ids=settings.fleet_page_hash_ids,
            )
            page, stragglers = stack.enter_context(closing(FleetPage(picture))), picture.named(stragglers)
        with HealthServer(
            metrics.registry,
            heartbeat_age_s=lag.age_s,
            readiness=readiness,
            max_heartbeat_age_s=settings.max_heartbeat_age_s,
            host=settings.listen_host,
            port=settings.listen_port,
            stragglers=stragglers,
            page=page,
        ) as server:
            yield server
