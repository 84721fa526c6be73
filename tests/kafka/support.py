"""A user's folder with a fleet in it, and the processes of the command `headwater` as a user starts them."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiokafka.client import AIOKafkaClient
from aiokafka.structs import TopicPartition

from aggregator.verify import Evidence
from broker_topics.bus import Bus, BusRecord
from broker_topics.messages import Reject
from broker_topics.topics import Topic, topic_name
from tests.fleet import chain_of
from tests.kafka.my_fleet import MY_FLEET
from tests.simulation.history import History, read_history
from tests.simulation.invariants import check

REPOSITORY = Path(__file__).parent.parent.parent
DEADLINE_S = 100.0
"""How long anything may take on a machine with other work; an idle one needs a small part of it."""

POLL_S = 0.25
"""Between two looks at a chain: each reads all of it again, and takes its time from those who are waited for."""


class GaveUpError(AssertionError):
    """Something did not come true in time."""


@dataclass(slots=True)
class Role:
    """One process of the command, its output in a file."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    may_end: bool = False
    """Whether a test waits for its end, or made it."""

    @property
    def text(self) -> str:
        """All that it has written so far."""
        return self.log.read_text(encoding="utf-8")

    def events(self, name: str) -> list[dict[str, Any]]:
        """The log lines of one event, oldest first."""
        return [line for line in self.lines() if line.get("event") == name]

    def of(self, device: str, event: str) -> list[dict[str, Any]]:
        """The log lines of one event of one device."""
        return [line for line in self.events(event) if line.get("client_id") == device]

    def lines(self) -> list[dict[str, Any]]:
        """Every whole line of the log; one that is no JSON fails the test."""
        *whole, _ = self.text.split("\n")
        strange = next((line for line in whole if not line.startswith("{")), None)
        assert strange is None, f"{self.name} wrote what is no log line: {strange!r}"
        return [json.loads(line) for line in whole]

    def kill(self) -> None:
        """kill -9."""
        self.may_end = True
        self.process.kill()
        self.process.wait()

    def send(self, number: signal.Signals) -> None:
        """Send any other signal."""
        self.process.send_signal(number)

    async def ended(self) -> int:
        """Wait for its end; the exit status."""
        self.may_end = True
        return await asyncio.to_thread(self.process.wait, DEADLINE_S)

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to end, as Ctrl-C or a supervisor does; the exit status."""
        self.send(number)
        return await self.ended()


@dataclass(slots=True)
class Fleet:
    """The roles of one task, started in one folder against one broker."""

    folder: Path
    bootstrap: str
    task: str
    roles: list[Role] = field(default_factory=list)
    plant: str = ""

    def start(self, command: str, *arguments: str, environment: Mapping[str, str] | None = None) -> Role:
        """Start a command that serves until it is told to stop."""
        number = sum(role.name == command for role in self.roles) + 1
        log = self.folder / f"{command}-{number}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [*self._command(command), "--task", self.task, *arguments],
                cwd=self.folder,
                env=self._environment(environment),
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        self.roles.append(Role(command, process, log))
        return self.roles[-1]

    def aggregator(self, *arguments: str, **environment: str) -> Role:
        """Start an aggregator on a free port."""
        return self.start("aggregator", "--listen-port", "0", *arguments, environment=environment)

    def worker(self, *devices: str, state: str = "state", **environment: str) -> Role:
        """Start one process of devices; a device's number, as in `w-3`, chooses its data."""
        return self.start(
            "worker",
            *("--module", "my_fleet:make_worker", "--state-dir", str(self.folder / state)),
            environment={"DEVICES": ",".join(devices), "HEADWATER_WORKER_BACKOFF_MAX_S": "2", **environment},
        )

    async def create(self, **settings: object) -> None:
        """`headwater task create` with settings that suit few devices."""
        chosen = {"buffer_size": 2, "flush_deadline_s": 0.5, "density": 0.1, **settings}
        pairs = [text for name, value in chosen.items() for text in ("--set", f"{name}={value}")]
        status, out = await self.run("task", "create", "--module", "my_fleet:make_model", *pairs)
        assert status == 0, out

    async def run(self, *arguments: str, **environment: str) -> tuple[int, str]:
        """Run a command to its end: exit status, and what it printed (errors included)."""
        done = await asyncio.to_thread(self.run_now, *arguments, **environment)
        return done.returncode, done.stdout + done.stderr

    def run_now(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, and wait for it."""
        return subprocess.run(
            [*self._command(*arguments), "--task", self.task],
            cwd=self.folder,
            env=self._environment(environment),
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )

    def abandon(self) -> None:
        """Leave nothing running, whatever happened."""
        for role in self.roles:
            role.kill()

    def logs(self) -> str:
        """The end of what every role wrote."""
        return "\n".join(f"{role.log.stem}:\n{role.text[-1500:]}" for role in self.roles)

    async def until(self, true: Callable[[], bool], what: str) -> None:
        """Wait until something is true of what the roles write."""
        give_up = time.monotonic() + DEADLINE_S
        while not true():
            self._give_up_after(give_up, what)
            await asyncio.sleep(0.1)

    async def until_told(self, role: Role, event: str, times: int = 1) -> None:
        """Wait until a role has written an event so often."""
        await self.until(lambda: len(role.events(event)) >= times, f"{role.name} wrote {event} {times} times")

    async def until_accepted(self, bus: Bus, count: int) -> None:
        """Wait until the chain holds so many accepted updates."""
        give_up = time.monotonic() + DEADLINE_S
        while await accepted(bus, self.task) < count:
            self._give_up_after(give_up, f"{count} updates were accepted")
            await asyncio.sleep(POLL_S)

    def _give_up_after(self, moment: float, what: str) -> None:
        failed = [role.name for role in self.roles if not role.may_end and role.process.poll() is not None]
        if failed or time.monotonic() > moment:
            raise GaveUpError(f"it never came that {what}; ended by themselves: {failed}\n{self.logs()}")

    def _command(self, *arguments: str) -> Sequence[str]:
        planted = self.plant and arguments[0] in ("aggregator", "worker")
        return [sys.executable, "-m", *(["tests.chaos.planted", self.plant] if planted else ["headwater"]), *arguments]

    def _environment(self, more: Mapping[str, str] | None) -> dict[str, str]:
        return {
            **os.environ,
            "HEADWATER_BOOTSTRAP": self.bootstrap,
            "HEADWATER_LOG_FORMAT": "json",
            "PYTHONPATH": str(REPOSITORY),
            "OPENBLAS_NUM_THREADS": "1",
            "HEADWATER_AGGREGATOR_PRELOAD": "false",  # the models of tests are too small for compiled loops
            **(more or {}),
        }


@contextmanager
def fleet_in(folder: Path, bootstrap: str, task: str) -> Iterator[Fleet]:
    """A folder with the user's module in it; every process is gone at the end."""
    (folder / "my_fleet.py").write_text(MY_FLEET, encoding="utf-8")
    fleet = Fleet(folder, bootstrap, task)
    try:
        yield fleet
    finally:
        fleet.abandon()


async def accepted(bus: Bus, task: str) -> int:
    """How many updates the chain has accepted."""
    return sum(d.accepted for record in await chain_of(bus, task) for d in record.body.decisions)


async def until_accepted(bus: Bus, task: str, count: int) -> None:
    """Wait until the chain has accepted so many updates."""
    async with asyncio.timeout(DEADLINE_S):
        while await accepted(bus, task) < count:
            await asyncio.sleep(POLL_S)


async def settled_history(bus: Bus, task: str, *, evidence: Evidence | None = None) -> History:
    """Check the log once every update in it is decided; a violation fails the test. The aggregator must still run."""
    await until_settled(bus, task)
    history = await check(bus, task, evidence=evidence, settled=True, keyframes=1)
    assert not history.violations, history.violations
    return history


async def until_settled(bus: Bus, task: str) -> None:
    """Wait until every update in the log is decided."""
    give_up = time.monotonic() + DEADLINE_S
    while not await all_settled(bus, task):
        assert time.monotonic() < give_up, "what the log acknowledged was never decided on"
        await asyncio.sleep(POLL_S)


async def all_settled(bus: Bus, task: str) -> bool:
    """Whether the chain has reached the end of every partition of updates."""
    ends = await bus.end_offsets(topic_name(task, Topic.UPDATES))
    vector = (await chain_of(bus, task))[-1].body.vector
    return all(vector[partition] >= end for partition, end in ends.items())


async def rejects_of(bus: Bus, task: str, *, at_least: int) -> list[Reject]:
    """What devices are told."""
    topic = topic_name(task, Topic.REJECTS)
    reader, found = bus.reader(topic, dict.fromkeys(await bus.end_offsets(topic), 0)), list[BusRecord]()
    try:
        async with asyncio.timeout(30):
            while len(found) < at_least:
                found += await reader.fetch(timeout_s=0.5)
    finally:
        await reader.close()
    return [Reject.from_bytes(record.value or b"") for record in found]


async def hashes(bus: Bus, task: str) -> list[bytes]:
    """The official chain as it is now, a hash each."""
    return [record.hash for record in (await read_history(bus, task)).chain]


def get(port: int, path: str) -> tuple[int, str]:
    """Fetch a page of a role on this machine."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def free_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def leader_of(bootstrap: str, topic: str) -> int:
    """The node that leads a topic's first partition."""
    client = AIOKafkaClient(bootstrap_servers=bootstrap)
    await client.bootstrap()
    try:
        cluster = await client.fetch_all_metadata()
        return int(cluster.leader_for_partition(TopicPartition(topic, 0)))
    finally:
        await client.close()
