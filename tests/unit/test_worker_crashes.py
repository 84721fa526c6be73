"""A device is killed between any two effects and goes on from what was stored: nothing is lost, nothing counts twice.

The world is a broker that loses answers and an aggregator with a real ledger; the model is four whole numbers, so that
all that was trained can be found again: trained = accepted + discarded + residual + queued + row.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from aggregator.fold.ledger import Ledger
from broker_topics.chain import ChainPosition
from broker_topics.codecs import decode
from broker_topics.errors import RejectCode
from broker_topics.frames import frame_crc
from broker_topics.messages import Update
from broker_topics.record import Decision, Record, Run, RunKind
from tests.device import PARTITION, SETTINGS, Bench, record
from worker.core import Core
from worker.events import (
    Effect,
    Entered,
    Event,
    Moment,
    Produce,
    Produced,
    ProduceFailed,
    RecordsSeen,
    Store,
    TimePassed,
    Train,
    Trained,
    TrainingFailed,
    Unreachable,
)
from worker.outbox import MemoryOutbox
from worker.state import Base, DeviceState, Row

KEEPS_RESIDUAL = replace(SETTINGS, codec="bfloat16", max_local_steps=30)
MAX_STALENESS = 6
VERDICTS = [None, None, None, RejectCode.STALE, RejectCode.NORM, RejectCode.UNKNOWN_BASE, RejectCode.TOO_SOON]


class Killed(Exception):
    """The process ends here."""


class World:
    """One device, its broker and its aggregator; `kill_at` names the effect before which the device dies."""

    def __init__(self, seed: int, kill_at: int) -> None:
        self.rng, self.kill_at, self.boundaries = np.random.default_rng(seed), kill_at, 0
        self.outbox = MemoryOutbox()
        self.log: list[bytes | None] = []
        self.chain: list[Record] = [record(0, max_staleness=MAX_STALENESS)]
        self.ledger = Ledger()
        self.accepted = np.zeros(4)
        self.accepted_rows: set[int] = set()
        self.discarded_rows: list[Row] = []
        self.now_s = 0.0
        self.draining = False
        self.start()

    def start(self) -> None:
        """The device's process begins, with what was stored."""
        bench = Bench(KEEPS_RESIDUAL)
        self.core: Core = bench.core
        if self.outbox.state is not None:
            self.core.state = self.outbox.state
        self.seen, self.entered = 0, False
        self.produce: Produce | None = None
        self.train: Train | None = None

    # The device

    def tell(self, event: Event) -> None:
        before = self.core.state
        effects = self.core.step(event, Moment(self.now_s, 0.0))
        for effect in effects:
            if self.boundaries == self.kill_at:
                self.boundaries += 1
                raise Killed
            self.boundaries += 1
            self.perform(effect, before)

    def perform(self, effect: Effect, before: DeviceState) -> None:
        match effect:
            case Store(state):
                self.outbox.save(state)
                if state.tally.updates_discarded > before.tally.updates_discarded and before.row is not None:
                    self.discarded_rows.append(before.row)
            case Produce():
                self.produce = effect
            case Train():
                self.train = effect

    # What happens to it

    def turn(self) -> None:
        self.now_s += 1.0
        if not self.entered:
            self.enter()
        for event in self.happenings():
            self.tell(event)

    def enter(self) -> None:
        position = self.core.state.position
        known = position is not None and self.rng.random() < 0.7
        self.seen = position.height + 1 if known and position is not None else len(self.chain)
        self.entered = True
        self.tell(Entered(known=known, last=self.chain[-1], settings=KEEPS_RESIDUAL))

    def happenings(self) -> Iterator[Event]:
        luck = self.rng.random()
        if self.train is not None and (self.draining or luck < 0.5):
            yield self.trained()
        if self.produce is not None and (self.draining or luck < 0.7):
            yield self.produced()
        if not self.draining and luck > 0.95:
            yield Unreachable("a tunnel")
            return
        if self.draining or luck < 0.8:
            self.decide()
        yield self.look()
        yield TimePassed()

    def trained(self) -> Event:
        train, self.train = self.train, None
        assert train is not None
        if self.draining:
            return TrainingFailed("no more data")
        newest = self.chain[self.seen - 1].body
        base = train.base or Base(version=newest.version, hash=newest.base_hash, vector=np.zeros(4, np.float32))
        start = base.vector if train.start is None else train.start
        local = start + self.rng.integers(-999, 1000, 4).astype(np.float32)
        return Trained(base=base, local=local, num_examples=1, num_steps=10, pull=10.0, seconds=1.0)

    def produced(self) -> Event:
        produce, self.produce = self.produce, None
        assert produce is not None
        luck = 0.0 if self.draining else self.rng.random()
        if luck > 0.85:
            return ProduceFailed("not written")
        # A record that nobody can read takes the place of the update, now and then.
        self.log.append(None if 0.75 < luck <= 0.8 else produce.row.data)
        if luck > 0.6:
            return ProduceFailed("written, but the answer was lost")
        row = produce.row
        return Produced(
            incarnation=row.incarnation, sequence=row.sequence, partition=PARTITION, offset=len(self.log) - 1
        )

    def look(self) -> Event:
        records, self.seen = self.chain[self.seen :], len(self.chain)
        position = ChainPosition(self.seen, self.seen - 1, bytes(32))
        return RecordsSeen(records=tuple(records), position=position, settings=KEEPS_RESIDUAL, caught_up=True)

    # The aggregator

    def decide(self) -> None:
        first, version = self.chain[-1].body.vector[0], self.chain[-1].body.version
        runs, decisions = [], []
        for offset in range(first, len(self.log)):
            data = self.log[offset]
            runs.append(Run(PARTITION, offset, 1, RunKind.DATA if data else RunKind.UNREADABLE))
            if data:
                decisions.append(self.judge(data, version))
        self.chain.append(
            record(version + 1, runs=runs, decisions=decisions, passed=len(self.log), max_staleness=MAX_STALENESS)
        )

    def judge(self, data: bytes, version: int) -> Decision:
        update, crc = Update.from_bytes(data), frame_crc(data)
        names = {"client_id": update.client_id, "incarnation": update.incarnation, "sequence": update.sequence}
        known = self.ledger.judge(**names, crc=crc)
        if known is not None:
            return known
        stale = version - update.base_version > MAX_STALENESS
        code = RejectCode.STALE if stale else VERDICTS[int(self.rng.integers(len(VERDICTS)))]
        decision = Decision(crc, 0.0 if code else 1.0, code)
        self.ledger.settle(**names, decision=decision, version=version, habit=None)
        if decision.accepted:
            self.accepted += decode(update.encoded).to_vector()
            self.accepted_rows.add(crc)
        return decision

    # The books

    def discarded(self) -> np.ndarray:
        """What no one has: given up by the device, and not accepted without its knowledge either."""
        lost = [row for row in self.discarded_rows if row.crc not in self.accepted_rows]
        return sum((decode(Update.from_bytes(row.data).encoded).to_vector() for row in lost), np.zeros(4))

    def live(self, turns: int) -> None:
        for _ in range(turns):
            try:
                self.turn()
            except Killed:
                # What a producer had may reach the log all the same.
                if self.produce is not None and self.rng.random() < 0.7:
                    self.log.append(self.produce.row.data)
                self.start()

    def drain(self) -> None:
        """Train no more and let every fate be learned."""
        self.draining = True
        for _ in range(200):
            self.live(1)
            if self.core.state.row is None and self.core.state.queued is None:
                return
        raise AssertionError(f"never settled: {self.core.state}")


def kept(state: DeviceState) -> np.ndarray:
    total = state.residual.astype(np.float64)
    if state.queued is not None:
        total += state.queued.local - state.queued.base.vector
    if state.row is not None:
        total += decode(Update.from_bytes(state.row.data).encoded).to_vector()
    return total


class Books(World):
    """A world that also writes down, at each stored training, what was trained."""

    def __init__(self, seed: int, kill_at: int) -> None:
        self.total = np.zeros(4)
        super().__init__(seed, kill_at)

    def tell(self, event: Event) -> None:
        before = self.outbox.state.tally.trained if self.outbox.state is not None else 0.0
        old = self.core.state.queued
        try:
            super().tell(event)
        finally:
            after = self.outbox.state.tally.trained if self.outbox.state is not None else 0.0
            if isinstance(event, Trained) and after > before:
                self.total += event.local - (old.local if old else event.base.vector)


@pytest.mark.parametrize("seed", range(3))
def test_killed_before_any_effect_a_device_loses_nothing_and_counts_nothing_twice(seed: int) -> None:
    quiet = Books(seed, kill_at=-1)
    quiet.live(30)
    boundaries = quiet.boundaries
    assert boundaries > 50
    outcomes = set()
    for kill_at in range(boundaries):
        world = Books(seed, kill_at)
        world.live(30)
        world.drain()
        state = world.core.state
        assert np.array_equal(world.total, world.accepted + world.discarded() + kept(state)), f"killed at {kill_at}"
        tally = state.tally
        assert tally.trained == tally.accepted + tally.discarded + state.carry
        outcomes.add((tally.updates_given_back > 0, tally.updates_discarded > 0, bool(state.residual.any())))
    assert (True, True, True) in outcomes, "the story must hold refusals of both kinds and a residual"
