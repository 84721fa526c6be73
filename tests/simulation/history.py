"""A task's log, read once, for tests that ask more of it than the checker does."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from aggregator.verify.links import follows
from broker_topics.bus import Bus, BusRecord
from broker_topics.errors import WireError
from broker_topics.layout import Vector
from broker_topics.record import Decision, Record, parse
from broker_topics.topics import Topic, topic_name


@dataclass(frozen=True, slots=True)
class Input:
    """One input that the chain decided on."""

    height: int
    partition: int
    offset: int
    decision: Decision
    data: bytes | None
    """Its frame; None where retention took it and nobody kept a copy."""


@dataclass(slots=True)
class History:
    """A task's log, read once; `violations` grows as it is checked."""

    chain: list[Record]
    offsets: list[int]
    inputs: dict[tuple[int, int], BusRecord]
    starts: list[int]
    models: dict[int, BusRecord]
    rejects: list[BusRecord]
    violations: list[str] = field(default_factory=list)
    segments: int = 0
    x: Vector | None = None
    """The model at the chain's end as replay found it; None where it cannot be replayed."""

    @property
    def vector(self) -> tuple[int, ...]:
        """The next offset of every input partition, control last."""
        return self.chain[-1].body.vector


async def read_history(bus: Bus, task: str) -> History:
    """Read everything that the log still has of a task."""
    commits = await _everything(bus, topic_name(task, Topic.COMMITS))
    updates = await _everything(bus, topic_name(task, Topic.UPDATES))
    control = await _everything(bus, topic_name(task, Topic.CONTROL))
    starts = await bus.start_offsets(topic_name(task, Topic.UPDATES))
    inputs = {(record.partition, record.offset): record for record in updates}
    inputs |= {(len(starts), record.offset): record for record in control}
    chain = list(walk(commits))
    return History(
        chain=[record for _, record in chain],
        offsets=[offset for offset, _ in chain],
        inputs=inputs,
        starts=[starts[partition] for partition in sorted(starts)]
        + [(await bus.start_offsets(topic_name(task, Topic.CONTROL)))[0]],
        models={record.offset: record for record in await _everything(bus, topic_name(task, Topic.MODELS))},
        rejects=await _everything(bus, topic_name(task, Topic.REJECTS)),
    )


async def _everything(bus: Bus, topic: str) -> list[BusRecord]:
    reader = bus.reader(topic, await bus.start_offsets(topic))
    ends, records = await bus.end_offsets(topic), list[BusRecord]()
    try:
        while any(reader.position(partition) < end for partition, end in ends.items()):
            some = await reader.fetch(max_records=2_000, timeout_s=2.0)
            if not some:
                break
            records += some
    finally:
        await reader.close()
    return records


def walk(commits: Iterable[BusRecord]) -> Iterator[tuple[int, Record]]:
    """The official records with their offsets: the first valid one at each height."""
    last: Record | None = None
    for found in commits:
        try:
            record = parse(found.value or b"")
        except WireError:
            continue
        if follows(last, record):
            last = record
            yield found.offset, record


def inputs_of(history: History, known: Mapping[int, bytes]) -> Iterator[Input]:
    """Every input that the chain decided on, in its order; `known` are frames by CRC that the log may have lost."""
    for record in history.chain:
        for run, decisions in record.body.decided():
            for offset, decision in enumerate(decisions, run.first):
                found = history.inputs.get((run.partition, offset))
                data = found.value if found is not None else known.get(decision.crc)
                yield Input(record.height, run.partition, offset, decision, data)
