"""Writes everything that the fold reads into parts of the models topic, and loads it back."""

import asyncio
from collections.abc import Callable, Iterator, Mapping

from aggregator.chain.cache import KeyframeCache
from aggregator.fold.state import FoldState
from broker_topics.crash_points import Io, passing
from broker_topics.errors import InvariantError, WireError
from broker_topics.follow import task_blob
from broker_topics.layout import Vector
from broker_topics.models_log import ModelsReader
from broker_topics.parts import SERVER, TASK, Part, bytes_of, cut
from broker_topics.record import Record


def keyframe_parts(state: FoldState) -> Callable[[], Iterator[Part]]:
    """What gives the parts of a keyframe, cut one at a time, as often as it is called.

    The state's vectors must not move until the parts are taken. What is not a vector is taken at once: the ledger may
    go on changing.
    """
    small = {TASK: task_blob(state.layout, state.settings), SERVER: state.meta()}
    vectors = state.vectors()

    def parts() -> Iterator[Part]:
        for name, blob in small.items():
            yield from cut(name, blob)
        for name, vector in vectors.items():
            yield from cut(name, bytes_of(vector))

    return parts


async def load_keyframe(models: ModelsReader, record: Record, cache: KeyframeCache | None = None) -> FoldState:
    """The fold's state after an official keyframe record.

    Args:    cache: where to look for the vectors before they are fetched, and to keep them after. Those found there
             are on trust: their hashes are not compared with the record's.
    Raises:  PartMissingError: a part is gone.  InvariantError: the parts are not what the record says.
    """
    refs = record.body.parts
    with passing(Io.READ_KEYFRAME):
        meta = await models.read(refs, SERVER)
        size = FoldState.size_of(meta)
        names = {ref.name for ref in refs} - {TASK, SERVER, "delta"}
        if cache is not None and (kept := await asyncio.to_thread(cache.load, record.body, sorted(names), size)):
            try:
                return await asyncio.to_thread(_at, record, meta, kept)
            except (InvariantError, WireError) as error:
                cache.spoiled(str(error))
        vectors = {name: await models.read_vector(refs, name, size) for name in sorted(names)}
    state = await asyncio.to_thread(_at, record, meta, vectors)
    if await asyncio.to_thread(state.hashes) != record.body.hashes:
        raise _another(record)
    if cache is not None:
        await asyncio.to_thread(cache.store, record.body, state.vectors())
    return state


def _at(record: Record, meta: bytes, vectors: Mapping[str, Vector]) -> FoldState:
    """The state, if it is of the record's version and stands where the record does; slow where the fleet is large."""
    state = FoldState.restore(meta, vectors)
    if state.model.version != record.body.version or tuple(state.vector) != record.body.vector:
        raise _another(record)
    return state


def _another(record: Record) -> InvariantError:
    return InvariantError(f"the keyframe at height {record.height} is not the model that the chain names")
