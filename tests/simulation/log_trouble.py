"""What happens to the log in the time of trouble: copies, rubbish, lost and torn records, retention, power cuts."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random
from typing import TYPE_CHECKING

import numpy as np

from broker_topics.codecs import CodecId, Encoded, encode
from broker_topics.memory_log import MemoryPartition
from broker_topics.messages import Control, Head, Update
from broker_topics.models_log import HEAD_KEY
from broker_topics.partitions import partition_of
from broker_topics.record import Record, build
from tests.simulation.history import walk
from tests.simulation.network import COMMITS, CONTROL, HASTE, MODELS, TASK, UPDATES

if TYPE_CHECKING:
    from tests.simulation.world import World

DAY_MS = 24 * 3600 * 1000
YOUNG_S = 5.0
"""A power cut takes only what was written lately: less than the day for which parts of older keyframes are kept."""

LONGEST_FREEZE_S = 60.0


@dataclass(slots=True)
class LogTrouble:
    """Reaches into the log behind everybody's back, and remembers what may therefore be missed at the end.

    cut: places of inputs that a power cut took. forked: records of the chain were cut. replaced: what lies at a cut
    place may be another input than the chain consumed.
    """

    world: "World"
    lost_parts: bool = False
    ate: bool = False
    forked: bool = False
    cut: set[tuple[int, int]] = field(default_factory=set)
    calm_s: float = float("inf")

    @property
    def rng(self) -> Random:
        return self.world.rng

    @property
    def kinds(self) -> list[Callable[[], None]]:
        """Everything that may happen to the log; of what destroys data for good not all in one life."""
        return [
            self.send_again,
            self.deliver_late,
            self.garbage,
            self.forged,
            self.unreadable,
            self.gap,
            self.torn,
            self.pause,
            self.resume,
            self.broker_down,
            self.false_head,
            self.stale_head,
            self.lose_head,
            self.compact,
            *self._destroying(),
        ]

    def _destroying(self) -> list[Callable[[], None]]:
        chain = [self.cut_commits, self.supplant]
        parts, inputs = [self.lose_part, self.eat_consumed], [self.eat_consumed, self.cut_inputs]
        return (
            chain
            if self.world.trouble in {one.__name__ for one in chain}
            else self.rng.choice([parts, parts, inputs, chain])
        )

    def may_have_overtaken(self) -> bool:
        """Whether retention may have taken what one aggregator has not read, because another had."""
        return self.ate and asyncio.get_running_loop().time() < self.calm_s + LONGEST_FREEZE_S

    @property
    def was_cut(self) -> bool:
        """Whether a power cut took anything, so that an operator may have to accept a loss."""
        return self.forked or bool(self.cut)

    def _partition(self) -> MemoryPartition:
        """A partition of updates that devices use."""
        key = self.rng.choice(self.world.watches).client_id.encode()
        return self.world.log.partition(UPDATES, partition_of(key, len(self.world.log.partitions(UPDATES))))

    def send_again(self) -> None:
        """A copy of an update reaches the log late."""
        where = self._partition()
        readable = [record for record in where.read(where.start, 10_000) if record.readable]
        if readable:
            copied = self.rng.choice(readable)
            where.append(copied.key, copied.value)

    def deliver_late(self) -> None:
        self.world.log.deliver_late()

    def garbage(self) -> None:
        self._partition().append(self.rng.choice([None, b"w-0", b"x"]), self.rng.randbytes(self.rng.choice([0, 7, 90])))

    def forged(self) -> None:
        """An update that is well formed and wrong in one way."""
        rng, client = self.rng, self.rng.choice(self.world.watches).client_id
        encoded: Encoded = encode(np.full(4, 1.0, np.float32), CodecId.FLOAT32)
        update = Update(
            task=rng.choice([TASK, TASK, "other"]),
            client_id=rng.choice([client, "stranger"]),
            incarnation=1,
            sequence=rng.choice([1, 3, 2_000_000]),
            layout=7,
            base_version=rng.choice([0, 10_000]),
            base_hash=bytes(8),
            num_examples=1,
            num_steps=1,
            work=1.0,
            encoded=encoded,
        )
        self._partition().append(client.encode(), update.to_bytes())

    def unreadable(self) -> None:
        where = self._partition()
        where.spoil(where.append(b"w-0", b"torn"))

    def gap(self) -> None:
        self._partition().leave_gap(self.rng.randint(1, 3))

    def pause(self) -> None:
        self._command("pause")

    def resume(self) -> None:
        self._command(self.rng.choice(["resume", "resume", "dance"]))

    def _command(self, command: str) -> None:
        self.world.log.partition(CONTROL).append(b"operator", Control(command=command).to_bytes())

    def broker_down(self) -> None:
        self.world.log.down = True
        asyncio.get_running_loop().call_later(self.rng.uniform(0.5, 10), lambda: setattr(self.world.log, "down", False))

    def false_head(self) -> None:
        """`head` names what is not there, or is no head."""
        models, rng = self.world.log.partition(MODELS), self.rng
        false = Head(offset=rng.randint(0, 500), height=rng.randint(0, 50), record_hash=rng.randbytes(32)).to_bytes()
        models.append(HEAD_KEY, rng.choice([false, b"nonsense"]))

    def lose_head(self) -> None:
        self.world.log.partition(MODELS).append(HEAD_KEY, None)

    def lose_part(self) -> None:
        """A power cut took a part of the newest keyframe, or of a delta; an older keyframe is still whole."""
        models = self.world.log.partition(MODELS)
        young = [record for record in models.records[-12:-1] if record.key != HEAD_KEY]
        if not young or self.ate:
            return
        lost = self.rng.choice(young)
        there = {record.offset for record in models.records if record is not lost}
        if any(all(part.offset in there for part in keyframe.body.parts) for keyframe in self._keyframes()):
            models.records.remove(lost)
            self.lost_parts = True

    def eat_consumed(self) -> None:
        """Retention takes what no replay from the newest keyframe needs."""
        if self.lost_parts:
            return
        self.ate = True
        for partition, offset in enumerate(self._keyframes()[-1].body.vector[:-1]):
            where = self.world.log.partition(UPDATES, partition)
            if min(offset, where.end) > where.start:
                where.delete_before(self.rng.randint(where.start, min(offset, where.end)))

    def _keyframes(self) -> list[Record]:
        where = self.world.log.partition(COMMITS)
        return [record for _, record in walk(where.read(where.start, 100_000)) if record.body.keyframe]

    def torn(self) -> None:
        """The first bytes of a record, as a writer that was cut off would leave them."""
        where = self.rng.choice([self._partition(), self.world.log.partition(COMMITS)])
        if where.records and (whole := where.records[-1].value):
            where.append(where.records[-1].key, whole[: self.rng.randrange(len(whole))])

    def stale_head(self) -> None:
        """`head` names an older keyframe: a snapshot that is behind."""
        where = self.world.log.partition(COMMITS)
        chain = [(offset, record) for offset, record in walk(where.read(where.start, 100_000)) if record.body.keyframe]
        offset, record = self.rng.choice(chain)
        head = Head(offset=offset, height=record.height, record_hash=record.hash).to_bytes()
        self.world.log.partition(MODELS).append(HEAD_KEY, head)

    def cut_inputs(self) -> None:
        """A power cut of all replicas takes the youngest inputs of one partition; their offsets are used again."""
        control = self.world.log.partition(CONTROL)
        where = self.rng.choice([self._partition(), self._partition(), control])
        number = len(self.world.log.partitions(UPDATES)) if where is control else where.partition
        before = where.end
        self._cut(where, self.rng.randint(1, 4))
        self.cut |= {(number, offset) for offset in range(where.end, before)}

    def cut_commits(self) -> None:
        """The same of the chain's own log; a writer that lives puts back what it knows."""
        where = self.world.log.partition(COMMITS)
        before = where.end
        self._cut(where, self.rng.randint(1, 3))
        self.forked |= where.end < before

    def supplant(self) -> None:
        """The same, and an aggregator that never saw them, and ends soon, has written as many in their place."""
        where = self.world.log.partition(COMMITS)
        before = dict(walk(where.read(where.start, 100_000)))
        self.cut_commits()
        there = [record for offset, record in before.items() if offset < where.end]
        for vanished in [record for offset, record in before.items() if offset >= where.end]:
            body = replace(vanished.body, note="anew")
            there.append(build(height=vanished.height, parent=there[-1].hash, writer=vanished.writer, body=body))
            where.append(None, there[-1].data)

    def _cut(self, where: MemoryPartition, count: int) -> None:
        young_ms = (self.world.wall() - YOUNG_S * HASTE) * 1000
        young = [
            record.offset for record in where.records[-count:] if record.timestamp_ms >= young_ms and record.offset
        ]
        if young:
            where.cut(young[0])

    def compact(self) -> None:
        """The cleaner comes by; it leaves alone what is younger than a day, and always the last record."""
        models = self.world.log.partition(MODELS)
        old_ms = int(self.world.wall() * 1000) - DAY_MS
        young = [record.offset for record in models.records[:-1] if record.timestamp_ms > old_ms]
        models.compact(before=young[0] if young else models.records[-1].offset)

    def compact_all(self) -> None:
        """What the cleaner will have done a day after the end."""
        models = self.world.log.partition(MODELS)
        models.compact(before=models.records[-1].offset)
