"""Devices of the simulation: the product's own Worker on an outbox that counts every number it is trusted with."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from random import Random
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from broker_topics.codecs import decode
from broker_topics.messages import Update
from tests.simulation.disk import Disk, same
from tests.simulation.network import TASK, Link
from worker import Limits, LocalResult, TrainContext, Worker
from worker.outbox_format import Owner
from worker.state import DeviceState, Row, Tally

T = TypeVar("T")
Mass = npt.NDArray[np.float64]

SIZE = 4
TORN_OFTEN = 5
"""How much likelier a device with a real disk dies at a write: that is what its disk is there to show."""

LIMITS = Limits(backoff_initial_s=0.5, backoff_max_s=20.0, max_age_s=1e7)


class KilledError(Exception):
    """The process that this belonged to is dead."""


@lru_cache(maxsize=1024)
def mass_of(data: bytes) -> Mass:
    """What an update adds to a model, float64[P]; not to be changed."""
    into = np.zeros(SIZE, np.float32)
    decode(Update.from_bytes(data).encoded).add_to(into)
    return into.astype(np.float64)


def held(state: DeviceState) -> Mass:
    """All work that a state holds: residual, queued, and in doubt or sent."""
    total = state.residual.astype(np.float64)
    if state.queued is not None:
        total = total + state.queued.local - state.queued.base.vector
    return total + mass_of(state.row.data) if state.row is not None else total


def held_trainings(state: DeviceState) -> float:
    """The same, counted in trainings."""
    return state.carry + (state.queued.work if state.queued else 0) + (state.row.work if state.row else 0)


class Outbox:
    """What survives a device's crashes; refuses to lose or invent anything.

    Args:  tolerance: what rounding may change in the mass of one transaction, 0 where all numbers are exact.
           complain: told of every broken rule. excused: whether records of the chain were lost, so that a device may
           have to go back.
    """

    moved_aside = None
    stored_bytes = 0

    def __init__(
        self, *, tolerance: float, complain: Callable[[str], None], excused: Callable[[], bool] = lambda: False
    ) -> None:
        self.state: DeviceState | None = None
        self.history: list[DeviceState] = []
        self.settled: list[tuple[Row, str]] = []
        self.acknowledged: list[Row] = []
        self.seen: list[tuple[int, bytes]] = []
        self.trained: Mass = np.zeros(SIZE)
        self.tolerance, self._complain, self.excused = tolerance, complain, excused
        self.disk: Disk | None = None
        self.torn: DeviceState | None = None

    def copy(self) -> "Outbox":
        """The file copied to another device, or kept as a backup."""
        other = Outbox(tolerance=self.tolerance, complain=self._complain, excused=self.excused)
        other.state = self.state
        return other

    def restore(self, backup: DeviceState) -> None:
        """The file as it once was, put back."""
        self.state, self.seen, self.torn = backup, [], None
        if self.disk is not None:
            self.disk.put_back(backup)

    def open(self, owner: Owner) -> DeviceState | None:
        """What a new life finds: on a real disk all of the transaction that a power cut tore, or nothing of it."""
        if self.disk is None:
            return self.state
        found, torn, self.torn = self.disk.open(owner), self.torn, None
        if torn is not None and same(found, torn):
            self.save(torn)
        elif not same(found, self.state):
            self._complain("disk: an outbox came back as neither what it was nor what it was to become")
        return found

    def save(self, state: DeviceState) -> None:
        """One transaction."""
        before = self.state or DeviceState(residual=np.zeros(SIZE, np.float32))
        self._check(before, state)
        self.state = state
        self.history = [*self.history[-5:], state]
        if state.position is not None:
            self.seen.append((state.position.height, state.position.hash))

    def _check(self, before: DeviceState, after: DeviceState) -> None:
        gone: Mass = np.zeros(SIZE)
        old, row = before.row, after.row
        if old is not None and (row is None or row.data != old.data):
            outcome = _outcome(before.tally, after.tally)
            self.settled.append((old, outcome))
            if outcome == "vanished":
                self._complain("I4: a device lost an update without counting it")
            if outcome != "given_back":
                gone = mass_of(old.data)
        if row is not None and not row.in_doubt and (old is None or old.in_doubt):
            self.acknowledged.append(row)
        came = self.trained if after.tally.trained > before.tally.trained else np.zeros(SIZE)
        off = np.abs(held(before) + came - held(after) - gone).max()
        if off > self.tolerance:
            self._complain(f"mass: a device's transaction loses or invents {off}")
        tally, earlier = after.tally, before.tally
        trainings = tally.trained - tally.accepted - tally.discarded - held_trainings(after)
        if trainings != earlier.trained - earlier.accepted - earlier.discarded - held_trainings(before):
            self._complain("mass: a device's transaction loses or invents trainings")
        back = self.seen and after.position is not None and after.position.height < self.seen[-1][0]
        if back and after.position is not None and not self.excused():
            self._complain(f"I9: a device was at height {self.seen[-1][0]} and then at {after.position.height}")


def _outcome(before: Tally, after: Tally) -> str:
    if after.updates_accepted > before.updates_accepted:
        return "accepted"
    if after.updates_given_back > before.updates_given_back:
        return "given_back"
    return "discarded" if after.updates_discarded > before.updates_discarded else "vanished"


@dataclass(slots=True)
class _Process:
    """The hands of one process on an outbox: none once it is dead."""

    outbox: Outbox
    link: Link
    moved_aside = None
    stored_bytes = 0

    def open(self, owner: Owner) -> DeviceState | None:
        return self.outbox.open(owner)

    def save(self, state: DeviceState) -> None:
        if self.link.killed:
            raise KilledError
        # The process may die right before a transaction or right after it.
        weather, draw = self.link.weather, self.link.rng.random()
        disk = self.outbox.disk
        if not weather.calm and draw < weather.crash * (TORN_OFTEN if disk is not None else 1):
            if disk is not None and self.link.rng.random() < 0.7:
                self.outbox.torn = state
                disk.save_torn(state)
            self.link.kill()
            raise KilledError
        if disk is not None:
            disk.save(state)
        self.outbox.save(state)
        if not weather.calm and draw > 1 - weather.crash:
            self.link.kill()

    def close(self) -> None:
        return


@dataclass(slots=True, kw_only=True)
class Watch:
    """One device: lives, dies and is started again.

    period_s: how long a training takes.
    """

    client_id: str
    rng: Random
    outbox: Outbox
    link_up: Callable[[], Link]
    complain: Callable[[str], None]
    wall: Callable[[], float]
    period_s: float
    largest: int
    link: Link | None = None
    worker: Worker | None = None
    abandoned: bool = False
    task: "asyncio.Task[None] | None" = None
    _trains: bool = False
    _model: dict[str, npt.NDArray[np.float32]] = field(default_factory=lambda: {"w": np.zeros(SIZE, np.float32)})

    @property
    def idle(self) -> bool:
        """Whether nothing of it waits to be settled."""
        state = self.outbox.state
        return not self._trains and (state is None or (state.row is None and state.queued is None))

    async def live(self) -> None:
        """Start again and again until abandoned."""
        while not self.abandoned:
            link = self.link = self.link_up()
            worker = self.worker = self._worker(link)
            process = self.task = asyncio.ensure_future(worker.serve())
            link.on_kill = process.cancel
            try:
                await asyncio.wait([process])
            finally:
                link.kill()
            self._trains = False
            with suppress(asyncio.CancelledError):
                error = process.exception()
                if error is not None and not isinstance(error, KilledError):
                    self.complain(f"crash: a device ended with {type(error).__name__}: {error}")
            await asyncio.sleep(self.rng.choice([0.0, 0.5, 3.0, 20.0]))

    def _worker(self, link: Link) -> Worker:
        return Worker(
            task=TASK,
            client_id=self.client_id,
            model=self._model,
            train=self._train,
            bus=link,
            can_train=lambda: not link.weather.calm,
            telemetry=False,
            seed=self.rng.getrandbits(32),
            limits=LIMITS,
            stop_grace_s=1.0,
            outbox=_Process(self.outbox, link),
            wall_clock=self.wall,
            run_in_thread=self._in_thread,
        )

    def _in_thread(self, function: Callable[[], T]) -> Awaitable[T]:
        return self._run(function)

    async def _run(self, function: Callable[[], T]) -> T:
        """What a thread would do; a training takes its time."""
        before = self.outbox.trained
        result = function()
        if self.outbox.trained is not before:
            self._trains = True
            await asyncio.sleep(self.period_s * self.rng.uniform(0.5, 1.5))
            # Nobody else runs between here and the transaction.
            self._trains = False
        return result

    def _train(self, model: dict[str, npt.NDArray[np.float32]], context: TrainContext) -> LocalResult:
        delta = np.array([self.rng.randint(-self.largest, self.largest) for _ in range(SIZE)], np.float32)
        start = model["w"].astype(np.float64)
        model["w"] += delta
        self.outbox.trained = model["w"].astype(np.float64) - start
        return LocalResult(num_examples=self.rng.randint(1, 20), num_steps=self.rng.randint(1, 3))
