"""Tells the probes when what waited in the log at the start has been judged."""

import asyncio

from aggregator.chain.committer import Committer
from aggregator.fold.state import FoldState
from aggregator.restore.inputs import updates_behind
from monitoring.health import Readiness
from monitoring.logs import get_logger

_LOOK_S = 0.1

log = get_logger("aggregator")


async def catch_up(committer: Committer, state: FoldState, readiness: Readiness) -> None:
    """Make `readiness` ready once the fold is past every update that the committer's first look found; never returns.

    A paused task judges nothing and is ready. `state` is only read, while another thread moves it on.
    """
    await committer.looked.wait()
    ends = tuple(committer.ends)
    while not state.paused and (waiting := updates_behind(state.vector, ends)):
        readiness.catching_up(f"{waiting:,} updates that waited at the start are still to be judged")
        await asyncio.sleep(_LOOK_S)
    readiness.ready()
    log.info("caught_up", task=committer.task, version=state.model.version)
    await asyncio.Event().wait()
