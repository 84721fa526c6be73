"""Reads a task's log once, from its beginning, and holds it to every invariant."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

from aggregator.fold.state import FoldState
from aggregator.restore.inputs import InputLog, check_partitions, end_vector, start_vector
from aggregator.restore.replayer import Progress
from aggregator.verify.account import Account
from aggregator.verify.decisions import Decisions, Place
from aggregator.verify.evidence import Evidence
from aggregator.verify.keyframes import Keyframes
from aggregator.verify.links import Links
from aggregator.verify.promises import Promises
from aggregator.verify.verdict import Book, Invariant, Verdict
from broker_topics.bus import Bus, BusRecord
from broker_topics.commits_log import CommitsReader
from broker_topics.entry import check_task, entry
from broker_topics.errors import BusError
from broker_topics.models_log import ModelsReader
from broker_topics.record import Record
from broker_topics.topics import Topic, topic_name

STALL_LIMIT_S = 60.0

_FETCH_S = 10.0
_GAP_S = 2.0
_NEEDS = {
    Invariant.STALL: "a test that injects faults must bring evidence",
    Invariant.MEMORY: "a test that watches processes must bring evidence",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Demands:
    """What is asked of a log beside the invariants.

    at_rest: nobody sends any more, so nothing may wait to be settled.
    whole_keyframes: of the newest so many no part may be missing; a test that loses parts on purpose asks for none.
    excused: partition and offset of inputs that a test destroyed, which may be missing or others.
    """

    at_rest: bool = False
    whole_keyframes: int = 2
    excused: frozenset[Place] = frozenset()


async def verify(
    bus: Bus,
    task: str,
    *,
    evidence: Evidence | None = None,
    demands: Demands | None = None,
    known: Mapping[int, bytes] | None = None,
    progress: Progress | None = None,
) -> Verdict:
    """Check a task's log; it may be in use meanwhile, what comes later is left alone.

    Args:    evidence: what the log cannot tell by itself. known: frames by CRC, for inputs that retention has taken.
             progress: called with offsets of the chain's log, read so far and in all.
    Raises:  ConfigError: unknown task, another number of partitions, or a record of a later release.
             BusError: the broker does not answer.
    """
    verdict, _ = await verify_and_replay(bus, task, evidence=evidence, demands=demands, known=known, progress=progress)
    return verdict


async def verify_and_replay(
    bus: Bus,
    task: str,
    *,
    evidence: Evidence | None = None,
    demands: Demands | None = None,
    known: Mapping[int, bytes] | None = None,
    progress: Progress | None = None,
) -> tuple[Verdict, FoldState | None]:
    """As `verify`, with the state that replay reached at the chain's end; None where it could not."""
    await check_task(bus, task)
    through = _Through(bus, task, evidence=evidence or Evidence(), demands=demands or Demands(), known=known or {})
    try:
        return await through.run(progress)
    finally:
        await through.models.close()


class _Through:
    """One way through the log; what is shared by its steps."""

    def __init__(
        self, bus: Bus, task: str, *, evidence: Evidence, demands: Demands, known: Mapping[int, bytes]
    ) -> None:
        self.bus, self.task, self.evidence, self.demands, self.known = bus, task, evidence, demands, known
        self.book, self.models = Book(), ModelsReader(bus, task)

    async def run(self, progress: Progress | None) -> tuple[Verdict, FoldState | None]:
        """Ends are taken in an order in which no topic names what a later one is not read up to."""
        bus, task, book = self.bus, self.task, self.book
        account = await self._rejects()
        stop = (await bus.end_offsets(topic_name(task, Topic.COMMITS)))[0]
        links = Links(book, seen=self.evidence.seen, head=await self.models.head())
        alive = set(await self.models.keys((await bus.end_offsets(topic_name(task, Topic.MODELS)))[0]))
        keyframes = Keyframes(book, task, self.models, alive=alive, whole=self.demands.whole_keyframes)
        starts, ends = await start_vector(bus, task), await end_vector(bus, task)
        promises = Promises(book, self.evidence, updates=len(ends) - 1, at_rest=self.demands.at_rest)
        decisions = Decisions(book, account, promises, starts=starts, known=self.known, excused=self.demands.excused)
        inputs = InputLog(bus, task, first=starts, starts=starts, ends=await _last_records(bus, task, starts, ends))
        try:
            async for found in _between(bus, topic_name(task, Topic.COMMITS), {0: stop}):
                record = links.feed(found.offset, found.value or b"")
                if record is not None:
                    check_partitions(record.body.vector, ends)
                    there = await _lying(inputs, record, starts)
                    decisions.feed(record, there)
                    await keyframes.feed(record, there)
                if progress is not None:
                    progress(found.offset + 1, stop)
            for partition, offset in enumerate(links.last.body.vector if links.last else ()):
                for waiting in range(max(offset, starts[partition]), ends[partition]):
                    promises.waits(partition, waiting, await inputs.at(partition, waiting))
        finally:
            await inputs.close()
        links.close(stop)
        decisions.close()
        keyframes.close()
        promises.close()
        await self._check_entry(links.last)
        return self._verdict(links.last, account), keyframes.state

    async def _rejects(self) -> Account:
        account, topic = Account(self.book), topic_name(self.task, Topic.REJECTS)
        async for reject in _between(self.bus, topic, await self.bus.end_offsets(topic)):
            account.rejected(reject)
        return account

    async def _check_entry(self, last: Record | None) -> None:
        """I2: whoever enters where `head` says comes to the same chain."""
        first = await entry(self.bus, self.task, self.models)
        if last is None or first is None or first.record.height > last.height:
            return
        commits = CommitsReader(self.bus, self.task, first)
        try:
            met = [official.record.hash for official in await commits.to_the_end()]
        finally:
            await commits.close()
        if last.hash not in met:
            self.book.broken(Invariant.CHAIN, f"entered by head, the chain does not lead to height {last.height}")
        self.book.saw(Invariant.CHAIN, "records met by way of head", len(met))

    def _verdict(self, last: Record | None, account: Account) -> Verdict:
        book, evidence, needs = self.book, self.evidence, dict(_NEEDS)
        for stall in evidence.stalls:
            needs.pop(Invariant.STALL, None)
            book.saw(Invariant.STALL, "recoveries")
            if stall.seconds > STALL_LIMIT_S:
                book.broken(Invariant.STALL, f"{stall.what} stood still for {stall.seconds:.0f} s")
        for memory in evidence.memory:
            needs.pop(Invariant.MEMORY, None)
            book.saw(Invariant.MEMORY, "processes")
            if memory.peak_bytes > memory.limit_bytes:
                book.broken(
                    Invariant.MEMORY,
                    f"{memory.process} took {memory.peak_bytes} bytes, {memory.limit_bytes} are allowed",
                )
        partitions = account.close()
        return Verdict(
            task=self.task,
            height=last.height if last else -1,
            version=last.body.version if last else -1,
            head=last.hash.hex() if last else "",
            checks=book.checks(needs),
            partitions=partitions,
            notes=tuple(book.notes),
            exit_code=book.exit_code,
        )


async def _lying(inputs: InputLog, record: Record, starts: Sequence[int]) -> dict[Place, BusRecord]:
    """What lies at every place that a record names, void ones too."""
    found: dict[Place, BusRecord] = {}
    for run in record.body.runs:
        for offset in range(max(run.first, starts[run.partition]), run.first + run.count):
            there = await inputs.at(run.partition, offset)
            if there is not None:
                found[run.partition, offset] = there
    return found


async def _last_records(bus: Bus, task: str, starts: Sequence[int], ends: Sequence[int]) -> list[int]:
    """The offset after the last record of every input partition; a transaction's marker may lie between it and the end.

    A reader that waited for the marker would wait for ever.
    """
    last, control = list(starts), len(ends) - 1
    for topic, partitions in ((Topic.UPDATES, range(control)), (Topic.CONTROL, [control])):
        back, left = 1, {p for p in partitions if ends[p] > starts[p]}
        while left:
            numbers = {0 if p == control else p: p for p in left}
            positions = {number: max(starts[p], ends[p] - back) for number, p in numbers.items()}
            reader = bus.reader(topic_name(task, topic), positions)
            try:
                while any(reader.position(number) < ends[p] for number, p in numbers.items()):
                    records = await reader.fetch(timeout_s=_GAP_S)
                    if not records:
                        break
                    for record in records:
                        place = numbers[record.partition]
                        last[place] = max(last[place], min(record.offset + 1, ends[place]))
            finally:
                await reader.close()
            left = {p for p in left if last[p] == starts[p] and ends[p] - back > starts[p]}
            back *= 10
    return last


async def _between(bus: Bus, topic: str, ends: Mapping[int, int]) -> AsyncIterator[BusRecord]:
    """Every record that a topic still has, up to the given ends."""
    reader = bus.reader(topic, await bus.start_offsets(topic))
    try:
        while any(reader.position(partition) < end for partition, end in ends.items()):
            records = await reader.fetch(timeout_s=_FETCH_S)
            if not records:
                raise BusError(f"{topic} stopped answering; check the broker")
            for record in records:
                if record.offset < ends[record.partition]:
                    yield record
    finally:
        await reader.close()
