"""Tells the probes when what waited in the log at the start has been judged."""

import asyncio

from aggregator.inputs import end_vector
from aggregator.state import FoldState
from broker_topics.bus import Bus
from broker_topics.errors import BusError
from monitoring.health import Readiness
from monitoring.logs import get_logger

_LOOK_S = 0.1

log = get_logger("aggregator")


async def catch_up(bus: Bus, task: str, state: FoldState, readiness: Readiness) -> None:
    """Make `readiness` ready once the fold is past every update that waits now; never returns.

    A paused task judges nothing and is ready. `state` is only read, while another thread moves it on.
    """
    ends = await _ends(bus, task)
    while not state.paused and (waiting := _waiting(state, ends)):
        readiness.catching_up(f"{waiting:,} updates that waited at the start are still to be judged")
        await asyncio.sleep(_LOOK_S)
    readiness.ready()
    log.info("caught_up", task=task, version=state.model.version)
    await asyncio.Event().wait()


async def _ends(bus: Bus, task: str) -> list[int]:
    while True:
        try:
            return (await end_vector(bus, task))[:-1]
        except BusError as error:
            log.warning("broker_unreachable", reason=str(error))
            await asyncio.sleep(10 * _LOOK_S)


def _waiting(state: FoldState, ends: list[int]) -> int:
    return sum(max(0, end - next_) for end, next_ in zip(ends, state.vector, strict=False))
