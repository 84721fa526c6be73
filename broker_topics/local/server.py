"""One Kafka node: its settings file, its formatting, its JVM."""

import asyncio
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from broker_topics.errors import BusError, ConfigError
from broker_topics.local.agent import MetricsAgent
from broker_topics.local.listeners import SecuredListener
from broker_topics.local.plan import Plan, write_whole
from broker_topics.local.process import Process

_FORMAT_S = 60

_LOG4J = """\
status = warn
shutdownHook = disable
appenders = file
appender.file.type = RollingFile
appender.file.name = file
appender.file.fileName = {log}
appender.file.filePattern = {log}.%i
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d{{ISO8601}} %p %m (%c{{1}})%n
appender.file.policies.type = Policies
appender.file.policies.size.type = SizeBasedTriggeringPolicy
appender.file.policies.size.size = 10MB
appender.file.strategy.type = DefaultRolloverStrategy
appender.file.strategy.max = 3
rootLogger.level = info
rootLogger.appenderRefs = file
rootLogger.appenderRef.file.ref = file
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings:
    """Everything that one node's server.properties says; `ports` maps a listener's name to its port."""

    node: int
    folder: Path
    plan: Plan
    ports: Mapping[str, int]
    listeners: Sequence[SecuredListener] = ()
    properties: Mapping[str, str] = field(default_factory=dict)
    agent: MetricsAgent | None = None

    def to_properties(self) -> dict[str, str]:
        """The settings file as pairs; what `properties` says wins."""
        controllers = [f"127.0.0.1:{port}" for port in self.plan.controller_ports]
        clients = ",".join(f"{name}://127.0.0.1:{port}" for name, port in self.ports.items())
        protocols = {"PLAINTEXT": "PLAINTEXT", "CONTROLLER": "PLAINTEXT"} | {x.name: x.protocol for x in self.listeners}
        pairs = {
            "process.roles": "broker,controller",
            "node.id": str(self.node),
            "controller.quorum.bootstrap.servers": ",".join(controllers),
            "controller.listener.names": "CONTROLLER",
            "listeners": f"{clients},CONTROLLER://{controllers[self.node - 1]}",
            "advertised.listeners": f"{clients},CONTROLLER://{controllers[self.node - 1]}",
            "listener.security.protocol.map": ",".join(f"{name}:{value}" for name, value in protocols.items()),
            "inter.broker.listener.name": "PLAINTEXT",
            "log.dirs": str(self.folder / "kafka"),
        }
        for listener in self.listeners:
            pairs |= listener.properties()
        return pairs | _tuning(self.plan.nodes) | dict(self.properties)


def _tuning(nodes: int) -> dict[str, str]:
    """Small, quick to start and, after a kill -9, back within seconds."""
    replication, in_sync = ("3", "2") if nodes >= 3 else ("1", "1")
    pairs = {
        "auto.create.topics.enable": "false",
        "default.replication.factor": replication,
        "min.insync.replicas": in_sync,
        "group.initial.rebalance.delay.ms": "0",
        "log.cleaner.dedupe.buffer.size": "2097152",
        "log.initial.task.delay.ms": "500",
        "broker.session.timeout.ms": "3000" if nodes >= 3 else "1500",
        "broker.heartbeat.interval.ms": "500" if nodes >= 3 else "300",
        "offsets.topic.replication.factor": replication,
        "offsets.topic.num.partitions": "1",
    }
    for topic in ("transaction.state.log", "share.coordinator.state.topic"):
        pairs |= {
            f"{topic}.replication.factor": replication,
            f"{topic}.min.isr": in_sync,
            f"{topic}.num.partitions": "1",
        }
    return pairs


class Server:
    """One node on disk and, between `start` and its end, one JVM."""

    def __init__(self, settings: NodeSettings, *, java: Path, jars: Path) -> None:
        """Nothing happens yet; `java` is the program, `jars` the folder of Kafka's jars."""
        self.settings = settings
        self.process: Process | None = None
        self._folder = settings.folder
        heap = "256m" if settings.plan.nodes >= 3 else "384m"
        options = [
            "-Xms128m",
            f"-Xmx{heap}",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-XX:+ExitOnOutOfMemoryError",
        ]
        log4j = f"-Dlog4j2.configurationFile={self._folder / 'log4j2.properties'}"
        self._java = [str(java), *options, log4j, "-cp", f"{jars}/*"]
        self._agent = [settings.agent.java_option] if settings.agent else []

    @property
    def log_file(self) -> Path:
        """What the node tells of itself."""
        return self._folder / "server.log"

    @property
    def pid(self) -> int | None:
        """The JVM's process id; None when it does not run."""
        return self.process.pid if self.process is not None and self.process.running else None

    async def start(self, scram_users: Mapping[str, str]) -> None:
        """Write the settings, format the folder if it is new, start the JVM; it is not ready yet."""
        self._folder.mkdir(parents=True, exist_ok=True)
        write_whole(self._folder / "log4j2.properties", _LOG4J.format(log=self.log_file))
        lines = [f"{name}={value}" for name, value in self.settings.to_properties().items()]
        write_whole(self._folder / "server.properties", "\n".join(lines) + "\n")
        if not (self._folder / "formatted").exists():
            await self._format(scram_users)
        self.process = self._launch(["kafka.Kafka", self._folder / "server.properties"], self._agent)

    async def _format(self, scram_users: Mapping[str, str]) -> None:
        """Kafka's own format; a folder whose format was cut short is empty of records and made anew."""
        shutil.rmtree(self._folder / "kafka", ignore_errors=True)
        plan = self.settings.plan
        who = ["--standalone"] if plan.nodes == 1 else ["--initial-controllers", plan.voters()]
        command = ["kafka.tools.StorageTool", "format", "-t", plan.cluster_id]
        command += ["-c", str(self._folder / "server.properties"), *who]
        for name, password in scram_users.items():
            command += ["--add-scram", f"SCRAM-SHA-512=[name={name},password={password}]"]
        process = self._launch(command)
        try:
            status = await asyncio.to_thread(process.wait, _FORMAT_S)
        finally:
            if process.running:
                await asyncio.to_thread(process.stop)
        if status != 0:
            raise ConfigError(f"Kafka could not format {self._folder} (status {status}): {self.last_words()}")
        (self._folder / "formatted").touch()

    def _launch(self, command: Sequence[str | Path], options: Sequence[str] = ()) -> Process:
        """Start a JVM under its watchdog; takes 50 ms and no await, so that no cancellation comes between."""
        process = Process(
            [self._java[0], *options, *self._java[1:], *command],
            lock=self._folder / "watchdog.lock",
            output=self._folder / "console.log",
        )
        if process.pid is None:
            raise BusError(
                f"node {self.settings.node} could not be started (status {process.wait(5)}): {self.last_words()}"
            )
        return process

    def last_words(self) -> str:
        """Why the node ended, as far as its logs say: the last error lines, and where to read on."""
        found = []
        for path in (self.log_file, self._folder / "console.log"):
            if path.exists():
                lines = path.read_text(errors="replace").splitlines()[-200:]
                found += [line for line in lines if any(word in line for word in (" ERROR ", " FATAL ", "Exception"))]
        return (
            f"{' | '.join(found[-3:]) or 'no error line'} (all of it: {self.log_file}, {self._folder / 'console.log'})"
        )
