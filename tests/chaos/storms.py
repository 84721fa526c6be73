"""Everybody at once: two hundred devices that come back together, and a backlog as long as a weekend."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from benchmarks.backlog import make_task, send_all, updates
from broker_topics.kafka import KafkaBus
from broker_topics.local.cluster import LocalCluster
from broker_topics.settings import ConnectionSettings
from tests.chaos.ground import Ground, new_task
from tests.chaos.registry import scenario
from tests.fleet import chain_of
from tests.kafka.support import DEADLINE_S, Fleet, Role, accepted, fleet_in, settled_history

PROCESSES, EACH = 4, 50
BACKLOG, SIZE = 100_000, 10_000

BASE_BYTES = 200 * 1024 * 1024
"""An aggregator that has loaded its libraries and serves a small model."""

AHEAD_BYTES = 16 * 1024 * 1024
"""What is fetched ahead of the fold."""

RECORD_BYTES = 64 * 1024 * 1024
"""The inputs of one record, which wait for the decision on them to be official."""

UNDER_WAY = 4
"""Records that are held at a time: one being folded, and three on their way into the chain."""


@scenario("storm", "200 real devices lose their broker and all come back at once")
async def storm(ground: Ground) -> None:
    """A broker of its own is killed under a whole fleet and started again."""
    async with (
        ground.run(f"{PROCESSES * EACH} devices come back at once"),
        LocalCluster(data=ground.folder / f"storm-{new_task()}") as broker,
        ground.fleet(broker.bootstrap) as (fleet, bus),
    ):
        await all_come_back(fleet, bus, broker, processes=PROCESSES, each=EACH, say=ground.say)


async def all_come_back(
    fleet: Fleet, bus: KafkaBus, broker: LocalCluster, *, processes: int, each: int, say: Callable[[str], None] = print
) -> None:
    """Every device is heard, the broker dies and comes back, and every device is heard again; nothing is lost."""
    devices = [[f"w-{process * each + number}" for number in range(each)] for process in range(processes)]
    await fleet.create(buffer_size=20, flush_deadline_s=0.5)
    aggregator = fleet.aggregator()
    workers = [fleet.worker(*names, PACE_S="1.0") for names in devices]
    await heard_once_more(fleet, workers, devices)
    await broker.kill()
    await fleet.until(lambda: all(worker.events("broker_unreachable") for worker in workers), "devices missed it")
    await broker.restart()
    began = asyncio.get_running_loop().time()
    await heard_once_more(fleet, workers, devices)
    seconds = asyncio.get_running_loop().time() - began
    say(f"  {processes * each} devices were all heard again {seconds:.1f} s after the broker was back")
    for worker in workers:
        assert await worker.stop() == 0, worker.text
        assert not worker.events("update_discarded"), worker.events("update_discarded")[0]
    await settled_history(bus, fleet.task)
    peak = peak_bytes(aggregator)
    assert peak < BASE_BYTES + AHEAD_BYTES + UNDER_WAY * RECORD_BYTES, f"{peak:,} bytes"
    assert await aggregator.stop() == 0, aggregator.text


async def heard_once_more(fleet: Fleet, workers: list[Role], devices: list[list[str]]) -> None:
    """Wait until of each device one more update is settled than now."""
    give_up = asyncio.get_running_loop().time() + 3 * DEADLINE_S
    before = [settled(worker) for worker in workers]
    waiting = {name for names in devices for name in names}
    while waiting:
        now = [settled(worker) for worker in workers]
        for old, new in zip(before, now, strict=True):
            waiting -= {name for name, count in new.items() if count > old.get(name, 0)}
        assert asyncio.get_running_loop().time() < give_up, f"never heard again: {sorted(waiting)[:10]}\n{fleet.logs()}"
        await asyncio.sleep(0.5)


def settled(worker: Role) -> dict[str, int]:
    """Settled updates of each device of a process."""
    counts: dict[str, int] = {}
    for line in worker.events("update_settled"):
        counts[line["client_id"]] = counts.get(line["client_id"], 0) + 1
    return counts


@scenario("backlog", "100,000 updates wait when the aggregator starts")
async def backlog(ground: Ground) -> None:
    """They go in within bounded memory, none of them made stale by the others."""
    async with ground.run(f"a backlog of {BACKLOG:,} updates"):
        folder = ground.folder / new_task()
        folder.mkdir()
        await goes_in(folder, await ground.shared(), count=BACKLOG, say=ground.say)


async def goes_in(folder: Path, bootstrap: str, *, count: int, say: Callable[[str], None] = print) -> None:
    """A backlog of `count` devices' updates is applied to the last one, in steps large enough that none is stale."""
    name = new_task()
    with fleet_in(folder, bootstrap, name) as fleet:
        async with KafkaBus(ConnectionSettings(bootstrap=bootstrap)) as bus:
            task = await make_task(bus, name, SIZE, flush_deadline_s=0.5)
            await send_all(task, updates(task, count))
            aggregator = fleet.aggregator()
            await fleet.until_told(aggregator, "restored")
            began = asyncio.get_running_loop().time()
            give_up = began + max(DEADLINE_S, count / 200)
            while (done := await accepted(bus, name)) < count:
                assert aggregator.process.poll() is None, aggregator.text[-2000:]
                assert asyncio.get_running_loop().time() < give_up, f"{done} of {count} were applied"
                await asyncio.sleep(1.0)
            seconds = asyncio.get_running_loop().time() - began
            peak = peak_bytes(aggregator)
            say(f"  {count:,} updates in {seconds:.1f} s: {count / seconds:,.0f} a second, peak {peak / 2**20:.0f} MiB")
            assert await aggregator.stop() == 0, aggregator.text
            codes = {d.code for record in await chain_of(bus, name) for d in record.body.decisions}
            assert codes == {None}, codes
            assert peak < BASE_BYTES + AHEAD_BYTES + UNDER_WAY * RECORD_BYTES, f"{peak:,} bytes"


def peak_bytes(role: Role) -> int:
    """The most memory that a process was resident with so far."""
    status = Path(f"/proc/{role.process.pid}/status").read_text(encoding="utf-8")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024
