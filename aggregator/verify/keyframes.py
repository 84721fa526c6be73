"""I3: from each retained keyframe to the next, by the recorded decisions; whatever is compared is compared in bytes."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from aggregator.chain.keyframe import load_keyframe
from aggregator.fold.core import Fold
from aggregator.fold.state import FoldState
from aggregator.verify.decisions import Found
from aggregator.verify.verdict import Book, Invariant
from broker_topics.errors import HeadwaterError, InputsLostError
from broker_topics.models_log import ModelsReader, PartMissingError
from broker_topics.parts import DELTA, part_key
from broker_topics.record import PartRef, Record, RunKind

T = TypeVar("T")

_IN_THREAD = 1 << 17
"""Parameters from which on a step would hold up the event loop."""


class Keyframes:
    """Takes the official records in order and replays them; each keyframe must be the state that replay reached.

    So replay from any of them reaches every later one: what is equal in every byte goes on equally.

    Args:  alive: keys that the models topic still holds. whole: of the newest so many keyframes no part may be missing.
    """

    def __init__(self, book: Book, task: str, models: ModelsReader, *, alive: set[bytes], whole: int) -> None:
        self._book, self._task, self._models, self._alive, self._whole = book, task, models, alive, whole
        self._fold: Fold | None = None
        self._heights: list[int] = []
        self._missing: dict[int, list[str]] = {}

    @property
    def state(self) -> FoldState | None:
        """The state that replay has reached; None where it cannot go on from any keyframe."""
        return self._fold.state if self._fold is not None else None

    async def feed(self, record: Record, found: Found) -> None:
        """Go on by one official record."""
        missing = self._note_missing(record)
        if record.body.replaces_model:
            self._fold = None  # a roll back or repair: the model is what its keyframe says
        elif self._fold is not None:
            self._fold = await self._replayed(self._fold, record, found)
        if not record.body.keyframe:
            return
        self._heights.append(record.height)
        state = None if missing else await self._loaded(record)
        if state is None:
            return
        self._book.saw(Invariant.REPLAY, "keyframes read")
        if self._fold is not None:
            self._book.saw(Invariant.REPLAY, "keyframes reached by replay")
            if difference := _difference(self._fold.state, state):
                self._book.broken(
                    Invariant.REPLAY,
                    f"the keyframe at height {record.height} is not what replay reaches: {difference} differs",
                )
        self._fold = await self._run(state.layout.size, lambda: Fold(task=self._task, state=state))

    def close(self) -> None:
        """No more is to come: the newest keyframes, and every delta since, must be whole."""
        if not self._whole or not self._heights:
            return
        newest = self._heights[-self._whole :]
        for height, names in self._missing.items():
            if height < newest[0]:
                continue
            what = "keyframe" if height in newest else "record"
            self._book.broken(
                Invariant.REPLAY, f"the {what} at height {height} lost its parts {', '.join(names)}", gone=True
            )
        self._book.saw(Invariant.REPLAY, "newest keyframes whole", len(newest))

    def _note_missing(self, record: Record) -> bool:
        """Whether parts of the keyframe are gone; those of a delta are noted too."""
        gone = [ref for ref in record.body.parts if _key(record, ref) not in self._alive]
        if gone:
            self._missing[record.height] = [f"{ref.name}-{ref.index}" for ref in gone]
        return any(ref.name != DELTA for ref in gone)

    async def _loaded(self, record: Record) -> FoldState | None:
        try:
            return await load_keyframe(self._models, record)
        except PartMissingError as error:
            self._missing.setdefault(record.height, [str(error)])
        except HeadwaterError as error:
            self._book.broken(Invariant.REPLAY, f"the keyframe at height {record.height} cannot be loaded: {error}")
        return None

    async def _replayed(self, fold: Fold, record: Record, found: Found) -> Fold | None:
        frames: dict[tuple[int, int], bytes] = {}
        for run in record.body.runs:
            for offset in range(run.first, run.first + run.count) if run.kind is RunKind.DATA else ():
                there = found.get((run.partition, offset))
                if there is not None:
                    frames[run.partition, offset] = there.value or b""
        try:
            await self._run(fold.state.layout.size, lambda: fold.replay(record.body, frames))
        except InputsLostError:
            self._book.notes.append(f"inputs of height {record.height} are gone: replay goes on from the next keyframe")
            return None
        except HeadwaterError as error:
            self._book.broken(Invariant.REPLAY, f"replay of height {record.height}: {error}")
            return None
        self._book.saw(Invariant.REPLAY, "records replayed")
        return fold

    async def _run(self, size: int, work: Callable[[], T]) -> T:
        return await asyncio.to_thread(work) if size > _IN_THREAD else work()


def _key(record: Record, ref: PartRef) -> bytes:
    return part_key(height=record.height, writer=record.writer, digest=ref.digest, name=ref.name, index=ref.index)


def _difference(replayed: FoldState, loaded: FoldState) -> str:
    """What differs between two states, "" if nothing does; not by way of the bytes that a keyframe writes."""
    ours, theirs = replayed.vectors(), loaded.vectors()
    if ours.keys() != theirs.keys():
        return "the set of vectors"
    for name, vector in theirs.items():
        if not np.array_equal(ours[name].view(np.uint32), vector.view(np.uint32)):
            return name
    one, other = _facts(replayed), _facts(loaded)
    return next((name for name, fact in one.items() if fact != other[name]), "")


def _facts(state: FoldState) -> dict[str, object]:
    """All that the fold reads beside vectors, by name."""
    return {
        "settings": state.settings,
        "layout": state.layout,
        "version": state.model.version,
        "ledger": list(state.ledger.rows()),
        "fairness": state.fairness,
        "bases": state.bases,
        "max_staleness": state.max_staleness,
        "paused": state.paused,
        "vector": state.vector,
        "last_crc": state.last_crc,
    }
