"""The rules of a device, free of clocks, threads and sockets: events in, effects out.

    training → queued → in doubt (stored before a producer has the bytes) → sent (offset known) → settled by the chain

One update at a time: the next is made only when the last is settled. Until then training goes on from the local model
and the queued work grows. Duties of the shell: perform effects in order, a `Store` durably before what follows it;
send the bytes of a `Produce` as they are; report every outcome as an event, one at a time.
"""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import assert_never

import numpy as np

from broker_topics.errors import RejectCode
from broker_topics.layout import Layout
from broker_topics.record import Body, Decision, Record
from broker_topics.task import TaskSettings
from worker import events
from worker.events import Effect, Event, Fact, Kind, Moment, Report
from worker.pacing import Limits, SendingPace, TrainingPace
from worker.residual import NonFiniteError, is_finite, pack
from worker.settling import FORGOTTEN, Doubt, add_training, drop_queued, fold_back, judged, redated, settle
from worker.state import DeviceState, Queued, Row

_STORED = tuple(f.name for f in fields(DeviceState) if f.name != "position")
"""What is stored as soon as it changes; the position travels along."""

_NOT_FINITE = "the trained model is not finite; lower the learning rate or clip gradients"


class Core:
    """One device. `state` is what a crash may leave; everything else is learned again."""

    def __init__(
        self,
        *,
        task: str,
        client_id: str,
        layout: Layout,
        state: DeviceState,
        rng: np.random.Generator,
        limits: Limits | None = None,
    ) -> None:
        self.state = state
        limits = limits or Limits()
        self.sending, self._training = SendingPace(limits, rng), TrainingPace(limits, rng)
        self._task, self._client_id, self._layout, self._limits = task, client_id, layout, limits
        self._last: Body | None = None
        # Whether a producer may have had the row before: after a restart, or in an outbox that is a copy, nobody knows.
        self._had_before = self._has = state.row is not None
        self._online = self._caught_up = self._entered = self._stopping = self._full = False
        self._now = Moment(0.0, 0.0)
        self._reports: list[Report] = []

    @property
    def ready(self) -> bool:
        """Whether the broker answers and the chain was read to its end since the last outage."""
        return self._online and self._caught_up

    @property
    def base_version_lag(self) -> int:
        """Versions between the newest one and what waiting work started from."""
        base = self.state.oldest_base
        return 0 if base is None or self._last is None else max(0, self._last.version - base)

    @property
    def wake_s(self) -> float | None:
        """When `TimePassed` will make a difference, on the clock of `Moment.now_s`; None if never."""
        times = []
        if not self._training.running and not self._stopping:
            times.append(self._training.at_s)
        if self.ready and self.state.row is not None and not self.sending.running:
            doubt = self.state.row.in_doubt
            times.append(self.sending.at_s if doubt else self.sending.patient_until_s(self.state.settings))
        return min((time for time in times if time > self._now.now_s), default=None)

    def step(self, event: Event, now: Moment) -> list[Effect]:
        """Take in one event; what is to be done, in order. Raises ConfigError where an update can never fit."""
        before, self._reports = self.state, []
        self.state = redated(self.state, self._now, now)
        self._now = now
        self._take(event)
        wanted = self._next()
        changed = any(getattr(before, name) is not getattr(self.state, name) for name in _STORED)
        stores: list[Effect] = [events.Store(self.state)] if changed else []
        return [*stores, *self._reports, *wanted]

    def _take(self, event: Event) -> None:
        match event:
            case events.Entered():
                self._enter(event)
            case events.RecordsSeen():
                self._see(event)
            case events.Unreachable(reason):
                if self._online:
                    self._report(Kind.UNREACHABLE, reason=reason)
                self._online = self._caught_up = False
            case events.Trained():
                self._trained(event)
            case events.TrainingFailed(reason):
                self._training.failed(self._now.now_s)
                self._report(Kind.TRAINING_FAILED, reason=reason)
            case events.TrainingSkipped(reason):
                self._training.skipped(self._now.now_s)
                self._report(Kind.TRAINING_SKIPPED, reason=reason)
            case events.Produced():
                self._produced(event)
            case events.ProduceFailed(reason):
                self.sending.failed(self._now.now_s)
                self._report(Kind.IN_DOUBT, reason=reason)
            case events.StopRequested():
                self._stopping = True
            case events.TimePassed():
                pass
            case _:
                assert_never(event)

    # What the chain says

    def _enter(self, event: events.Entered) -> None:
        self._last, self._caught_up, self._entered = event.last.body, False, True
        self._set_settings(event.settings)
        self._answers()
        row = self.state.row
        if row is not None and not row.in_doubt and not event.known:
            # What was decided meanwhile is unknown: send again, the ledger answers.
            self._doubt(row, "the chain could not be followed from where it was left")

    def _see(self, event: events.RecordsSeen) -> None:
        self._answers()
        for record in event.records:
            self._see_one(record)
        self.state = replace(self.state, position=event.position)
        self._set_settings(event.settings)
        if event.records:
            self._report(Kind.FOLLOWED, version=event.records[-1].body.version)
        if event.caught_up and not self._caught_up:
            self._caught_up = True
            self.sending.wait_anew(self._now.now_s)

    def _see_one(self, record: Record) -> None:
        self._last = record.body
        row = self.state.row
        found = judged(record.body, row) if row is not None else None
        if row is None or found is None:
            return
        if isinstance(found, Doubt):
            self._doubt(row, found.value)
        else:
            self._settle(row, found, record.body.version)

    def _settle(self, row: Row, decision: Decision, version: int) -> None:
        before, outcome = self.state, decision.outcome
        settings = before.settings
        if decision.code is RejectCode.STALE and self._had_before and settings is not None:
            # The ledger may have forgotten that it accepted an earlier copy: given back, it could count twice.
            outcome = FORGOTTEN if version - row.base_version > settings.remembered_versions else outcome
        self.state = settle(before, row, outcome, decision.incarnation)
        self.sending.settled()
        facts = _facts_of(row)
        self._report(Kind.SETTLED, outcome=outcome, weight=decision.weight, **facts)
        if self.state.tally.updates_discarded > before.tally.updates_discarded:
            self._report(Kind.DISCARDED, reason=outcome, **facts)
        if self.state.incarnation != before.incarnation:
            self._report(Kind.INCARNATION, incarnation=self.state.incarnation, reason=decision.outcome)

    def _doubt(self, row: Row, reason: str) -> None:
        self.state = replace(self.state, row=replace(row, partition=None, offset=None))
        self.sending.again(self._now.now_s)
        self._report(Kind.IN_DOUBT, sequence=row.sequence, reason=reason)

    def _answers(self) -> None:
        if not self._online:
            self._online = True
            self.sending.again(self._now.now_s)
            self._report(Kind.REACHABLE)

    def _set_settings(self, settings: TaskSettings) -> None:
        if self.state.settings is not settings and self.state.settings != settings:
            self.state = replace(self.state, settings=settings)

    # What training and the log answer

    def _trained(self, event: events.Trained) -> None:
        if not is_finite(event.local):
            self._take(
                events.TrainingFailed("the trained model is not finite; lower the learning rate or clip gradients")
            )
            return
        self._training.ended(self._now.now_s, event.seconds)
        self.state = add_training(self.state, event, self._now.wall_s)
        metrics: dict[str, Fact] = {f"metric_{name}": value for name, value in event.metrics.items()}
        self._report(
            Kind.TRAINED,
            base_version=event.base.version,
            steps=event.num_steps,
            seconds=event.seconds,
            **metrics,
        )

    def _produced(self, event: events.Produced) -> None:
        self.sending.answered(self._now.now_s)
        row = self.state.row
        if row is None or (row.incarnation, row.sequence) != (event.incarnation, event.sequence):
            return
        place: dict[str, Fact] = {"partition": event.partition, "offset": event.offset}
        self._report(Kind.SENT, bytes=len(row.data), **place, **_facts_of(row))
        if self._last is not None and event.offset < self._last.vector[event.partition]:
            self._doubt(row, "the chain had passed the update before its place was known")
            return
        self.state = replace(self.state, row=replace(row, partition=event.partition, offset=event.offset))

    # What comes next

    def _next(self) -> Sequence[Effect]:
        settings, effects = self.state.settings, list[Effect]()
        if settings is None or self._stopping:
            return effects
        if self.ready and self._last is not None:
            self._look_after_row(self._last, settings)
            if self.state.queued is not None and not self._training.running:
                self._look_after_queued(self.state.queued, self._last, settings)
            effects += self._produce()
        return effects + self._train(settings)

    def _look_after_row(self, last: Body, settings: TaskSettings) -> None:
        row = self.state.row
        if row is None or self.sending.running:
            return
        if not row.in_doubt:
            if self._now.now_s >= self.sending.patient_until_s(settings):
                self.sending.silent()
                self._doubt(row, "the chain is silent about the update")
        elif last.version - row.base_version > last.max_staleness:
            self._give_up(row, "too_old")
        elif self._now.wall_s - row.since_s > self._limits.max_age_s:
            self._give_up(row, "waited_too_long")

    def _give_up(self, row: Row, reason: str) -> None:
        self.state = settle(self.state, row, reason)
        self._report(Kind.DISCARDED, reason=reason, sequence=row.sequence, work=row.work)

    def _look_after_queued(self, queued: Queued, last: Body, settings: TaskSettings) -> None:
        """Make a record of the queued work once the last one is settled; work from too old a base starts over."""
        too_old = last.version - queued.base.version > last.max_staleness
        try:
            if too_old or self._now.wall_s - queued.since_s > self._limits.max_age_s:
                self.state = fold_back(self.state, queued, settings)
                self._report(Kind.GIVEN_BACK, base_version=queued.base.version, work=queued.work)
            elif self.state.row is None:
                names = {"task": self._task, "client_id": self._client_id}
                self.state, row = pack(self.state, queued, layout=self._layout, settings=settings, **names)
                self._had_before = self._has = False
                self.sending.again(self._now.now_s)
                self._report(Kind.QUEUED, sequence=row.sequence, bytes=len(row.data), work=row.work)
        except NonFiniteError:
            self.state = drop_queued(self.state, queued)
            self._report(Kind.DISCARDED, reason="non_finite", work=queued.work)

    def _produce(self) -> list[Effect]:
        row = self.state.row
        if row is None or not row.in_doubt or self.sending.running or self._now.now_s < self.sending.at_s:
            return []
        self.sending.begin()
        self._had_before, self._has = self._has, True
        return [events.Produce(row)]

    def _train(self, settings: TaskSettings) -> list[Effect]:
        if self._training.running or self._now.now_s < self._training.at_s:
            return []
        if self.state.queued is None and not self._entered:
            return []
        train = self._training.plan(self.state, settings)
        full, self._full = self._full, train is None
        if train is None:
            if not full:
                self._report(Kind.TRAINING_SKIPPED, reason="as much work waits as may")
            return []
        self._training.running = True
        self._report(Kind.TRAINING_STARTED, continued=int(train.start is not None))
        return [train]

    def _report(self, kind: Kind, **facts: Fact) -> None:
        self._reports.append(Report(kind, facts))


def _facts_of(row: Row) -> dict[str, Fact]:
    """What tells one update from all others, and how much is in it."""
    return {
        "incarnation": row.incarnation,
        "sequence": row.sequence,
        "crc": row.crc,
        "base_version": row.base_version,
        "work": row.work,
    }
