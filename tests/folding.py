"""Drives a fold by hand: updates made of literal vectors, a log that keeps every frame, and the records that result."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from aggregator.fold.core import Admission, Draft, Fold
from aggregator.fold.state import FoldState
from broker_topics.codecs import CodecId, Encoded, encode
from broker_topics.layout import Layout, Tensor, Vector
from broker_topics.messages import Control, Update
from broker_topics.partitions import partition_of
from broker_topics.record import Body, Cause, RunKind
from broker_topics.task import TaskSettings

TASK = "watch"
PARTITIONS = 3
CONTROL = PARTITIONS


def vector(*numbers: float) -> Vector:
    return np.array(numbers, dtype=np.float32)


def layout_of(size: int) -> Layout:
    return Layout(tensors=(Tensor(name="w", shape=(size,)),))


def genesis(first: Vector, **settings: Any) -> FoldState:
    chosen = TaskSettings(**settings)
    return FoldState.genesis(settings=chosen, layout=layout_of(first.size), first=first, vector=[0] * (PARTITIONS + 1))


def snapshot(state: FoldState) -> dict[str, bytes]:
    """The state's bytes: what two folds that agree share."""
    return {"meta": state.meta(), **{name: values.tobytes() for name, values in state.vectors().items()}}


def copied(state: FoldState) -> FoldState:
    """Another state of the same bytes, by the way that a keyframe takes."""
    return FoldState.restore(state.meta(), {name: values.copy() for name, values in state.vectors().items()})


@dataclass
class Bench:
    """A fold with its log; `frames` holds every record of it, `bodies` what every record says."""

    fold: Fold
    frames: dict[tuple[int, int], bytes] = field(default_factory=dict)
    bodies: list[Body] = field(default_factory=list)
    sequences: dict[str, int] = field(default_factory=dict)
    admissions: list[Admission] = field(default_factory=list)

    @classmethod
    def of(cls, first: Vector, **settings: Any) -> "Bench":
        return cls(Fold(task=TASK, state=genesis(first, **settings)))

    @property
    def state(self) -> FoldState:
        return self.fold.state

    @property
    def version(self) -> int:
        return self.fold.state.model.version

    def frame(self, client: str, delta: Vector | Encoded, **changed: Any) -> bytes:
        """The next update of a client: fresh, dense, of incarnation 1, unless told otherwise."""
        self.sequences[client] = self.sequences.get(client, 0) + 1
        base = changed.pop("base", self.version)
        fields: dict[str, Any] = {
            "task": TASK,
            "client_id": client,
            "incarnation": 1,
            "sequence": self.sequences[client],
            "layout": self.state.layout.fingerprint,
            "base_version": base,
            "base_hash": self.state.bases.get(base, bytes(8)),
            "num_examples": 10,
            "num_steps": 1,
            "work": 1.0,
            "encoded": delta if isinstance(delta, Encoded) else encode(delta, CodecId.FLOAT32),
        }
        return Update(**{**fields, **changed}).to_bytes()

    def append(self, client: str, data: bytes, *, key: bytes | None = None, partition: int | None = None) -> Admission:
        """Put a record into the log where its client's records lie, and offer it."""
        key = client.encode() if key is None else key
        partition = partition_of(client.encode(), PARTITIONS) if partition is None else partition
        offset = self.state.vector[partition]
        self.frames[partition, offset] = data
        admission = self.fold.offer(partition=partition, offset=offset, key=key, data=data)
        self.admissions.append(admission)
        return admission

    def send(self, client: str, delta: Vector | Encoded, **changed: Any) -> Admission:
        return self.append(client, self.frame(client, delta, **changed))

    def step(self, cause: Cause = Cause.FULL) -> Draft:
        draft = self.fold.step(cause)
        self.bodies.append(draft.body)
        return draft

    def when_full(self) -> None:
        if self.fold.pending >= self.fold.limit(0):
            self.step()

    def command(self, name: str) -> Draft:
        """A command with a record of its own, the buffer flushed before."""
        if self.fold.consumed:
            self.step(Cause.CONTROL)
        offset, data = self.state.vector[CONTROL], Control(command=name).to_bytes()
        self.frames[CONTROL, offset] = data
        self.fold.command(offset=offset, data=data)
        return self.step(Cause.CONTROL)

    def skip(self, partition: int, count: int, kind: RunKind) -> None:
        self.fold.void(partition=partition, first=self.state.vector[partition], count=count, kind=kind)


def replayed(state: FoldState, bodies: Iterable[Body], frames: Mapping[tuple[int, int], bytes]) -> Fold:
    """A fold that went from `state` through recorded decisions."""
    fold = Fold(task=TASK, state=state)
    for body in bodies:
        fold.replay(body, frames)
    return fold


def scrambled(size: int, seed: int, scale: float = 1.0) -> Vector:
    """Heavy-tailed numbers made by integer arithmetic alone: the same bits on every machine."""
    state = np.arange(1, size + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed)
    state ^= state >> np.uint64(30)
    state *= np.uint64(0xBF58476D1CE4E5B9)
    state ^= state >> np.uint64(27)
    state *= np.uint64(0x94D049BB133111EB)
    state ^= state >> np.uint64(31)
    centred = ((state >> np.uint64(40)).astype(np.float32) - np.float32(2**23)) / np.float32(2**23)
    return centred * centred * centred * np.float32(scale)
