"""The demo from beginning to end: broker, task, fleet, view, report."""

import asyncio
import time
from contextlib import AsyncExitStack, suppress
from pathlib import Path

from rich.console import Console

from aggregator.chain.genesis import create_task
from broker_topics.errors import BusError
from broker_topics.local.cluster import LocalCluster
from headwater.demo.board import Board
from headwater.demo.crew import Crew, MemoryCrew, ProcessCrew
from headwater.demo.data import FleetData, load_fleet
from headwater.demo.log_view import LogView
from headwater.demo.model import make_model
from headwater.demo.place import Options, Place, how_to_go_on, open_folder, open_place
from headwater.demo.plan import TARGETS, Plan, page_port, plan_devices, task_settings
from headwater.demo.report import closing_text, write_report, write_roles
from headwater.demo.snapshot import Device, Role, Snapshot
from headwater.demo.view import open_view
from headwater.process import stop_on_signals
from monitoring.logs import configure
from worker.adapters import adapter_for

_DRAW_S = 0.5
_SETTLE_S = 15.0


async def run_demo(options: Options, console: Console) -> bool:
    """Run until the target is held, time is over, or Ctrl-C; True if the target was reached."""
    configure(level="error")
    stop = stop_on_signals()
    fleet = load_fleet(options.held_out, options.seed)
    async with AsyncExitStack() as stack:
        folder = await stack.enter_async_context(open_folder(options))
        place = await stack.enter_async_context(open_place(options, folder, console))
        run = await _Run.prepare(options, fleet, place, folder)
        try:
            await run.go(stop, console)
        finally:
            await asyncio.shield(run.end())
        snapshot = run.snapshot()
        write_report(snapshot, options.out)
        console.print(closing_text(snapshot, options.out), highlight=False)
        console.print(how_to_go_on(options, place, snapshot.task, folder), highlight=False, soft_wrap=True)
        return snapshot.seconds_to_target is not None


class _Run:
    """One run: the crew that works, the view of the log, and the board of what happens beside it."""

    def __init__(self, options: Options, fleet: FleetData, place: Place, plan: Plan, folder: Path) -> None:
        self._options, self._fleet, self._place, self._plan = options, fleet, place, plan
        self._board = Board(time.time())
        self._log = LogView(place.bus, plan.task, self._board.begun_ms)
        self._broker_restarts = 0
        self._broker_keeper: asyncio.Task[None] | None = None
        self._ended_s: float | None = None
        self._crew: Crew
        if place.memory is not None:
            self._crew = MemoryCrew(plan, place.memory, tell=self._board.tell)
        else:
            self._crew = ProcessCrew(
                plan, folder, tell=self._board.tell, happened=self._board.happened, changed=self._write_roles
            )

    @classmethod
    async def prepare(cls, options: Options, fleet: FleetData, place: Place, folder: Path) -> "_Run":
        """Create the task with the first model."""
        task = f"watch-{time.strftime('%Y%m%d-%H%M%S')}"
        adapter = adapter_for(make_model(options.seed))
        copies = min(3, await place.bus.brokers())
        settings = task_settings()
        await create_task(
            place.bus, task, settings=settings, layout=adapter.layout, first=adapter.read(), replication=copies
        )
        plan = Plan(
            task=task,
            seed=options.seed,
            held_out=options.held_out,
            bootstrap=place.bootstrap,
            state_dir=str(folder / "devices"),
            page_port=page_port(),
            devices=plan_devices(tuple(device.name for device in fleet.devices), options.seed),
        )
        return cls(options, fleet, place, plan, folder)

    async def go(self, stop: asyncio.Event, console: Console) -> None:
        """Run the fleet and draw it until the target is held, time is over or `stop` is set."""
        await self._log.open()
        await self._crew.start()
        console.print(f"Watch it in a browser: {self._plan.page_url}", highlight=False)
        if self._place.cluster is not None:
            self._broker_keeper = asyncio.create_task(self._keep_broker(self._place.cluster))
        with open_view(console) as view:
            while not stop.is_set() and not self._time_is_over():
                await self._look(_DRAW_S)
                snapshot = self.snapshot()
                view.show(snapshot)
                if snapshot.seconds_to_target is not None:
                    break

    def _time_is_over(self) -> bool:
        """The run's time counts from the first training; the processes have as long again to get there."""
        return time.time() - self._board.begun_s > self._options.max_seconds

    async def end(self) -> None:
        """End the crew in order, then read the log to its end."""
        self._ended_s = time.time()
        await self._crew.stop()
        if self._broker_keeper is not None:
            self._broker_keeper.cancel()
            await asyncio.gather(self._broker_keeper, return_exceptions=True)
        with suppress(BusError, TimeoutError):
            async with asyncio.timeout(_SETTLE_S):
                await self._log.to_the_end()
        await self._log.close()

    async def _look(self, timeout_s: float) -> None:
        try:
            await self._log.poll(timeout_s)
        except BusError:
            await asyncio.sleep(timeout_s)

    async def _keep_broker(self, cluster: LocalCluster) -> None:
        """A broker that dies is started again, like every other role."""
        while True:
            await asyncio.sleep(_DRAW_S)
            if not cluster.pids:
                self._broker_restarts += 1
                self._board.happened("broker died; starting it again")
                await cluster.restart()
                self._board.happened(f"broker is back with pid {cluster.pids.get(1)}")
                self._write_roles()

    def _roles(self) -> tuple[Role, ...]:
        cluster = self._place.cluster
        if cluster is None:
            return self._crew.roles()
        pid = cluster.pids.get(1)
        broker = Role(name="broker", pid=pid, state="running" if pid else "down", restarts=self._broker_restarts)
        return (*self._crew.roles(), broker)

    def _write_roles(self) -> None:
        write_roles(self._roles(), self._options.out)

    def snapshot(self) -> Snapshot:
        """The run as it stands."""
        log, elapsed_s = self._log, (self._ended_s or time.time()) - self._board.begun_s
        return Snapshot(
            task=self._plan.task,
            broker=self._place.name,
            seed=self._options.seed,
            held_out=self._options.held_out,
            target=TARGETS[self._options.held_out],
            elapsed_s=elapsed_s,
            model_version=log.version,
            updates_accepted=log.accepted,
            updates_per_s=log.updates_per_s(elapsed_s),
            rejects=dict(log.rejects),
            server_steps=log.server_steps,
            uplink_bytes=log.uplink_bytes,
            uplink_bytes_float32=log.uplink_bytes_float32,
            downlink_bytes=log.downlink_bytes,
            staleness=dict(log.staleness),
            evaluations=tuple(log.evaluations),
            devices=self._devices(),
            roles=self._roles(),
            happenings=tuple(self._board.happenings),
            spans=self._board.all_spans(),
            arrivals=tuple(log.arrivals),
            served_hash=log.served_hash,
            chain_head=log.chain_head,
            begun=self._board.training,
            page_url=self._plan.page_url,
        )

    def _devices(self) -> tuple[Device, ...]:
        examples = {device.name: len(device.y) for device in self._fleet.devices}
        return tuple(self._device(plan.name, plan.period_s, examples[plan.name]) for plan in self._plan.devices)

    def _device(self, name: str, period_s: float, examples: int) -> Device:
        tally = self._log.devices.get(name)
        updates = tally.updates if tally else 0
        return Device(
            name=name,
            period_s=period_s,
            examples=examples,
            updates=updates,
            refused=tally.refused if tally else 0,
            mean_staleness=tally.staleness / updates if tally and updates else 0.0,
            activity=self._board.activity(name),
        )
