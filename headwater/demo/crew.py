"""Keeps the roles of the demo alive: starts them, notices when one dies, starts it again and says so."""

import asyncio
import json
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Protocol

from broker_topics.memory import MemoryBus
from broker_topics.memory_log import MemoryLog
from headwater.demo.fleet import OnActivity, run_group
from headwater.demo.plan import GROUPS, Plan
from headwater.demo.roles import run_aggregator, run_evaluator
from headwater.demo.snapshot import Role

NAMES = ("aggregator", "evaluator", *(f"worker-{number}" for number in range(GROUPS)))
_STOP_S = 20.0
_RESTART_S = 0.3


class Crew(Protocol):
    """The roles of a run, however they are run."""

    async def start(self) -> None:
        """Start every role."""

    async def stop(self) -> None:
        """End every role in order: devices first, so that the aggregator settles what they sent."""

    def roles(self) -> tuple[Role, ...]:
        """How the roles are, in a fixed order."""


class ProcessCrew:
    """One process a role; one that ends unasked is started again.

    happened: told in a sentence what a watcher should notice.
    """

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        *,
        tell: OnActivity,
        happened: Callable[[str], None],
        changed: Callable[[], None],
    ) -> None:
        self._plan_file, self._folder = folder / "plan.json", folder
        plan.write(self._plan_file)
        self._tell, self._happened, self._changed = tell, happened, changed
        self._roles = {name: Role(name=name, pid=None, state="starting", restarts=0) for name in NAMES}
        self._processes: dict[str, Process] = {}
        self._keepers: dict[str, asyncio.Task[None]] = {}
        self._stopping = False

    def roles(self) -> tuple[Role, ...]:
        """How the roles are."""
        return tuple(self._roles.values())

    async def start(self) -> None:
        """Start every role and a keeper for each."""
        for name in NAMES:
            self._keepers[name] = asyncio.create_task(self._keep(name), name=name)

    async def stop(self) -> None:
        """End the workers, then the others; whoever does not end in time is killed."""
        self._stopping = True
        workers = [name for name in NAMES if name.startswith("worker-")]
        for names in (workers, ["evaluator"], ["aggregator"]):
            for name in names:
                if name in self._processes:
                    with suppress(ProcessLookupError):
                        self._processes[name].send_signal(signal.SIGTERM)
            waiting = [self._keepers[name] for name in names]
            _, late = await asyncio.wait(waiting, timeout=_STOP_S)
            for name in names:
                if self._keepers[name] in late:
                    with suppress(ProcessLookupError):
                        self._processes[name].kill()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def _keep(self, name: str) -> None:
        restarts = 0
        with (self._folder / f"{name}.log").open("ab") as log:
            while (code := await self._run_once(name, restarts, log)) is not None:
                restarts += 1
                self._set(name, None, "down", restarts)
                self._happened(f"{name} died ({_cause(code)}); starting it again")
                await asyncio.sleep(_RESTART_S)
        self._set(name, None, "finished", restarts)

    async def _run_once(self, name: str, restarts: int, log: BinaryIO) -> int | None:
        """Run a role to its end; its exit code, or None if it was to end."""
        arguments = ("-m", "headwater.demo.roles", name, str(self._plan_file))
        process = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, stdin=PIPE, stdout=PIPE, stderr=log, start_new_session=True
        )
        self._processes[name] = process
        self._set(name, process.pid, "running", restarts)
        if restarts:
            self._happened(f"{name} is back with pid {process.pid}")
        assert process.stdout is not None
        async for line in process.stdout:
            device, activity, at_s = json.loads(line)
            self._tell(device, activity, at_s)
        code = await process.wait()
        return None if self._stopping else code

    def _set(self, name: str, pid: int | None, state: str, restarts: int) -> None:
        self._roles[name] = Role(name=name, pid=pid, state=state, restarts=restarts)  # type: ignore[arg-type]
        self._changed()


class MemoryCrew:
    """Every role in this process, over a log in memory: for a first look where no broker can run."""

    def __init__(self, plan: Plan, log: MemoryLog, *, tell: OnActivity) -> None:
        self._plan, self._log, self._tell = plan, log, tell
        self._stop, self._stop_workers = asyncio.Event(), asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def roles(self) -> tuple[Role, ...]:
        """Tasks have no process of their own."""
        state = "finished" if self._stop.is_set() else "running"
        return tuple(Role(name=name, pid=None, state=state, restarts=0) for name in NAMES)  # type: ignore[arg-type]

    async def start(self) -> None:
        """Start every role as a task."""
        bus = MemoryBus(self._log)
        await bus.start()
        devices = self._plan.devices
        workers = run_group(self._plan, devices, lambda: MemoryBus(self._log), self._stop_workers, self._tell)
        self._tasks = [
            asyncio.create_task(workers),
            asyncio.create_task(run_evaluator(self._plan, bus, self._stop)),
            asyncio.create_task(run_aggregator(self._plan, bus, self._stop)),
        ]

    async def stop(self) -> None:
        """End the workers, then the others; the first error of a role is raised."""
        self._stop_workers.set()
        await asyncio.wait(self._tasks[:1], timeout=_STOP_S)
        self._stop.set()
        await asyncio.gather(*self._tasks)


def _cause(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"status {code}"
