"""The device's shell: one event at a time into the core, its effects performed in order, everything else beside."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from broker_topics.bus import Bus
from broker_topics.crash_points import Io, passing
from broker_topics.errors import BusError
from broker_topics.topics import Topic, topic_name
from worker.adapters import Adapter
from worker.core import Core
from worker.events import (
    Effect,
    Event,
    Kind,
    Moment,
    Produce,
    Produced,
    ProduceFailed,
    Report,
    StopRequested,
    Store,
    TimePassed,
    Train,
)
from worker.following import Following
from worker.outbox import Outbox, OutboxFullError
from worker.outbox_format import Owner
from worker.pacing import Limits
from worker.reporting import Reporter, send_telemetry
from worker.state import DeviceState
from worker.storing import stored_as
from worker.threads import Runner
from worker.training import Training

_STEP_IN_THREAD = 1 << 17
"""Parameters from which on encoding is too slow for the event loop."""

_PRODUCE_GRACE_S = 5.0
_TELEMETRY_PAUSE_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a session is made of; see `Worker` for what each is to a user."""

    task: str
    client_id: str
    bus: Bus
    outbox: Outbox
    adapter: Adapter
    training: Training
    report: Reporter
    limits: Limits
    rng: np.random.Generator
    stop: asyncio.Event
    halt: threading.Event
    clock: Callable[[], float]
    wall: Callable[[], float]
    run: Runner
    run_training: Runner
    telemetry: bool
    cohort: str
    stop_grace_s: float


class Session:
    """One life of a device's process."""

    def __init__(self, parts: Parts, state: DeviceState) -> None:
        self._parts = parts
        self._core = Core(
            task=parts.task,
            client_id=parts.client_id,
            layout=parts.adapter.layout,
            state=state,
            rng=parts.rng,
            limits=parts.limits,
        )
        self.following = Following(
            bus=parts.bus,
            task=parts.task,
            layout=parts.adapter.layout,
            tell=self._tell,
            since=lambda: self._core.state.position,
            run=parts.run,
            limits=parts.limits,
            rng=parts.rng,
        )
        self._lock, self._changed = asyncio.Lock(), asyncio.Event()
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._told = (0, 0)
        self._stored = state
        self._stop_told, self._telemetry_at_s = False, 0.0

    async def run(self) -> None:
        """Serve until `stop`; raises what ends a device: ConfigError, InvariantError."""
        self._spawn("follow", self.following.run())
        self._spawn("tick", self._tick())
        stopping = asyncio.ensure_future(self._parts.stop.wait())
        try:
            await self._tell(TimePassed())
            ending: list[asyncio.Future[Any]] = [stopping, self._failure]
            await asyncio.wait(ending, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            await self._wind_down()
        if self._failure.done():
            self._failure.result()

    async def _wind_down(self) -> None:
        """Ask the training to end and keep what it did; let a send that is under way finish if it is quick."""
        self._parts.halt.set()
        self._parts.stop.set()
        for name in ("follow", "tick", "telemetry"):
            await self._cancel(name)
        await self._attempt(self._tell(TimePassed()))
        for name, grace_s in (("train", self._parts.stop_grace_s), ("produce", _PRODUCE_GRACE_S)):
            if name in self._tasks:
                await asyncio.wait([self._tasks[name]], timeout=grace_s)
            await self._cancel(name)
        if self._core.state is not self._stored:
            await self._attempt(self._store(self._core.state))
        await self.following.close()

    async def _attempt(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it; an error ends the session, as one of a task does."""
        try:
            await work
        except Exception as error:
            if not self._failure.done():
                self._failure.set_exception(error)

    async def _cancel(self, name: str) -> None:
        task = self._tasks.get(name)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _spawn(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        async def watched() -> None:
            await self._attempt(work)

        task = asyncio.ensure_future(watched())
        self._tasks[name] = task

        def forget(done: "asyncio.Task[None]") -> None:
            if self._tasks.get(name) is done:
                del self._tasks[name]

        task.add_done_callback(forget)

    # The core and its effects

    async def _tell(self, event: Event) -> None:
        async with self._lock:
            if self._parts.halt.is_set() and not self._stop_told:
                # Before a training that was just asked to end can be answered with the next one.
                self._stop_told = True
                await self._step(StopRequested())
            await self._step(event)
        self._changed.set()

    async def _step(self, event: Event) -> None:
        now = Moment(self._parts.clock(), self._parts.wall())
        if self._parts.adapter.layout.size > _STEP_IN_THREAD:
            effects = await self._parts.run(lambda: self._core.step(event, now))
        else:
            effects = self._core.step(event, now)
        for effect in effects:
            await self._perform(effect)

    async def _perform(self, effect: Effect) -> None:
        match effect:
            case Store(state):
                await self._store(state)
            case Produce():
                self._spawn("produce", self._produce(effect))
            case Train():
                self._spawn("train", self._train(effect))
            case Report():
                self._parts.report(effect)
                if effect.kind is Kind.TRAINED and self._telemetry_is_due():
                    self._telemetry_at_s = self._parts.clock() + _TELEMETRY_PAUSE_S
                    self._spawn("telemetry", self._telemetry(effect))

    async def _store(self, state: DeviceState) -> None:
        """Nothing goes on before the state is safe; a full disk is waited out, as training again would cost more."""
        failures = 0
        while True:
            try:
                with passing(stored_as(self._stored, state)):
                    await _to_the_end(self._parts.run(lambda: self._parts.outbox.save(state)))
                self._stored = state
                return
            except OutboxFullError as error:
                failures += 1
                self._parts.report(Report(Kind.OUTBOX_FULL, {"reason": str(error)}))
                if self._parts.stop.is_set():
                    raise
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._parts.limits.pause_s(failures, self._parts.rng)):
                        await self._parts.stop.wait()

    async def _produce(self, effect: Produce) -> None:
        row, topic = effect.row, topic_name(self._parts.task, Topic.UPDATES)
        key = self._parts.client_id.encode()
        try:
            partition = await self._parts.bus.partition_for(topic, key)
            with passing(Io.PRODUCE):
                place = await self._parts.bus.send(topic, key=key, value=row.data, partition=partition)
        except BusError as error:
            await self._tell(ProduceFailed(str(error)))
            return
        await self._tell(
            Produced(incarnation=row.incarnation, sequence=row.sequence, partition=place.partition, offset=place.offset)
        )

    async def _train(self, effect: Train) -> None:
        base = effect.base
        if base is None:
            assert self.following.snapshot is not None  # the core trains from the newest model only once it is there
            base = self.following.snapshot.base
        start = base
        await self._tell(await self._parts.run_training(lambda: self._parts.training.once(effect, start)))

    def _telemetry_is_due(self) -> bool:
        idle = "telemetry" not in self._tasks and not self._parts.halt.is_set()
        return self._parts.telemetry and idle and self._parts.clock() >= self._telemetry_at_s

    async def _telemetry(self, trained: Report) -> None:
        attempts, retries = self._core.sending.attempts, self._core.sending.retries
        numbers = {name: float(value) for name, value in trained.facts.items() if not isinstance(value, str)}
        values: dict[str, float | str] = {
            name.removeprefix("metric_"): value for name, value in numbers.items() if name.startswith("metric_")
        }
        values |= {
            "train_seconds": numbers["seconds"],
            "train_steps": numbers["steps"],
            "outbox_updates": self._core.state.waiting,
            "outbox_age_seconds": self._oldest_work_s(),
            "outbox_bytes": self._parts.outbox.stored_bytes,
            "base_version_lag": self._core.base_version_lag,
            "publish_attempts": attempts - self._told[0],
            "publish_retries": retries - self._told[1],
            "discarded_work": self._core.state.tally.discarded,
            "downlink_bytes": self.following.bytes_received,
            **({"cohort": self._parts.cohort} if self._parts.cohort else {}),
        }
        names = {"task": self._parts.task, "client_id": self._parts.client_id}
        if await send_telemetry(self._parts.bus, **names, incarnation=self._core.state.incarnation, values=values):
            self._told = (attempts, retries)

    def _oldest_work_s(self) -> float:
        since_s = self._core.state.waiting_since_s
        return 0.0 if since_s is None else max(0.0, self._parts.wall() - since_s)

    async def _tick(self) -> None:
        """Tell the core when a moment comes that it waits for."""
        while True:
            self._changed.clear()
            wake_s = self._core.wake_s
            pause_s = None if wake_s is None else max(0.0, wake_s - self._parts.clock())
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._changed.wait()
            if wake_s is not None and self._parts.clock() >= wake_s:
                await self._tell(TimePassed())


async def _to_the_end(work: Awaitable[None]) -> None:
    """Wait for work in a thread also when cancelled: it cannot be called back, and the next store must not meet it."""
    doing = asyncio.ensure_future(work)
    try:
        await asyncio.shield(doing)
    except asyncio.CancelledError:
        await asyncio.gather(doing, return_exceptions=True)
        raise


def owner_of(task: str, client_id: str, adapter: Adapter) -> Owner:
    """Whose outbox it is."""
    return Owner(task=task, client_id=client_id, layout=adapter.layout.fingerprint, size=adapter.layout.size)
