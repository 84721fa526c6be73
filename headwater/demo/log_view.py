"""Reads a run from its log alone: every figure of the view and of the report is what the broker holds."""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from aggregator.insight.telemetry import EVALUATOR
from broker_topics.bus import Bus, BusRecord, LogReader
from broker_topics.commits_log import CommitsReader, Official
from broker_topics.errors import WireError
from broker_topics.messages import Telemetry, Update
from broker_topics.record import Decision, RunKind
from broker_topics.topics import Topic, topic_name
from headwater.demo.snapshot import Arrival, Evaluation

_RATE_S = 10.0


@dataclass(frozen=True, slots=True)
class _Sent:
    """What the header of an update in the log says."""

    client_id: str
    base_version: int
    size: int
    bytes: int


@dataclass(slots=True)
class Tally:
    """What the log says of one device."""

    updates: int = 0
    refused: int = 0
    staleness: int = 0


@dataclass(slots=True)
class LogView:
    """Follows the topics of one task; `poll` takes in what is new, the fields are totals since the beginning."""

    bus: Bus
    task: str
    begun_ms: Callable[[], float]
    version: int = 0
    server_steps: int = 0
    accepted: int = 0
    uplink_bytes: int = 0
    uplink_bytes_float32: int = 0
    rejects: Counter[str] = field(default_factory=Counter)
    staleness: Counter[int] = field(default_factory=Counter)
    devices: dict[str, Tally] = field(default_factory=dict)
    evaluations: list[Evaluation] = field(default_factory=list)
    arrivals: list[Arrival] = field(default_factory=list)
    served_hash: str = ""
    chain_head: str = ""
    _received: dict[str, float] = field(default_factory=dict)
    _sent: dict[tuple[int, int], _Sent] = field(default_factory=dict)
    _undecided: dict[tuple[int, int], tuple[Decision, int, float]] = field(default_factory=dict)
    _at_version: dict[int, tuple[int, int]] = field(default_factory=dict)
    _recent: "deque[float]" = field(default_factory=deque)
    _commits: CommitsReader = field(init=False)
    _updates: LogReader = field(init=False)
    _telemetry: LogReader = field(init=False)

    async def open(self) -> "LogView":
        """Begin at the beginning of every topic."""
        self._commits = CommitsReader(self.bus, self.task)
        self._updates = await self._reader(Topic.UPDATES)
        self._telemetry = await self._reader(Topic.TELEMETRY)
        return self

    async def _reader(self, topic: Topic) -> LogReader:
        name = topic_name(self.task, topic)
        return self.bus.reader(name, await self.bus.start_offsets(name))

    async def close(self) -> None:
        """Give up the connections."""
        for reader in (self._commits, self._updates, self._telemetry):
            await reader.close()

    @property
    def downlink_bytes(self) -> int:
        """Bytes of models that the devices say they fetched."""
        return int(sum(self._received.values()))

    def updates_per_s(self, now_s: float) -> float:
        """Accepted updates a second over the last ten seconds."""
        while self._recent and self._recent[0] < now_s - _RATE_S:
            self._recent.popleft()
        return len(self._recent) / min(_RATE_S, max(1.0, now_s))

    async def poll(self, timeout_s: float) -> None:
        """Take in what is new; waits for at most `timeout_s`."""
        for record in await self._updates.fetch(timeout_s=timeout_s):
            self._take_update(record)
        for official in await self._commits.poll(0.0):
            self._take_record(official)
        for record in await self._telemetry.fetch(timeout_s=0.0):
            self._take_telemetry(record)

    async def to_the_end(self) -> None:
        """Take in everything that is in the log by now."""
        ends = {topic: await self.bus.end_offsets(topic_name(self.task, topic)) for topic in (Topic.UPDATES,)}
        while any(self._updates.position(p) < end for p, end in ends[Topic.UPDATES].items()):
            await self.poll(1.0)
        commits_end = (await self.bus.end_offsets(topic_name(self.task, Topic.COMMITS)))[0]
        while self._commits.offset < commits_end:
            await self.poll(0.1)

    def _take_update(self, record: BusRecord) -> None:
        where, data = (record.partition, record.offset), record.value or b""
        try:
            update = Update.from_bytes(data)
            self._sent[where] = _Sent(update.client_id, update.base_version, update.encoded.size, len(data))
        except WireError:
            self._sent[where] = _Sent("", 0, 0, len(data))
        if where in self._undecided:
            self._decide(where, *self._undecided.pop(where))

    def _take_record(self, official: Official) -> None:
        body, at_s = official.record.body, (official.timestamp_ms - self.begun_ms()) / 1000
        before = body.version - len(body.steps)
        index = 0
        for run in body.runs:
            if run.kind is not RunKind.DATA or run.partition == len(body.vector) - 1:
                continue
            for offset in range(run.first, run.first + run.count):
                self._decide((run.partition, offset), body.decisions[index], before, at_s)
                index += 1
        self.version, self.server_steps = body.version, self.server_steps + len(body.steps)
        self._at_version[body.version] = (self.accepted, self.uplink_bytes)
        self.served_hash, self.chain_head = body.served_hash.hex(), official.record.hash.hex()

    def _decide(self, where: tuple[int, int], decision: Decision, version: int, at_s: float) -> None:
        sent = self._sent.pop(where, None)
        if sent is None:
            self._undecided[where] = (decision, version, at_s)
            return
        device = self.devices.setdefault(sent.client_id, Tally())
        self.uplink_bytes += sent.bytes
        self.uplink_bytes_float32 += 4 * sent.size
        if decision.code is not None:
            self.rejects[decision.code] += 1
            device.refused += 1
            return
        staleness = version - sent.base_version
        self.accepted += 1
        self.staleness[staleness] += 1
        device.updates += 1
        device.staleness += staleness
        self._recent.append(at_s)
        self.arrivals.append(Arrival(device=sent.client_id, at_s=at_s, staleness=staleness))

    def _take_telemetry(self, record: BusRecord) -> None:
        try:
            report = Telemetry.from_bytes(record.value or b"")
        except WireError:
            return
        values = {name: value for name, value in report.values.items() if isinstance(value, int | float)}
        if report.client_id == EVALUATOR and values.keys() >= {"version", "accuracy", "loss"}:
            version = int(values["version"])
            updates, uplink_bytes = self._at_version.get(version, (self.accepted, self.uplink_bytes))
            self.evaluations.append(
                Evaluation(
                    at_s=(record.timestamp_ms - self.begun_ms()) / 1000,
                    version=version,
                    updates=updates,
                    uplink_bytes=uplink_bytes,
                    accuracy=values["accuracy"],
                    loss=values["loss"],
                )
            )
        elif "downlink_bytes" in values:
            self._received[report.client_id] = max(self._received.get(report.client_id, 0), values["downlink_bytes"])
