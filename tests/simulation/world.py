"""One seeded run: a task, its devices and aggregators, a time of trouble, a time of calm, and then the account."""

import asyncio
import logging
from collections import Counter
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import numpy as np

from aggregator.chain.genesis import create_task
from aggregator.verify import Evidence
from broker_topics.commits_log import ChainLostError, CommitsReader
from broker_topics.layout import Layout, Tensor
from broker_topics.memory import MemoryBus
from broker_topics.memory_log import MemoryLog
from broker_topics.messages import Control
from broker_topics.task import TaskSettings
from tests.simulation.account import Account, collected, happened
from tests.simulation.chaos import Chaos
from tests.simulation.clock import run_virtually
from tests.simulation.devices import SIZE, KilledError, Outbox, Watch
from tests.simulation.disk import Disk
from tests.simulation.history import History
from tests.simulation.invariants import check
from tests.simulation.network import COMMITS, CONTROL, HASTE, TASK, UPDATES, Link, Weather
from tests.simulation.servers import Supervisor, Witness

LAYOUT = Layout(tensors=(Tensor(name="w", shape=(SIZE,)),))

TROUBLE_S = (6.0, 10.0, 10.0, 20.0, 40.0)
CALM_S = 1_500.0

DISKS = 0.3
"""Share of seeds whose devices keep their state in the product's own outbox, on files; they take a quarter longer."""

FAST_DISK = Path("/dev/shm")  # where a synchronised write costs nothing; what reaches it is the same


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one seed."""

    seed: int
    violations: list[str]
    head: str
    counts: Counter[str]


@dataclass(slots=True)
class World:
    """All that a seed makes; `complain` collects broken rules."""

    seed: int
    rng: Random = field(init=False)
    log: MemoryLog = field(init=False)
    weather: Weather = field(init=False)
    exact: bool = field(init=False)
    made: dict[int, bytes] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)
    watches: list[Watch] = field(default_factory=list)
    servers: list[Supervisor] = field(default_factory=list)
    chaos: Chaos = field(init=False)
    tasks: "list[asyncio.Task[None]]" = field(default_factory=list)
    disks: list[Disk] = field(default_factory=list)
    home: Path | None = None
    trouble: str = ""

    def __post_init__(self) -> None:
        self.rng = Random(self.seed)
        self.log = MemoryLog(now_s=self.wall)
        self.weather = Weather.drawn(self.rng)
        self.exact = self.rng.random() < 0.6
        self.log.on_send = lambda *_: self.weather.befalls(self.rng)

    def wall(self) -> float:
        """The log's own clock, and every device's."""
        return 1.8e9 + asyncio.get_running_loop().time() * HASTE

    def complain(self, what: str) -> None:
        self.violations.append(what)

    def is_forked(self) -> bool:
        """Whether records of the chain were lost to a power cut."""
        return self.chaos.log.forked

    def link(self) -> Link:
        return Link(self.log, self.weather, self.rng, self.made)

    def begin(self, life: Coroutine[None, None, None]) -> None:
        """Start something that goes on until the end."""
        self.tasks.append(asyncio.ensure_future(life))

    def new_outbox(self) -> Outbox:
        """Of a new installation; in a world with disks on one."""
        outbox = Outbox(tolerance=0.0 if self.exact else 0.05, complain=self.complain, excused=self.is_forked)
        if self.home is not None:
            folder = self.home / str(len(self.disks))
            folder.mkdir()
            outbox.disk = Disk(folder, self.rng)
            self.disks.append(outbox.disk)
        return outbox

    def add_watch(self, client_id: str, outbox: Outbox | None = None) -> Watch:
        watch = Watch(
            client_id=client_id,
            rng=self.rng,
            outbox=outbox or self.new_outbox(),
            link_up=self.link,
            complain=self.complain,
            wall=self.wall,
            period_s=self.rng.choice([0.5, 1.5, 1.5, 6.0]),
            largest=self.rng.choice([100, 1000]),
        )
        self.watches.append(watch)
        self.begin(watch.live())
        return watch

    def settings(self) -> TaskSettings:
        """Exact worlds keep every number a small binary fraction, so that mass is conserved to the last bit."""
        rng = self.rng
        common: dict[str, object] = {
            "flush_deadline_s": rng.choice([0.5, 2.0]),
            "max_staleness": rng.choice([4, 8, 20]),
            "min_separation": rng.choice([0, 0, 1, 2]),
            "keyframe_every": rng.choice([2, 5, 9]),
            "max_update_norm": rng.choice([0.0, 0.0, 1500.0]),
            "reference_steps": 0.0,
            "max_local_steps": rng.choice([4, 20]),
            "codec": rng.choice(["float32", "bfloat16"]),
            "served_horizon": 10,
        }
        if self.exact:
            size = rng.choice([1, 2, 4])
            chosen = {"rule": "fedbuff", "staleness": "constant", "buffer_size": size, "backlog_buffer_size": size}
        else:
            chosen = {
                "rule": rng.choice(["buffered", "fedbuff", "fedasync"]),
                "buffer_size": rng.choice([2, 3]),
                "backlog_buffer_size": 8,
                "codec": rng.choice(["sparse", "sparse", "int8", "bfloat16"]),
                "density": 0.2,
                "downlink_density": 0.2,
                "server_optimizer": rng.choice(["sgd", "momentum"]),
                "server_learning_rate": 0.1,
            }
        return TaskSettings(**{**common, **chosen})  # type: ignore[arg-type]

    async def run(self) -> Outcome:
        """Trouble, calm, account."""
        rng = self.rng
        asyncio.get_running_loop().set_exception_handler(self._unheard)
        async with MemoryBus(self.log) as bus:
            settings = self.settings()
            await self._create(bus, settings)
            chaos = self._populate()
            try:
                await chaos.run(rng.choice(TROUBLE_S))
                await self._calm(bus, chaos)
            except Stalled as stall:
                self.complain(f"I7: {stall}")
            await self._stop()
            chaos.log.compact_all()
            history = await self._examined(bus, chaos)
            if not chaos.log.forked:
                account = Account(history, self.watches, self.made, self.complain, chaos.log.cut)
                account.check_devices(lost_outboxes=chaos.done["restore_backup"] > 0)
                if self.exact and not self.violations and not chaos.log.cut:
                    account.check_mass(settings.buffer_size)
            self.violations += history.violations
            return self._outcome(history, chaos)

    async def _examined(self, bus: MemoryBus, chaos: Chaos) -> History:
        """The log held to every rule. What readers saw of records that a power cut took is gone for good."""
        history = await check(
            bus,
            TASK,
            evidence=Evidence() if chaos.log.forked else collected(self.watches, chaos.witness.seen, chaos.log.cut),
            known=self.made,
            excused=chaos.log.cut,
            settled=not self.violations,
            keyframes=0 if chaos.log.lost_parts else 2,
        )
        if chaos.log.forked:
            history.violations = [found for found in history.violations if "reject" not in found]
        return history

    def _outcome(self, history: History, chaos: Chaos) -> Outcome:
        counts = Counter({f"chaos {name}": count for name, count in chaos.done.items()})
        for server in self.servers:
            counts.update({f"aggregator {end}": count for end, count in server.ends.items()})
        for watch in self.watches:
            counts.update(f"device {outcome}" for _, outcome in watch.outbox.settled)
        counts.update(happened(history))
        head = history.chain[-1].hash.hex()[:12] if history.chain else ""
        return Outcome(seed=self.seed, violations=self.violations, head=head, counts=counts)

    async def _create(self, bus: MemoryBus, settings: TaskSettings) -> None:
        """The task is made in peace."""
        first, identity = np.zeros(SIZE, np.float32), self.rng.randbytes(16)
        self.weather.calm = True
        await create_task(bus, TASK, settings=settings, layout=LAYOUT, first=first, replication=1, identity=identity)
        self.weather.calm = False

    def _populate(self) -> Chaos:
        """Devices, aggregators, a witness, and the trouble that awaits them."""
        rng = self.rng
        witness = Witness(rng=rng, link_up=self.link, complain=self.complain, excused=self.is_forked)
        chaos = self.chaos = Chaos(self, witness)
        for number in range(rng.randint(2, 5)):
            self.add_watch(f"w-{number}")
        for _ in range(rng.choice([1, 1, 2])):
            server = Supervisor(
                rng=rng,
                link_up=self.link,
                complain=self.complain,
                wall=self.wall,
                may_be_overtaken=chaos.log.may_have_overtaken,
                was_cut=lambda: chaos.log.was_cut,
            )
            self.servers.append(server)
            self.begin(server.live())
        self.begin(witness.live())
        return chaos

    def _unheard(self, loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        """An error that nobody waits for any more; only the dead may leave one."""
        error = context.get("exception")
        swept_up = error is None and "destroyed" in str(context.get("message"))  # what a killed process left hanging
        if not swept_up and not isinstance(error, KilledError):
            self.complain(f"crash: {context.get('message')}: {error!r}")

    async def _calm(self, bus: MemoryBus, chaos: Chaos) -> None:
        """No more faults and no more training: everything that waits must now be settled."""
        chaos.make_calm()
        commits = CommitsReader(bus, TASK)
        resume = Control(command="resume").to_bytes()
        try:
            for second in range(int(CALM_S)):
                if second % 50 == 0:
                    await bus.send(CONTROL, key=b"resume", value=resume)
                await asyncio.sleep(1.0)
                if self.violations:
                    return
                if all(watch.idle for watch in self.watches if not watch.abandoned) and await self._settled(commits):
                    return
        finally:
            await commits.close()
        waiting = [watch.client_id for watch in self.watches if not watch.abandoned and not watch.idle]
        raise Stalled(f"after {CALM_S:.0f} calm seconds {waiting or 'the log'} still waits to be settled")

    async def _settled(self, commits: CommitsReader) -> bool:
        while commits.offset < self.log.partition(COMMITS).end:
            with suppress(ChainLostError):  # said once, of a record that does not fit: noise, or a fork
                await commits.poll(0.0)
        last = commits.chain.last
        partitions = [*self.log.partitions(UPDATES), *self.log.partitions(CONTROL)]
        return last is not None and all(
            not where.read(offset, 1) for where, offset in zip(partitions, last.body.vector, strict=True)
        )

    async def _stop(self) -> None:
        for server in self.servers:
            if server.aggregator is not None:
                server.aggregator.stop.set()
        await asyncio.sleep(0.1)
        for task in self.tasks:
            task.cancel()
        ends = await asyncio.gather(*self.tasks, return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception):
                self.complain(f"crash: {type(end).__name__}: {end}")


class Stalled(Exception):
    """Calm did not settle everything."""


def simulate(seed: int, trouble: str = "") -> Outcome:
    """Run one seed to its end, with more of one kind of trouble if it is named; the same seed does the same, always."""
    world, log = World(seed, trouble=trouble), logging.getLogger("headwater")
    level = log.level
    log.setLevel(logging.CRITICAL)  # thousands of faults would fill any log
    try:
        if world.rng.random() > DISKS:
            return run_virtually(world.run())
        with TemporaryDirectory(dir=FAST_DISK if FAST_DISK.is_dir() else None) as home:
            world.home = Path(home)
            return run_virtually(world.run())
    except Exception as error:
        rule = "I7" if isinstance(error, RuntimeError) else f"crash: {type(error).__name__}"
        return Outcome(seed=seed, violations=[*world.violations, f"{rule}: {error}"], head="", counts=Counter())
    finally:
        log.setLevel(level)
        for disk in world.disks:
            disk.close()
