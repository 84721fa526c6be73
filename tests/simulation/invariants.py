"""A task's log held to every invariant by the product's own checker, and handed back for further questions."""

from collections.abc import Collection, Mapping

from aggregator.verify import Demands, Evidence, Invariant, verify_and_replay
from broker_topics.bus import Bus
from tests.simulation.history import History, read_history


async def check(
    bus: Bus,
    task: str,
    *,
    evidence: Evidence | None = None,
    known: Mapping[int, bytes] | None = None,
    excused: Collection[tuple[int, int]] = (),
    settled: bool = False,
    keyframes: int = 0,
) -> History:
    """Check a task's log.

    Args:    evidence: what producers, devices and readers were told. known: frames by CRC, for inputs that retention
             has taken. excused: places of inputs that a test destroyed. settled: nothing may be left undecided in the
             log. keyframes: of the newest so many keyframes no part may be missing.
    Returns: the history, with every violation found.
    """
    history = await read_history(bus, task)
    demands = Demands(at_rest=settled, whole_keyframes=keyframes, excused=frozenset(excused))
    verdict, state = await verify_and_replay(bus, task, evidence=evidence, demands=demands, known=known)
    history.violations += verdict.violations
    replay = next(check for check in verdict.checks if check.invariant is Invariant.REPLAY)
    history.segments = replay.checked.get("keyframes reached by replay", 0)
    history.x = state.x if state is not None else None
    return history
