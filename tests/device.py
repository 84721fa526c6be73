"""A device's core driven by hand: events in, effects as short lines, so that a test reads as a story."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from broker_topics.chain import ChainPosition
from broker_topics.codecs import decode
from broker_topics.layout import Layout, Tensor
from broker_topics.messages import Update
from broker_topics.record import Body, Cause, Decision, Record, Run, Step, build
from broker_topics.task import TaskSettings
from worker.core import Core
from worker.events import (
    Effect,
    Entered,
    Event,
    Moment,
    Produce,
    Produced,
    RecordsSeen,
    Report,
    Store,
    Train,
    Trained,
)
from worker.outbox import MemoryOutbox
from worker.pacing import Limits
from worker.state import Base, DeviceState, Row

LAYOUT = Layout(tensors=(Tensor(name="w", shape=(4,)),))
SETTINGS = TaskSettings(reference_steps=0.0, max_local_steps=100)
PARTITION = 0


def record(
    version: int,
    *,
    runs: Sequence[Run] = (),
    decisions: Sequence[Decision] = (),
    passed: int = 0,
    max_staleness: int = 200,
) -> Record:
    """An official record; `passed` is the next offset of partition 0 after it."""
    body = Body(
        version=version,
        steps=(Step(len(decisions), Cause.FULL),),
        cause=Cause.FULL,
        runs=tuple(runs),
        vector=(passed, 0),
        decisions=tuple(decisions),
        rules=bytes(32),
        max_staleness=max_staleness,
        state_hash=bytes(32),
        hidden_hash=bytes(32),
        served_hash=bytes(32),
    )
    return build(height=version, parent=bytes(32), writer=bytes(16), body=body)


def decided(version: int, row: Row, decision: Decision | None = None, **changed: int) -> Record:
    """The record that decides on a sent row: accepted unless told otherwise."""
    assert row.offset is not None
    run = Run(PARTITION, row.offset, 1)
    return record(version, runs=[run], decisions=[decision or Decision(row.crc, 1.0)], passed=row.offset + 1, **changed)


class Bench:
    """One device on a table: a core, an outbox that survives crashes, a clock that a test moves."""

    def __init__(self, settings: TaskSettings = SETTINGS, *, layout: Layout = LAYOUT) -> None:
        self.settings, self.layout = settings, layout
        self.outbox = MemoryOutbox()
        self.now_s = 1000.0
        self.wall_s = 0.0
        self.version = 0
        self.trained = np.zeros(layout.size, np.float32)
        self.effects: list[Effect] = []
        self._wanted: Train | None = None
        self.core = self._core(DeviceState.fresh(layout))

    def _core(self, state: DeviceState) -> Core:
        return Core(
            task="t",
            client_id="w-1",
            layout=self.layout,
            state=state,
            rng=np.random.default_rng(7),
            limits=Limits(backoff_initial_s=1.0, backoff_max_s=8.0, max_age_s=1000.0),
        )

    def crash(self) -> None:
        """Lose everything but what was stored."""
        self.core = self._core(self.outbox.state or DeviceState.fresh(self.layout))

    def tell(self, event: Event) -> list[str]:
        """Take in one event, perform the stores, and say in short what else is asked for."""
        self.effects = self.core.step(event, Moment(self.now_s, self.wall_s))
        for effect in self.effects:
            if isinstance(effect, Store):
                self.outbox.save(effect.state)
            elif isinstance(effect, Train):
                self._wanted = effect
        return [_line(effect) for effect in self.effects]

    def enter(self, version: int = 0, *, known: bool = True, passed: int = 0, max_staleness: int = 200) -> list[str]:
        """Enter the chain and read to its end."""
        last = record(version, passed=passed, max_staleness=max_staleness)
        lines = self.tell(Entered(known=known, last=last, settings=self.settings))
        return lines + self.see(last, caught_up=True)

    def see(self, *records: Record, caught_up: bool = False) -> list[str]:
        """Show official records."""
        self.version = records[-1].body.version if records else self.version
        position = ChainPosition(self.version, self.version, bytes(32))
        return self.tell(RecordsSeen(records=records, position=position, settings=self.settings, caught_up=caught_up))

    def train(self, moved: float = 1.0, *, steps: int = 10) -> list[str]:
        """Answer the last `Train`: every parameter moved by `moved`."""
        wanted, self._wanted = self.wanted, None
        base = wanted.base or Base(version=self.version, hash=bytes(8), vector=np.zeros(self.layout.size, np.float32))
        start = base.vector if wanted.start is None else wanted.start
        self.trained += np.float32(moved)
        local = start + np.float32(moved)
        return self.tell(
            Trained(base=base, local=local, num_examples=5, num_steps=steps, pull=float(steps), seconds=1.0)
        )

    @property
    def wanted(self) -> Train:
        """The training that was asked for last."""
        assert self._wanted is not None, "no training was asked for"
        return self._wanted

    def sent(self, offset: int) -> list[str]:
        """Answer the last `Produce`: the log has the row at this offset."""
        row = self.row
        return self.tell(
            Produced(incarnation=row.incarnation, sequence=row.sequence, partition=PARTITION, offset=offset)
        )

    @property
    def row(self) -> Row:
        """The row whose fate is open."""
        assert self.core.state.row is not None
        return self.core.state.row

    def held(self) -> np.ndarray:
        """Everything that the stored state holds of what was trained: float32[P]."""
        state = self.outbox.state or DeviceState.fresh(self.layout)
        total = state.residual.copy()
        if state.queued is not None:
            total += state.queued.local - state.queued.base.vector
        if state.row is not None:
            total += values_of(state.row)
        return total


def values_of(row: Row) -> np.ndarray:
    """What a row would add to the model: float32[P]."""
    return decode(Update.from_bytes(row.data).encoded).to_vector()


def header_of(row: Row) -> Update:
    """A row's message."""
    return Update.from_bytes(row.data)


def with_row(state: DeviceState, **changed: object) -> DeviceState:
    """The state with its row changed."""
    assert state.row is not None
    return replace(state, row=replace(state.row, **changed))  # type: ignore[arg-type]


def _line(effect: Effect) -> str:
    match effect:
        case Store():
            return "store"
        case Produce(row):
            return f"produce {row.incarnation}/{row.sequence}"
        case Train(start=None):
            return "train from the newest model"
        case Train(base=base):
            return f"train on from version {base.version if base else '?'}"
        case Report(kind, facts):
            outcome = facts.get("outcome") or facts.get("reason")
            return f"{kind.value} ({outcome})" if outcome else kind.value
