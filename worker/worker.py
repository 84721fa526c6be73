"""A device, for those who have a model, data and a training function: `Worker(…).run()`."""

import asyncio
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from platformdirs import user_state_path

from broker_topics.bus import Bus
from broker_topics.crash_points import Io, passing
from broker_topics.errors import BusError, ConfigError
from broker_topics.messages import check_client_id, check_cohort
from broker_topics.settings import ConnectionSettings
from broker_topics.topics import Topic, topic_name
from monitoring.logs import configure
from worker.adapters import adapter_for
from worker.events import Kind, Report
from worker.outbox import Outbox, SqliteOutbox
from worker.pacing import Limits
from worker.reporting import OnEvent, Reporter
from worker.shell import Parts, Session, owner_of
from worker.state import DeviceState
from worker.threads import OwnThread, Runner, in_pool
from worker.training import TrainFunction, Training


class Worker:
    """One device of a task: trains on data that never leaves, sends compressed updates, follows the common model.

    Args:    task, client_id: which model, and who this device is; the id must be this device's alone.
             model: a PyTorch module or a dict of float32 numpy arrays, built as when the task was created.
             train: called as `train(model, context)` in a thread of its own; changes the model in place and returns a
             LocalResult.
             bootstrap: the broker's address, else HEADWATER_BOOTSTRAP; or bus: a started connection, left open.
             state_dir: where work survives a power cut; default the user's state folder / task / client id.
             can_train: asked before each training, for example whether the device is charging.
             cohort: a group that this device is counted in, such as "android-14"; for metrics and nothing else.
             telemetry: report training time, loss and the like to the fleet's operators.
             on_event: told of what happens to this device, from the event loop.
             seed: makes the seeds of trainings repeatable.
             limits: pauses after failures and the longest wait of a record.
             stop_grace_s: how long a training may take to end once it was asked to.
             outbox_max_bytes: what the state may take on disk; 0 leaves it to the model's size.
             outbox, clock, wall_clock, run_in_thread: what simulations replace.
    Raises:  ConfigError: a model that is not supported, an id that cannot be one, both or neither of bus and address.
    """

    def __init__(
        self,
        *,
        task: str,
        client_id: str,
        model: Any,
        train: TrainFunction,
        bootstrap: str | None = None,
        bus: Bus | None = None,
        state_dir: str | os.PathLike[str] | None = None,
        can_train: Callable[[], bool] | None = None,
        cohort: str = "",
        telemetry: bool = True,
        on_event: OnEvent | None = None,
        seed: int | None = None,
        limits: Limits | None = None,
        stop_grace_s: float = 30.0,
        outbox_max_bytes: int = 0,
        outbox: Outbox | None = None,
        clock: Callable[[], float] | None = None,
        wall_clock: Callable[[], float] = time.time,
        run_in_thread: Runner | None = None,
    ) -> None:
        topic_name(task, Topic.UPDATES)
        self.task, self.client_id = task, check_client_id(client_id)
        if bus is not None and bootstrap is not None:
            raise ConfigError("give the worker a bus or a bootstrap address, not both")
        self.bootstrap, self.state_dir = bootstrap, state_dir
        self._bus, self._outbox, self._outbox_max_bytes = bus, outbox, outbox_max_bytes
        self._model, self._adapter, self._train, self._can_train = model, adapter_for(model), train, can_train
        self._telemetry, self._on_event, self._limits = telemetry, on_event, limits
        self._cohort = check_cohort(cohort)
        self._rng, self._stop_grace_s = np.random.default_rng(seed), stop_grace_s
        self._clock, self._wall = clock, wall_clock
        self._run_in_thread = run_in_thread
        self._run = run_in_thread or in_pool
        self._halt = threading.Event()
        self._stop: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None
        self._session: Session | None = None

    def run(self) -> None:
        """Serve until Ctrl-C, SIGTERM or `stop`; work that was begun is kept for the next start.

        Raises:  ConfigError: what the operator must mend, such as an unknown task or a wrong password.
        """
        if not logging.getLogger().handlers:
            configure()

        async def main() -> None:
            with _stopped_by_signals(self.stop):
                await self.serve()

        asyncio.run(main())

    async def serve(self) -> None:
        """Serve until `stop`; the coroutine behind `run`, for programs that have an event loop of their own."""
        stop = asyncio.Event()
        self._stop = (asyncio.get_running_loop(), stop)
        if self._halt.is_set():
            stop.set()
        bus, close_bus = self._bus or self._own_bus(), self._bus is None
        outbox = self._outbox or SqliteOutbox(self._folder(), max_bytes=self._outbox_max_bytes)
        report = Reporter(task=self.task, client_id=self.client_id, wall=self._wall, on_event=self._on_event)
        owner = owner_of(self.task, self.client_id, self._adapter)
        with passing(Io.OUTBOX_OPEN):
            state = await self._run(lambda: outbox.open(owner)) or DeviceState.fresh(self._adapter.layout)
        if outbox.moved_aside is not None:
            report(Report(Kind.OUTBOX_CORRUPT, {"moved_to": str(outbox.moved_aside)}))
        thread = OwnThread()
        try:
            if close_bus:
                await _start(bus)
            parts = self._parts(bus, outbox, report, stop, self._run_in_thread or thread)
            self._session = Session(parts, state)
            await self._session.run()
        finally:
            thread.close()
            if close_bus:
                await bus.close()
            await self._run(outbox.close)
            self._stop = None
            self._halt = threading.Event()

    def adopt(
        self,
        *,
        task: str | None = None,
        bootstrap: str | None = None,
        state_dir: Path | None = None,
        limits: Limits | None = None,
        outbox_max_bytes: int = 0,
        cohort: str = "",
    ) -> None:
        """Take over what a command line says. What the code that made this worker left open may come from settings.

        Args:    task, bootstrap, state_dir: replace the worker's own, if given. limits, outbox_max_bytes, cohort: count
                 only where the worker was made without.
        Raises:  ConfigError: a name that cannot be a task's, or a bootstrap for a worker that was given a bus.
        """
        if task is not None:
            topic_name(task, Topic.UPDATES)
            self.task = task
        if bootstrap is not None:
            if self._bus is not None:
                raise ConfigError(f"worker {self.client_id} was made with a bus of its own: leave out --bootstrap")
            self.bootstrap = bootstrap
        self.state_dir = state_dir or self.state_dir
        self._limits = self._limits or limits
        self._outbox_max_bytes = self._outbox_max_bytes or outbox_max_bytes
        self._cohort = self._cohort or check_cohort(cohort)

    def stop(self) -> None:
        """Ask the worker to end soon: its training is told through `context.stop`. May be called from any thread."""
        self._halt.set()
        if self._stop is not None:
            loop, stop = self._stop
            loop.call_soon_threadsafe(stop.set)

    def model(self) -> Any:
        """The served model at the newest version that this device knows: a new module, or a new dict of arrays.

        Raises:  ConfigError: nothing was received yet.
        """
        snapshot = self._session.following.snapshot if self._session is not None else None
        if snapshot is None:
            raise ConfigError("no model was received yet: let the worker run until it has reached the broker")
        return self._adapter.copy_with(snapshot.served)

    def _parts(self, bus: Bus, outbox: Outbox, report: Reporter, stop: asyncio.Event, run_training: Runner) -> Parts:
        clock = self._clock or asyncio.get_running_loop().time
        training = Training(
            model=self._model,
            adapter=self._adapter,
            train=self._train,
            can_train=self._can_train,
            stop=self._halt,
            clock=clock,
        )
        return Parts(
            task=self.task,
            client_id=self.client_id,
            bus=bus,
            outbox=outbox,
            adapter=self._adapter,
            training=training,
            report=report,
            limits=self._limits or Limits(),
            rng=self._rng,
            stop=stop,
            halt=self._halt,
            clock=clock,
            wall=self._wall,
            run=self._run,
            run_training=run_training,
            telemetry=self._telemetry,
            cohort=self._cohort,
            stop_grace_s=self._stop_grace_s,
        )

    def _own_bus(self) -> Bus:
        from broker_topics.kafka import KafkaBus

        return KafkaBus(ConnectionSettings.load(os.environ, bootstrap=self.bootstrap))

    def _folder(self) -> Path:
        if self.state_dir is not None:
            return Path(self.state_dir)
        return (
            user_state_path("headwater", appauthor=False) / quote(self.task, safe="") / quote(self.client_id, safe="")
        )


async def _start(bus: Bus) -> None:
    """Find out about a wrong password at once; a broker that is away is waited for."""
    try:
        await bus.start()
    except BusError:
        return


@contextmanager
def _stopped_by_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Let the first Ctrl-C or SIGTERM ask for an end in order; the next one has its usual, abrupt effect."""
    loop, numbers = asyncio.get_running_loop(), (signal.SIGINT, signal.SIGTERM)

    def asked() -> None:
        for number in numbers:
            loop.remove_signal_handler(number)
        stop()

    try:
        for number in numbers:
            loop.add_signal_handler(number, asked)
    except (NotImplementedError, ValueError, RuntimeError):  # Windows, or not the main thread
        yield
        return
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
