"""Writes everything that the fold reads into parts of the models topic, and loads it back."""

from collections.abc import Iterator

from aggregator.state import FoldState
from broker_topics.errors import InvariantError
from broker_topics.follow import task_blob
from broker_topics.models_log import ModelsReader
from broker_topics.parts import SERVER, TASK, Part, bytes_of, cut
from broker_topics.record import Record


def keyframe_parts(state: FoldState) -> Iterator[Part]:
    """The parts of a keyframe, cut one at a time; the state's vectors must not move until the last one is taken.

    What is not a vector is taken at once, when this is called: the ledger may go on changing.
    """
    small = {TASK: task_blob(state.layout, state.settings), SERVER: state.meta()}
    vectors = state.vectors()

    def parts() -> Iterator[Part]:
        for name, blob in small.items():
            yield from cut(name, blob)
        for name, vector in vectors.items():
            yield from cut(name, bytes_of(vector))

    return parts()


async def load_keyframe(models: ModelsReader, record: Record) -> FoldState:
    """The fold's state after an official keyframe record.

    Raises:  PartMissingError: a part is gone.  InvariantError: the parts are not what the record says.
    """
    refs = record.body.parts
    meta = await models.read(refs, SERVER)
    size = FoldState.size_of(meta)
    names = {ref.name for ref in refs} - {TASK, SERVER, "delta"}
    vectors = {name: await models.read_vector(refs, name, size) for name in sorted(names)}
    state = FoldState.restore(meta, vectors)
    same = (
        state.model.version == record.body.version
        and state.state_hash() == record.body.state_hash
        and state.model.hidden_hash() == record.body.hidden_hash
        and state.model.served_hash() == record.body.served_hash
        and tuple(state.vector) == record.body.vector
    )
    if not same:
        raise InvariantError(f"the keyframe at height {record.height} is not the model that the chain names")
    return state
