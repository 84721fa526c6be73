"""Wall clocks that lie: a year behind or ahead, frozen, or leaping; the monotonic clock goes on as it should."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.chaos.ground import Ground
from tests.chaos.registry import scenario
from tests.faketime import lying_clock
from tests.fleet import ended
from tests.kafka.support import settled_history

CLOCKS = {"a year behind": "-365d", "a year ahead": "+365d", "frozen": "2024-02-29 12:00:00", "leaping": ""}
LEAPS = ("+365d", "-30d", "+0", "+20s", "-3y")


@scenario("clocks", "every role in turn has a wall clock that is a year off, frozen or leaps")
async def clocks(ground: Ground) -> None:
    """One run for each clock."""
    for name in CLOCKS:
        await clock_lies(ground, name)


async def clock_lies(ground: Ground, name: str) -> None:
    """An aggregator and half of the devices live by a wrong clock, then another aggregator by the right one."""
    async with ground.run(f"the clock is {name}"), ground.fleet(await ground.shared()) as (fleet, bus):
        async with lying(fleet.folder / "clock", CLOCKS[name]) as wrong:
            await fleet.create(keyframe_every=3)
            aggregator = fleet.aggregator(**wrong)
            workers = [fleet.worker("w-0", "w-3", **wrong), fleet.worker("w-6", "w-8")]
            for worker in workers:
                await fleet.until_told(worker, "update_settled", 8)
            aggregator.kill()
            aggregator = fleet.aggregator()
            for worker in workers:
                await fleet.until_told(worker, "update_settled", 12)
            for worker in workers:
                assert await worker.stop() == 0, worker.text
                assert not worker.events("update_discarded"), worker.events("update_discarded")[0]
        history = await settled_history(bus, fleet.task)
        codes = {decision.code for record in history.chain for decision in record.body.decisions}
        assert codes == {None}, f"refused: {codes}"
        assert await aggregator.stop() == 0, aggregator.text


@asynccontextmanager
async def lying(file: Path, shift: str) -> AsyncIterator[dict[str, str]]:
    """The environment of a process whose wall clock lies; one without a shift leaps while the block runs."""
    wrong = lying_clock()
    assert wrong is not None, "faketime is not installed: apt install faketime"
    if shift:
        yield wrong | {"FAKETIME": shift}
        return
    file.write_text("+0", encoding="utf-8")
    leaping = asyncio.create_task(_leap(file))
    try:
        yield wrong | {"FAKETIME_TIMESTAMP_FILE": str(file)}
    finally:
        await ended([leaping])


async def _leap(file: Path) -> None:
    """Set the clock again every second, whole in one write: it may be read at any moment."""
    while True:
        for shift in LEAPS:
            await asyncio.sleep(1.0)
            half = file.with_suffix(".half")
            half.write_text(shift, encoding="utf-8")
            half.replace(file)
