"""Bugs planted by hand, to see that the simulation finds them: each breaks one rule of the product while it is in."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

import aggregator.fold.core
import worker.core
import worker.settling
from aggregator.chain.sweep import Sweeper
from aggregator.chain.writer import ChainWriter
from aggregator.fold.core import Fold
from aggregator.fold.ledger import Ledger
from aggregator.fold.state import VELOCITY, FoldState
from broker_topics.chain import ChainReader
from broker_topics.commits_log import CommitsReader, Official
from broker_topics.errors import RejectCode
from broker_topics.models_log import ModelsWriter
from broker_topics.parts import Part, part_key
from broker_topics.record import Decision, Record, parse
from worker.core import Core
from worker.events import Produced, ProduceFailed
from worker.outbox import SqliteOutbox
from worker.settling import ACCEPTED, Doubt, settle
from worker.shell import Session
from worker.state import DeviceState

Patch = tuple[Any, str, Any]
"""Whose attribute, which, and what stands there instead."""

Plant = Callable[[], Patch | list[Patch]]


def _dedupe_off_by_one() -> Patch:
    """The last sequence again is let in."""
    judge = Ledger.judge

    def lenient(self: Ledger, *, client_id: str, incarnation: int, sequence: int, crc: int) -> Decision | None:
        entry = self.get(client_id)
        if entry is not None and (incarnation, sequence) == (entry.incarnation, entry.sequence):
            return None
        return judge(self, client_id=client_id, incarnation=incarnation, sequence=sequence, crc=crc)

    return Ledger, "judge", lenient


def _incarnations_unordered() -> Patch:
    """A smaller incarnation than the ledger's is let in."""
    judge = Ledger.judge

    def forgiving(self: Ledger, *, client_id: str, incarnation: int, sequence: int, crc: int) -> Decision | None:
        known = judge(self, client_id=client_id, incarnation=incarnation, sequence=sequence, crc=crc)
        return None if known is not None and known.code is RejectCode.RETIRED else known

    return Ledger, "judge", forgiving


def _commit_before_parts() -> Patch:
    """The record is appended while its parts are still on their way."""

    async def early(self: Any, height: int, part: Part) -> int:
        key = part_key(height=height, writer=self._writer, digest=part.digest, name=part.name, index=part.index)
        end = (await self._bus.end_offsets(self._topic))[0]

        async def later() -> None:
            await asyncio.sleep(1.0)
            await self._bus.send(self._topic, key=key, value=part.value)

        asyncio.ensure_future(later()).add_done_callback(lambda done: done.cancelled() or done.exception())
        return int(end)

    return ModelsWriter, "_send", early


def _keyframe_without_ledger() -> Patch:
    """A keyframe forgets which devices were heard."""
    return Ledger, "rows", lambda self: iter(())


def _keyframe_without_optimizer() -> Patch:
    """A keyframe forgets the momentum."""
    vectors = FoldState.vectors

    def at_rest(self: FoldState) -> Any:
        return {name: np.zeros_like(v) if name == VELOCITY else v for name, v in vectors(self).items()}

    return FoldState, "vectors", at_rest


def _keyframe_without_pause() -> Patch:
    """A keyframe forgets that the task is paused."""
    meta = FoldState.meta
    return FoldState, "meta", lambda self: meta(replace(self, paused=False))


def _order_from_a_set() -> list[Patch]:
    """Updates of a step are added up in the order of a set, not of the log."""
    admit, advance = Fold._admit, Fold._advance

    class Later:
        """Stands for an update until the step; a set orders it by where it lies in memory."""

        def __init__(self, decoded: Any) -> None:
            self.decoded, self.weight = decoded, 0.0

        def add_to(self, into: Any, weight: float) -> None:
            self.weight = weight

    def gather(self: Any, update: Any, crc: int, decoded: Any, recorded: float | None) -> float:
        later = Later(decoded)
        self.__dict__.setdefault("gathered", set()).add(later)
        return admit(self, update, crc, later, recorded)  # type: ignore[arg-type]

    def scatter(self: Any, max_staleness: int | None) -> bytes:
        for later in self.__dict__.pop("gathered", set()):
            later.decoded.add_to(self._total, later.weight)
        return advance(self, max_staleness)

    return [(Fold, "_admit", gather), (Fold, "_advance", scatter)]


def _next_before_settled() -> Patch:
    """What the log acknowledged counts as accepted, so the next update is sent before the chain has decided."""
    produced = Core._produced

    def hasty(self: Core, event: Produced) -> None:
        produced(self, event)
        if self.state.row is not None:
            self.state = settle(self.state, self.state.row, ACCEPTED)

    return Core, "_produced", hasty


def _doubt_merged() -> Patch:
    """An update in doubt goes back into the residual and is sent in other words."""
    take = Core._take

    def impatient(self: Core, event: Any) -> None:
        take(self, event)
        if isinstance(event, ProduceFailed) and self.state.row is not None:
            self.state = settle(self.state, self.state.row, RejectCode.STALE)

    return Core, "_take", impatient


def _void_is_accepted() -> Patch:
    """A device believes that an offset which was passed over held its update."""
    judged = worker.settling.judged

    def trusting(body: Any, row: Any) -> Any:
        found = judged(body, row)
        return Decision(row.crc, 1.0) if found is Doubt.VOID else found

    return worker.core, "judged", trusting


def _sent_before_stored() -> Patch:
    """A device's bytes reach the producer before its outbox is on the disk."""

    async def lazy(self: Any, state: DeviceState) -> None:
        self.newest = state

        def write() -> None:
            link = getattr(self._parts.outbox, "link", None)  # what simulated devices are killed by
            if self.newest is state and not (link and link.killed):
                self._parts.outbox.save(state)

        asyncio.get_running_loop().call_later(0.5, write)

    return Session, "_store", lazy


def _outbox_in_two_writes() -> Patch:
    """A device's vectors and its facts reach the disk in transactions of their own."""
    write = SqliteOutbox._write_blob

    def hasty(self: Any, name: str, blob: memoryview) -> None:
        write(self, name, blob)
        self._database.execute("COMMIT")
        self._database.execute("BEGIN IMMEDIATE")

    return SqliteOutbox, "_write_blob", hasty


def _zombie_serves() -> Patch:
    """A writer believes in its own record without reading it back."""

    async def believe(self: Any, record: Record) -> Official:
        end = (await self._bus.end_offsets(self._topic))[0]
        self._commits.chain.last, self._commits.chain.last_offset = record, end - 1
        return Official(record, end - 1, 0)

    return ChainWriter, "_read_back", believe


def _parent_on_trust() -> Patch:
    """A writer does not see whether its record's parent still lies where it did."""
    return CommitsReader, "confirmed", CommitsReader.poll


def _last_wins() -> Patch:
    """Of two records that fit a reader takes the later one."""
    feed = ChainReader.feed

    def fickle(self: ChainReader, offset: int, data: bytes) -> Record | None:
        last = self.last
        if last is not None and last.height and len(data) > 100:
            record = parse(data)
            if (record.height, record.parent) == (last.height, last.parent) and record.hash != last.hash:
                self.last, self.last_offset = record, offset
                return record
        return feed(self, offset, data)

    return ChainReader, "feed", fickle


def _refusals_forgotten() -> Patch:
    """Refusals do not advance the ledger."""
    return aggregator.fold.core, "SETTLING", frozenset()


def _swept_too_far() -> Patch:
    """Everything below the newest keyframe is deleted, not below the one before it."""
    sweep = Sweeper._sweep

    async def greedy(self: Sweeper, below: int) -> None:
        await sweep(self, self.keyframes[-1].record.height + 1)

    return Sweeper, "_sweep", greedy


PLANTS: dict[str, Plant] = {
    plant.__name__.strip("_"): plant
    for plant in (
        _dedupe_off_by_one,
        _incarnations_unordered,
        _commit_before_parts,
        _keyframe_without_ledger,
        _keyframe_without_optimizer,
        _keyframe_without_pause,
        _order_from_a_set,
        _next_before_settled,
        _doubt_merged,
        _void_is_accepted,
        _sent_before_stored,
        _outbox_in_two_writes,
        _zombie_serves,
        _parent_on_trust,
        _last_wins,
        _refusals_forgotten,
        _swept_too_far,
    )
}


NEEDS = {"parent_on_trust": "supplant", "refusals_forgotten": "send_again"}
"""Trouble without which a plant is rarely found."""


@contextmanager
def planted(name: str) -> Iterator[None]:
    """Run the block with one bug in the product."""
    patches = PLANTS[name]()
    patches = patches if isinstance(patches, list) else [patches]
    sound = [getattr(whose, attribute) for whose, attribute, _ in patches]
    for whose, attribute, instead in patches:
        setattr(whose, attribute, instead)
    try:
        yield
    finally:
        for (whose, attribute, _), before in zip(patches, sound, strict=True):
            setattr(whose, attribute, before)
