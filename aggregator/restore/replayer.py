"""Applies official records to a fold, in order, with the inputs that they list read again from the log."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

from aggregator.chain.keyframe import load_keyframe
from aggregator.fold.core import Fold
from aggregator.fold.outcome import DivergedError
from aggregator.restore.inputs import InputLog, Place
from aggregator.restore.recovery import replay_forgiving
from broker_topics.codecs import Encoded
from broker_topics.errors import InputsLostError, WireError
from broker_topics.messages import Delta
from broker_topics.models_log import ModelsReader
from broker_topics.parts import DELTA, blob_refs
from broker_topics.record import Record

Progress = Callable[[int, int], None]
"""Called with records applied so far and in all."""


class Replayer:
    """A fold that stands right before the records that come; every version's hashes are compared with the chain's.

    inputs: where they are read again, from the fold's vector on.
    fold: where it stands now; another object after a record that replaces the model.
    proving: make every delta again and compare every version's hashes. Otherwise deltas are taken from the models
    topic, and the last version's hashes stand for all of them: a model that differed on the way still differs there.
    on_trust: whether the fold's own hashes are still to be compared. lost: inputs left out, if it is forgiving.
    """

    def __init__(
        self,
        inputs: InputLog,
        models: ModelsReader,
        fold: Fold,
        *,
        forgiving: bool = False,
        proving: bool = False,
        on_trust: bool = False,
    ) -> None:
        self._inputs, self._models, self._forgiving, self._proving = inputs, models, forgiving, proving
        self.fold = fold
        self.lost: list[Place] = []
        self._on_trust = on_trust

    @property
    def oldest_ms(self) -> float:
        """When the log took in the oldest input since the last keyframe; infinite before the first."""
        return self._inputs.oldest_ms

    def keyframe_passed(self) -> None:
        """Whoever enters from now on reads nothing older."""
        self._inputs.oldest_ms = float("inf")

    async def run(self, records: Sequence[Record], progress: Progress | None = None) -> None:
        """Apply them all; raises InputsLostError, DivergedError unless forgiving."""
        for count, record in enumerate(records, 1):
            await self.apply(record, records[count] if count < len(records) else None)
            if progress is not None:
                progress(count, len(records))
        await self.check()

    async def apply(self, record: Record, then: Record | None = None) -> None:
        """Apply one, while the inputs of the one that comes then are read.

        A BusError leaves the fold where it was, and the same record may be given again.
        """
        if record.body.replaces_model:
            state = await load_keyframe(self._models, record)
            self.fold = await asyncio.to_thread(Fold, task=self.fold.task, state=state)
            self.lost.clear()
            return
        frames = await self._inputs.fetch(record.body)
        if then is not None and not then.body.replaces_model:
            self._inputs.begin(then.body)
        await self._replay(record, frames)

    async def check(self) -> None:
        """Compare the hashes that were taken on trust; raises DivergedError."""
        if self._on_trust:
            await asyncio.to_thread(self.fold.check)
            self._on_trust = False

    async def _replay(self, record: Record, frames: dict[Place, bytes]) -> None:
        if self._forgiving:
            self.lost += await asyncio.to_thread(replay_forgiving, self.fold, record.body, frames)
            return
        delta = None if self._proving else await self._delta(record)
        self._on_trust = self._on_trust or delta is not None
        try:
            await asyncio.to_thread(self.fold.replay, record.body, frames, delta=delta)
        except WireError as error:
            raise DivergedError(f"record {record.height} names a delta that cannot be read: {error}") from error
        except InputsLostError as error:
            raise InputsLostError(f"{error}. To go on without it: headwater aggregator --accept-divergence") from error

    async def _delta(self, record: Record) -> Encoded | None:
        """What the record's step published; None where it cannot be had any more, and has to be made again."""
        if not blob_refs(record.body.parts, DELTA):
            return None
        with suppress(WireError):
            return Delta.from_bytes(await self._models.read(record.body.parts, DELTA)).encoded
        return None

    async def close(self) -> None:
        """Give up the connections."""
        await self._inputs.close()
