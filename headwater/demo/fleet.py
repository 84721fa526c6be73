"""The watches: a Worker each, at the pace and with the absences that the plan gives them."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from broker_topics.bus import Bus
from broker_topics.errors import BusError
from headwater.demo.data import DeviceData, load_fleet
from headwater.demo.model import Train, make_model, make_train, use_one_thread
from headwater.demo.offline import Antenna, OfflineBus
from headwater.demo.plan import DevicePlan, Plan, absences
from headwater.demo.snapshot import Activity
from worker import LocalResult, TrainContext, Worker
from worker.events import Kind
from worker.pacing import Limits
from worker.reporting import WorkerEvent

if TYPE_CHECKING:
    from torch.nn import Module

OnActivity = Callable[[str, Activity, float], None]
"""Told of a device, what it does from now on, and since when (seconds since 1970)."""

_LIMITS = Limits(backoff_initial_s=0.5, backoff_max_s=5.0)


async def run_group(
    plan: Plan, devices: tuple[DevicePlan, ...], make_bus: Callable[[], Bus], stop: asyncio.Event, tell: OnActivity
) -> None:
    """Run some of the plan's devices until `stop`; each has a connection and a state folder of its own."""
    use_one_thread()
    data = {device.name: device for device in load_fleet(plan.held_out, plan.seed).devices}
    async with asyncio.TaskGroup() as group:
        for device in devices:
            group.create_task(_run_device(plan, device, data[device.name], bus=make_bus(), stop=stop, tell=tell))


async def _run_device(
    plan: Plan, device: DevicePlan, data: DeviceData, *, bus: Bus, stop: asyncio.Event, tell: OnActivity
) -> None:
    antenna = Antenna()
    worker = Worker(
        task=plan.task,
        client_id=device.name,
        model=make_model(plan.seed),
        train=_paced(make_train(data), device.period_s),
        bus=OfflineBus(bus, antenna),
        state_dir=Path(plan.state_dir) / device.name,
        on_event=_activities(device.name, antenna, tell),
        seed=device.seed,
        limits=_LIMITS,
    )
    with suppress(BusError):
        await bus.start()
    coming_and_going = asyncio.create_task(_come_and_go(device, antenna, tell))
    stopping = asyncio.create_task(_stop_with(stop, worker))
    try:
        await worker.serve()
    finally:
        coming_and_going.cancel()
        stopping.cancel()
        await bus.close()


def _paced(train: Train, period_s: float) -> Train:
    """The same training on a slower watch: it takes `period_s` at least."""

    def slow(model: "Module", context: TrainContext) -> LocalResult:
        begun = time.monotonic()
        result = train(model, context)
        context.stop.wait(max(0.0, period_s - (time.monotonic() - begun)))
        return result

    return slow


def _activities(name: str, antenna: Antenna, tell: OnActivity) -> Callable[[WorkerEvent], None]:
    def on_event(event: WorkerEvent) -> None:
        if not antenna.online:
            return
        if event.kind is Kind.TRAINING_STARTED:
            tell(name, "training", event.at_s)
        elif event.kind is Kind.TRAINED:
            tell(name, "waiting", event.at_s)

    return on_event


async def _come_and_go(device: DevicePlan, antenna: Antenna, tell: OnActivity) -> None:
    rng = np.random.default_rng(device.seed)
    while True:
        online_s, offline_s = absences(rng)
        await asyncio.sleep(online_s)
        antenna.online = False
        tell(device.name, "offline", time.time())
        await asyncio.sleep(offline_s)
        antenna.online = True
        tell(device.name, "waiting", time.time())


async def _stop_with(stop: asyncio.Event, worker: Worker) -> None:
    await stop.wait()
    worker.stop()
