"""kill -9 before and after each read and write of the aggregator, of a device's outbox, and of who makes a task."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial

from aggregator.verify import Evidence
from broker_topics.crash_points import VARIABLE, Io
from broker_topics.errors import ExitCode
from broker_topics.kafka import KafkaBus
from broker_topics.topics import Topic, topic_name
from tests.chaos.diary import assert_no_copy_was_suspected, told_by
from tests.chaos.ground import Ground
from tests.chaos.registry import scenario
from tests.fleet import ended
from tests.kafka.support import Fleet, Role, accepted, settled_history
from tests.simulation.history import History
from tests.simulation.invariants import check

CREATOR = (Io.CREATE_TOPICS, Io.PART, Io.APPEND, Io.READ_BACK, Io.HEAD)
STARTING = (Io.READ_HEAD, Io.READ_COMMITS, Io.READ_KEYFRAME, Io.LOAD_CACHE, Io.READ_ENDS, Io.READ_INPUTS)
SERVING = (
    *(Io.FETCH, Io.PART, Io.APPEND, Io.READ_BACK, Io.REJECT, Io.HEAD, Io.SWEEP_READ, Io.TOMBSTONE),
    *(Io.CACHE_STORE, Io.READ_TELEMETRY, Io.PROBE_PARTS),
)
IDLE = (Io.WATCH,)
"""What an aggregator does only while nobody sends."""

DEVICE = (
    *(Io.OUTBOX_OPEN, Io.OUTBOX_WRITE, Io.STORE_TRAINING, Io.STORE_BEFORE_SEND, Io.STORE_OFFSET, Io.STORE_SETTLED),
    *(Io.STORE_GIVEN_BACK, Io.ENTER, Io.FOLLOW, Io.PRODUCE, Io.SEND_TELEMETRY),
)

ON_TIME = (Io.STORE_TRAINING, Io.STORE_BEFORE_SEND, Io.STORE_OFFSET, Io.STORE_SETTLED, Io.PRODUCE)
"""What a device does with work that is not late: only a quick one comes there while others hurry the versions on."""

_PATIENCE_S = 12.0
_ATTEMPTS = 8


def points_of(*ios: Io) -> list[str]:
    """Both points of each."""
    return [point for io in ios for point in io.points]


@scenario("crash-points", "kill -9 before and after each read and write of every role")
async def crash_points(ground: Ground) -> None:
    """Every point once."""
    for point in points_of(*CREATOR):
        await create_dies_at(ground, point)
    await aggregators_die_at(ground, points_of(*IDLE, *SERVING, *STARTING))
    await devices_die_at(ground, points_of(*DEVICE))


async def create_dies_at(ground: Ground, point: str) -> None:
    """Who makes a task dies; whoever tries again makes it, or is told that it is there."""
    async with ground.run(f"create dies at {point}"), ground.fleet(await ground.shared()) as (fleet, bus):
        create = ("task", "create", "--module", "my_fleet:make_model")
        status, printed = await fleet.run(*create, **{VARIABLE: f"{point}:1"})
        assert status == -signal.SIGKILL, f"not reached: {status} {printed}"
        status, printed = await fleet.run(*create)
        assert status == ExitCode.DONE or (status == ExitCode.CONFIG and "exists already" in printed), printed
        status, printed = await fleet.run("task", "show")
        assert status == ExitCode.DONE, printed
        await settled_history(bus, fleet.task)


async def aggregators_die_at(ground: Ground, points: Sequence[str]) -> None:
    """One aggregator after the other dies, each at its point; devices go on, and so does the chain."""
    rng = ground.rng("aggregators", *points)
    async with ground.fleet(await ground.shared()) as (fleet, bus):
        await fleet.create(keyframe_every=3, max_staleness=4)
        idle = points_of(*IDLE)
        for point in idle:
            if point in points:
                async with ground.run(f"aggregator dies at {point}"):
                    await dies_at(fleet, f"{point}:1", aggregator)
        workers = [fleet.worker("w-0", "w-3", PACE_S="0.02"), fleet.worker("w-6", PACE_S="0.5")]
        seen: list[bytes] = []
        for point in [other for other in points if other not in idle]:
            async with ground.run(f"aggregator dies at {point}"), sending_rubbish(fleet, bus):
                count = 1 if Io(point.partition(":")[0]) in STARTING else int(rng.integers(1, 4))
                await dies_at(fleet, f"{point}:{count}", aggregator)
                seen = await goes_on(bus, fleet.task, seen)
        async with ground.run("aggregators died, the last one lives"):
            last = aggregator(fleet)
            await fleet.until_accepted(bus, await accepted(bus, fleet.task) + 8)
            await at_rest(fleet, bus, workers)
            await goes_on(bus, fleet.task, seen)
            assert await last.stop() == 0, last.text


async def devices_die_at(ground: Ground, points: Sequence[str]) -> None:
    """A process of two devices, mostly slow ones, dies again and again beside a fast one that lives."""
    rng = ground.rng("devices", *points)
    async with ground.fleet(await ground.shared()) as (fleet, bus):
        await fleet.create(keyframe_every=5, max_staleness=2)
        last, other = aggregator(fleet), fleet.worker("w-8", "w-1", PACE_S="0.02")

        def worker(fleet: Fleet, pace_s: str = "0.3", **environment: str) -> Role:
            return fleet.worker("w-0", "w-3", PACE_S=pace_s, HEADWATER_LOG_LEVEL="debug", **environment)

        seen: list[bytes] = []
        for point in points:
            io = Io(point.partition(":")[0])
            async with ground.run(f"devices die at {point}"):
                often = io in (Io.OUTBOX_WRITE, Io.FOLLOW, Io.PRODUCE)
                start = partial(worker, pace_s="0.02") if io in ON_TIME else worker
                await dies_at(fleet, f"{point}:{int(rng.integers(1, 4)) if often else 1}", start)
                seen = await goes_on(bus, fleet.task, seen)
        async with ground.run("devices died, the last ones live"):
            alive = worker(fleet, pace_s="0.02")
            await fleet.until_told(alive, "update_settled", 4)
            history = await at_rest(fleet, bus, [alive, other])
            assert await last.stop() == 0, last.text
            assert_no_copy_was_suspected(history, "w-0", "w-3")
            damaged = [role.name for role in fleet.roles if role.events("outbox_corrupt")]
            assert not damaged, f"outboxes were damaged: {damaged}"


def aggregator(fleet: Fleet, **environment: str) -> Role:
    """One that keeps a cache, and deletes old parts as soon as it may: so both can be hurt."""
    cache = str(fleet.folder / "cache")
    return fleet.aggregator("--cache-dir", cache, HEADWATER_AGGREGATOR_KEEP_PARTS_S="0.2", **environment)


async def dies_at(fleet: Fleet, armed: str, start: Callable[..., Role]) -> None:
    """Start a role that dies at its point; one that never comes there is killed and started again."""
    for _ in range(_ATTEMPTS):
        role = start(fleet, **{VARIABLE: armed})
        with suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE_S):
                status = await role.ended()
                assert status == -signal.SIGKILL, f"ended with {status} before {armed}:\n{role.text[-1500:]}"
                return
        role.kill()
    raise AssertionError(f"{armed} was not reached in {_ATTEMPTS} lives")


async def goes_on(bus: KafkaBus, task: str, seen: list[bytes]) -> list[bytes]:
    """The chain as it is now; it must hold every rule, and begin with the chain as it was."""
    history = await check(bus, task)
    assert not history.violations, history.violations
    now = [record.hash for record in history.chain]
    assert now[: len(seen)] == seen, "the chain is another one than before"
    return now


async def at_rest(fleet: Fleet, bus: KafkaBus, workers: Sequence[Role]) -> History:
    """Stop the devices, wait until all is decided, and hold the log to every rule. The aggregator must still run."""
    for worker in workers:
        assert await worker.stop() == 0, worker.text
    return await settled_history(bus, fleet.task, evidence=Evidence.of(told_by(fleet.roles)))


@asynccontextmanager
async def sending_rubbish(fleet: Fleet, bus: KafkaBus) -> AsyncIterator[None]:
    """Send what is no update every now and then while the block runs, so that something is refused."""

    async def send() -> None:
        while True:
            await bus.send(topic_name(fleet.task, Topic.UPDATES), key=b"rubbish", value=b"no update", partition=0)
            await asyncio.sleep(0.2)

    task = asyncio.create_task(send())
    try:
        yield
    finally:
        await ended([task])
