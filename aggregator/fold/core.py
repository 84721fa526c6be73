"""The fold: decides on inputs in log order, adds them up, and moves the model.

Pure: no clock, no I/O, no randomness. The shell's duties, in order: give every offset of every partition once, as an
input (`offer`, `command`) or as `void`; call `step` when `pending` reaches `limit` or a deadline passes; publish the
draft before it gives the next command. Live decisions and `replay` of recorded ones leave the same bytes.
"""

from collections.abc import Mapping

import numpy as np

from aggregator.fold.commands import judge_command
from aggregator.fold.downlink import move_hidden
from aggregator.fold.fairness import Habit
from aggregator.fold.gate import SETTLING, Decode, Passed, judge
from aggregator.fold.outcome import Admission, Consumed, DivergedError, Draft, admission
from aggregator.fold.rules import Arrival, server_rule
from aggregator.fold.server_optimizer import server_optimizer
from aggregator.fold.staleness import staleness_weight
from aggregator.fold.state import FoldState
from aggregator.fold.total import Total
from broker_topics.codecs import Decoded, Encoded, decode
from broker_topics.errors import InputsLostError, InvariantError, WireError
from broker_topics.frames import frame_crc
from broker_topics.messages import Delta, Update
from broker_topics.record import Body, Cause, Decision, RunKind, Step
from broker_topics.together import LARGE, together

__all__ = ["Admission", "DivergedError", "Draft", "Fold"]


class Fold:
    """Folds the inputs of one task into `state`, which nothing else may change.

    pending: accepted updates in the buffer. hashes: those of `state`, where the caller compared them already.
    decode: reads the payload of an update that is offered.
    """

    def __init__(self, *, task: str, state: FoldState, hashes: tuple[bytes, bytes, bytes] | None = None) -> None:
        self.task, self.state = task, state
        self.pending = 0
        self._rule = server_rule(state.settings)
        self._optimizer = server_optimizer(state.settings)
        self._freshness = staleness_weight(state.settings)
        self._total = Total(state.layout.size)
        self._large = state.layout.size >= LARGE
        self._consumed = Consumed()
        self.decode: Decode = decode
        self._hashes = hashes or self.state.hashes()

    @property
    def consumed(self) -> int:
        """Inputs and void offsets since the last step."""
        return self._consumed.count

    def limit(self, lag: int) -> int:
        """Accepted updates that the next step should take, while `lag` inputs wait in the log: K, or what waits.

        Devices that could not be heard for a while all started from about the same model: one step by their mean is
        nearer to what they meant than many steps, each of which the others knew nothing of.
        """
        return min(self._rule.backlog_buffer_size, max(self._rule.buffer_size, lag))

    def offer(self, *, partition: int, offset: int, key: bytes | None, data: bytes) -> Admission:
        """Decide on one record of the updates topic and, if it is accepted, add it to the buffer.

        Raises:  InvariantError: if `offset` is not the next one of its partition.
        """
        self._expect(partition, offset)
        limit = self._rule.weight_limit
        verdict = judge(
            self.state, self.decode, task=self.task, weight_limit=limit, partition=partition, key=key, data=data
        )
        if isinstance(verdict, Passed):
            decision = self._admit(verdict.update, verdict.crc, verdict.decoded, None)
        else:
            decision = verdict.decision
            if decision.code in SETTLING and verdict.update is not None:
                self._settle(verdict.update, decision, None)
        self._record(partition, offset, decision)
        return admission(verdict, decision, partition=partition, offset=offset, size=len(data))

    def command(self, *, offset: int, data: bytes, found: bool = False) -> Decision:
        """Decide on one record of the control topic: pause, resume, roll back; anything else is malformed.

        Args:    found: whether the version of a roll back can be had; if so, `replace` must follow, else it is `gone`.
        Raises:  InvariantError: if the buffer was not closed by a step before, or `offset` is not the next one.
        """
        if self.consumed:
            raise InvariantError("a command has a record of its own: step before it")
        partition = len(self.state.vector) - 1
        self._expect(partition, offset)
        decision = self._obey(data, found)
        self._record(partition, offset, decision)
        return decision

    def void(self, *, partition: int, first: int, count: int, kind: RunKind) -> None:
        """Pass over `count` offsets that hold no input.

        Raises:  InvariantError: for a gap, an empty run, or a run of data.
        """
        self._expect(partition, first)
        if count < 1 or kind is RunKind.DATA:
            raise InvariantError("a void run has at least one offset and holds no data")
        self._pass_over(partition, first, count, kind)
        self.state.last_crc[partition] = None

    def step(self, cause: Cause) -> Draft:
        """Close the buffer: move the model if anything was accepted, and say what a record needs to say.

        Raises:  InvariantError: the model left the range of float32.
        """
        if not self.pending:
            return self._close(cause, (), None)
        return self._close(cause, (Step(self.pending, cause),), self._advance(None))

    def replace(self, cause: Cause, source: FoldState | None = None) -> Draft:
        """Make the model of another state the next version, or the present one again; vector and ledger stay.

        Args:    source: a state of the same task, not modified; None keeps the model as it is.
        Raises:  InvariantError: if updates wait in the buffer.
        """
        if self.pending:
            raise InvariantError("a model is replaced between steps only")
        state = self.state
        if source is not None:
            for name, vector in source.vectors().items():
                np.copyto(state.vectors()[name], vector)
        state.model.version += 1
        self._hashes = self.state.hashes()
        state.turn(base_hash=self._hashes[1][:8], max_staleness=state.chosen_staleness(self._rule.buffer_size))
        return self._close(cause, (Step(0, cause),), None)

    def replay(
        self,
        body: Body,
        inputs: Mapping[tuple[int, int], bytes],
        *,
        delta: Encoded | None = None,
        compare: bool = True,
    ) -> None:
        """Apply the recorded decisions of the next record, with its recorded weights, and compare every hash.

        Args:    inputs: the frame of every data input that the record lists, by (partition, offset).
                 delta: what the step published. It need not be made again then, and the record's hashes are taken on
                 trust until `check`, which a caller owes before anything is built on the result.
                 compare: False only where an operator accepted that the result differs.
        Raises:  InputsLostError: an input is missing, or is another one than was decided on.
                 DivergedError: the result is not what the record says.  WireError: the delta cannot be read.
                 InvariantError: if inputs were offered since the last step.
        """
        if self.consumed:
            raise InvariantError("records are replayed between steps only")
        for run, decisions in body.decided():
            if run.kind is not RunKind.DATA:
                self.void(partition=run.partition, first=run.first, count=run.count, kind=run.kind)
            for offset, decision in enumerate(decisions, run.first):
                self._again(run.partition, offset, decision, inputs.get((run.partition, offset)))
        if sum(step.inputs for step in body.steps) != self.pending:
            raise DivergedError(f"version {body.version}: its decisions are not what its step says it took")
        if self.pending and delta is not None:
            self._follow(body, delta)
        elif self.pending:
            self._advance(body.max_staleness)
        reached = self._close(body.cause, body.steps, None).body
        if not compare:
            return
        for name in ("version", "vector", "max_staleness", "state_hash", "hidden_hash", "served_hash"):
            if getattr(reached, name) != getattr(body, name):
                raise DivergedError(f"replay of version {body.version} ends with another {name} than the chain says")

    def check(self) -> None:
        """Compare the model with the hashes of the last record; raises DivergedError where they differ."""
        if self.state.hashes() != self._hashes:
            raise DivergedError(f"replay up to version {self.state.model.version} ends elsewhere than the chain says")

    def _again(self, partition: int, offset: int, decision: Decision, data: bytes | None) -> None:
        """Apply one recorded decision."""
        where = f"partition {partition}, offset {offset}"
        if data is None:
            raise InputsLostError(f"{where}: the log no longer holds this input; start from a newer keyframe")
        if frame_crc(data) != decision.crc:
            raise InputsLostError(f"{where}: another record lies there than the chain consumed")
        self._expect(partition, offset)
        if partition == len(self.state.vector) - 1:
            if decision.accepted:
                self._obey(data, False)
        elif decision.accepted or decision.code in SETTLING:
            try:
                update = Update.from_bytes(data, crc=decision.crc)
                decoded = decode(update.encoded) if decision.accepted else None
            except WireError as error:
                raise DivergedError(f"{where}: the chain accepted what cannot be read: {error}") from error
            if decoded is not None:
                self._admit(update, decision.crc, decoded, decision.weight)
            else:
                self._settle(update, decision, None)
        self._record(partition, offset, decision)

    def _admit(self, update: Update, crc: int, decoded: Decoded, recorded: float | None) -> Decision:
        """Add one accepted update; its weight is the recorded one, or the rule's."""
        state = self.state
        freshness = self._freshness(state.model.version - update.base_version)
        by_examples = state.settings.counting == "examples"
        share = min(update.num_examples, state.settings.max_examples) if by_examples else 1
        entry = state.ledger.get(update.client_id)
        habit = state.fairness.arrive(entry.habit if entry else None, share=share, freshness=freshness)
        weight = recorded
        if weight is None:
            correction, relative_share = state.fairness.correction(habit), state.fairness.relative_share(habit)
            arrival = Arrival(correction, relative_share, freshness, habit.freshness, update.work)
            weight = float(np.float32(self._rule.weight(arrival)))
        self._total.add(decoded, weight)
        decision = Decision(crc, weight)
        self._settle(update, decision, habit)
        self.pending += 1
        return decision

    def _settle(self, update: Update, decision: Decision, habit: Habit | None) -> None:
        self.state.ledger.settle(
            client_id=update.client_id,
            incarnation=update.incarnation,
            sequence=update.sequence,
            decision=decision,
            version=self.state.model.version,
            habit=habit,
        )

    def _obey(self, data: bytes, found: bool) -> Decision:
        decision, paused = judge_command(data, found=found)
        if paused is not None:
            self.state.paused = paused
        return decision

    def _follow(self, body: Body, delta: Encoded) -> None:
        """One server step of somebody else: its delta and its hashes are those of the chain."""
        state, decoded, total = self.state, decode(delta), self._total.vector()
        divisor = max(self._rule.buffer_size, self.pending)
        together(
            lambda: self._optimizer.update(state.x, total, state.velocity, divisor=divisor),
            lambda: state.model.advance(decoded, inputs=self.pending, horizon=state.settings.served_horizon),
            worth_it=self._large,
        )
        self._hashes = body.state_hash, body.hidden_hash, body.served_hash
        state.turn(base_hash=body.base_hash, max_staleness=body.max_staleness)
        self._total.clear()

    def _advance(self, max_staleness: int | None) -> tuple[bytes, float]:
        """One server step: the Delta frame that it publishes, and its norm.

        The buffer's total serves as scratch space for x − x̂.
        """
        state, model = self.state, self.state.model
        divisor = max(self._rule.buffer_size, self.pending)
        total = self._total.vector()
        self._optimizer.update(state.x, total, state.velocity, divisor=divisor)
        (encoded, norm), state_hash = together(
            lambda: move_hidden(state, total, inputs=self.pending), state.state_hash, worth_it=self._large
        )
        base_hash = state.bases[model.version - 1]
        self._hashes = state_hash, model.hidden_hash(), model.served_hash()
        if max_staleness is None:
            max_staleness = state.chosen_staleness(self._rule.buffer_size)
        state.turn(base_hash=self._hashes[1][: len(base_hash)], max_staleness=max_staleness)
        self._total.clear()
        layout, version = state.layout.fingerprint, model.version
        delta = Delta(task=self.task, layout=layout, version=version, base_hash=base_hash, encoded=encoded)
        return delta.to_bytes(), norm

    def _close(self, cause: Cause, steps: tuple[Step, ...], moved: tuple[bytes, float] | None) -> Draft:
        state_hash, hidden_hash, served_hash = self._hashes
        body = Body(
            version=self.state.model.version,
            steps=steps,
            cause=cause,
            runs=tuple(self._consumed.runs),
            vector=tuple(self.state.vector),
            decisions=tuple(self._consumed.decisions),
            rules=self.state.settings.digest,
            max_staleness=self.state.max_staleness,
            state_hash=state_hash,
            hidden_hash=hidden_hash,
            served_hash=served_hash,
        )
        self._consumed, self.pending = Consumed(), 0
        return Draft(body, *(moved or (None, 0.0)))

    def _expect(self, partition: int, offset: int) -> None:
        vector = self.state.vector
        if not 0 <= partition < len(vector) or offset != vector[partition]:
            raise InvariantError(f"partition {partition}, offset {offset} is not what comes next: {vector}")

    def _record(self, partition: int, offset: int, decision: Decision) -> None:
        self._consumed.decisions.append(decision)
        self._pass_over(partition, offset, 1, RunKind.DATA)
        self.state.last_crc[partition] = decision.crc

    def _pass_over(self, partition: int, first: int, count: int, kind: RunKind) -> None:
        self._consumed.add(partition, first, count, kind)
        self.state.vector[partition] += count
