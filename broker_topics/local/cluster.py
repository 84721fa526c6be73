"""A whole local Kafka, one node or three: started, awaited, hurt on purpose and stopped."""

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from filelock import FileLock, Timeout

from broker_topics.errors import BusError, ConfigError
from broker_topics.local.agent import MetricsAgent, ensure_agent
from broker_topics.local.jars import Progress, ensure_jars
from broker_topics.local.java import find_java
from broker_topics.local.listeners import SecuredListener
from broker_topics.local.plan import Plan, free_ports, port_is_free
from broker_topics.local.ready import wait_listed
from broker_topics.local.running import LOCK_FILE, RUNNING_FILE, Running, note_running
from broker_topics.local.server import NodeSettings, Server

READY_S = 90.0
"""How long a cluster may take to become ready on a slow machine."""

_LEFTOVER_S = 30.0
_LOCK_S = 1.0
_POLL_S = 0.1


class LocalCluster:
    """A real Apache Kafka that ends with the block it is used in, and with the process, however that ends.

    async with LocalCluster(data=folder) as cluster:
        ...                                     # clients connect to cluster.bootstrap
    """

    def __init__(
        self,
        *,
        data: Path,
        nodes: int = 1,
        port: int | None = None,
        metrics_port: int | None = None,
        java: Path | None = None,
        listeners: Sequence[SecuredListener] = (),
        scram_users: Mapping[str, str] | None = None,
        properties: Mapping[str, str] | None = None,
        progress: Progress = lambda _: None,
    ) -> None:
        """Nothing is started yet.

        Args:    data: folder of everything the cluster keeps; the same folder again is the same cluster.
                 nodes: 1 or 3.
                 port: client port of the first node, the next nodes follow; free ones if None.
                 metrics_port: where the first node shows its own metrics, the next nodes follow; none if None.
                 java: Java program or home; see `find_java`.
                 listeners: further, secured ways in.
                 scram_users: name → password, taken in when the data are new.
                 properties: lines of server.properties that win over ours.
                 progress: told about long steps.
        """
        if nodes not in (1, 3):
            raise ConfigError(f"a local cluster has 1 or 3 nodes, not {nodes}")
        self._data = data.absolute()
        self._nodes, self._port, self._metrics_port = nodes, port, metrics_port
        self._java, self._progress = java, progress
        self._listeners, self._properties = tuple(listeners), dict(properties or {})
        self._scram_users = dict(scram_users or {})
        self._servers: dict[int, Server] = {}
        self._wanted: set[int] = set()
        self._lock = FileLock(self._data / LOCK_FILE, timeout=_LOCK_S, thread_local=False)

    async def __aenter__(self) -> Self:
        """Start and wait until ready."""
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop cleanly."""
        await self.stop()

    @property
    def bootstrap(self) -> str:
        """`host:port` of every node's plain listener, joined by commas."""
        return self.address("PLAINTEXT")

    def address(self, listener: str) -> str:
        """`host:port` of every node at the listener of that name."""
        return ",".join(f"127.0.0.1:{server.settings.ports[listener]}" for server in self._servers.values())

    @property
    def pids(self) -> dict[int, int]:
        """Node → process id of its JVM, of the nodes that run."""
        return {node: server.pid for node, server in self._servers.items() if server.pid is not None}

    @property
    def log_files(self) -> tuple[Path, ...]:
        """Each node's log."""
        return tuple(server.log_file for server in self._servers.values())

    @property
    def metrics_addresses(self) -> tuple[str, ...]:
        """Where Prometheus finds each node's own metrics; empty unless a metrics port was asked for."""
        agents = [server.settings.agent for server in self._servers.values()]
        return tuple(f"http://127.0.0.1:{agent.port}/metrics" for agent in agents if agent is not None)

    async def start(self) -> None:
        """Fetch what is missing, format what is new, start every node and wait until each lists all.

        Raises:  ConfigError: the folder or a port is taken, Java or a jar is wrong, Kafka refuses the settings.
                 ToolMissingError: Java or a jar cannot be had.
                 BusError: a node ended, or the cluster was not ready in time.
        """
        self._data.mkdir(parents=True, exist_ok=True)
        await asyncio.to_thread(self._take_lock)
        try:
            self._write_running(bootstrap="")
            await self._prepare()
            for node in self._servers:
                await self._start_node(node)
            self._progress("waiting for Kafka to be ready")
            await self.wait_ready()
            self._write_running(bootstrap=self.bootstrap)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """End every node cleanly; safe to call again, or after a start that failed."""
        if not self._lock.is_locked:
            return
        self._wanted.clear()
        stops = [asyncio.to_thread(s.process.stop) for s in self._servers.values() if s.process and s.process.running]
        try:
            await asyncio.shield(asyncio.gather(*stops))
        finally:
            (self._data / RUNNING_FILE).unlink(missing_ok=True)
            self._lock.release(force=True)

    async def wait_ready(self) -> None:
        """Return once every node that was not killed or stopped on purpose lists all of them.

        Raises:  BusError: one of them ended, or time is over.
        """
        ports = [self._servers[node].settings.ports["PLAINTEXT"] for node in self._wanted]
        listed = asyncio.create_task(wait_listed(ports, self._wanted))
        try:
            async with asyncio.timeout(READY_S):
                while not listed.done():
                    self._raise_if_ended()
                    await asyncio.wait([listed], timeout=_POLL_S)
        except TimeoutError:
            words = "; ".join(self._servers[node].last_words() for node in self._wanted)
            raise BusError(f"Kafka was not ready within {READY_S:.0f} s: {words}") from None
        finally:
            listed.cancel()

    async def wait_ended(self) -> None:
        """Return never, but raise BusError when a node that should run has ended on its own."""
        while True:
            self._raise_if_ended()
            await asyncio.sleep(_POLL_S)

    async def kill(self, node: int = 1) -> None:
        """End one node's JVM with SIGKILL, as a power cut would, and return when it is gone."""
        self._wanted.discard(node)
        process = self._servers[node].process
        if process is not None:
            await asyncio.to_thread(process.kill)

    async def stop_node(self, node: int = 1) -> None:
        """End one node cleanly."""
        self._wanted.discard(node)
        process = self._servers[node].process
        if process is not None:
            await asyncio.to_thread(process.stop)

    async def restart(self, node: int = 1) -> None:
        """Start a node that was killed or stopped, on its old data and port, and wait until it is ready."""
        await self._start_node(node)
        await self.wait_ready()

    def freeze(self, node: int = 1) -> None:
        """Stop one node's JVM in its tracks (SIGSTOP): it answers nothing and keeps its connections."""
        self._signal(node, signal.SIGSTOP)

    def thaw(self, node: int = 1) -> None:
        """Let a frozen node go on."""
        self._signal(node, signal.SIGCONT)

    async def _start_node(self, node: int) -> None:
        await self._servers[node].start(self._scram_users)
        self._wanted.add(node)

    def _signal(self, node: int, number: signal.Signals) -> None:
        process = self._servers[node].process
        if process is not None:
            process.send_signal(number)

    def _take_lock(self) -> None:
        try:
            self._lock.acquire()
        except Timeout:
            raise ConfigError(
                f"a broker already runs on {self._data}: stop it with `headwater broker down --data {self._data}`, "
                "or choose another folder with --data"
            ) from None

    async def _prepare(self) -> None:
        java = await asyncio.to_thread(find_java, self._java)
        jars = await asyncio.to_thread(ensure_jars, self._progress)
        plan = Plan.load_or_create(self._data, self._nodes)
        folders = [self._data / f"node-{node}" for node in range(1, self._nodes + 1)]
        await self._wait_for_leftovers(folders)
        ports = self._client_ports(plan)
        taken = [*ports, *plan.controller_ports]
        agents = await asyncio.to_thread(self._agents)
        taken += [agent.port for agent in agents]
        self._check_ports(taken)
        others = iter(free_ports(self._nodes * len(self._listeners), besides=taken))
        for node, (folder, port) in enumerate(zip(folders, ports, strict=True), start=1):
            settings = NodeSettings(
                node=node,
                folder=folder,
                plan=plan,
                ports={"PLAINTEXT": port} | {listener.name: next(others) for listener in self._listeners},
                listeners=self._listeners,
                properties=self._properties,
                agent=agents[node - 1] if agents else None,
            )
            self._servers[node] = Server(settings, java=java, jars=jars)

    def _client_ports(self, plan: Plan) -> list[int]:
        if self._port is None:
            return free_ports(self._nodes, besides=plan.controller_ports)
        return [self._port + number for number in range(self._nodes)]

    def _agents(self) -> list[MetricsAgent]:
        """One for each node, where its metrics are wanted."""
        if self._metrics_port is None:
            return []
        jar = ensure_agent(self._progress)
        return [MetricsAgent(jar, self._metrics_port + number) for number in range(self._nodes)]

    def _check_ports(self, ports: Sequence[int]) -> None:
        for port in ports:
            if not port_is_free(port):
                raise ConfigError(
                    f"port {port} is in use on this machine: end the program that listens there "
                    f"(`lsof -i :{port}` names it), or choose another with --port or --metrics-port"
                )

    async def _wait_for_leftovers(self, folders: Sequence[Path]) -> None:
        """After a kill -9 of the supervisor the nodes are still ending; each holds its lock until it has."""
        for folder in folders:
            if not folder.exists():
                continue
            held = FileLock(folder / "watchdog.lock", timeout=_LEFTOVER_S, thread_local=False)
            try:
                with await asyncio.to_thread(held.acquire):
                    pass
            except Timeout:
                raise ConfigError(f"a node of an earlier start still holds {folder}: end its java process") from None

    def _raise_if_ended(self) -> None:
        for node in self._wanted:
            server = self._servers[node]
            if server.process is not None and not server.process.running:
                raise BusError(f"node {node} ended with status {server.process.status}: {server.last_words()}")

    def _write_running(self, *, bootstrap: str) -> None:
        pids = tuple(self.pids.values())
        note_running(self._data, Running(pid=os.getpid(), bootstrap=bootstrap, nodes=self._nodes, node_pids=pids))
