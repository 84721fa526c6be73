"""What must hold of a task's log, whatever happened to those who wrote it; needs nothing but the log.

I1  every accepted update is in exactly one commit, once by content and once by (client, incarnation, sequence)
I2  one gapless hash-linked chain; every reader saw this one
I3  replay from each retained keyframe reaches the next one: model, optimizer, ledger, byte for byte
I4  what the log acknowledged is settled in the end
I5  staleness at application ≤ max_staleness, from the base that the chain names
I6  per partition: received = applied + refused, every void run is void

The chain is walked by rules of our own, so that an error in the product's reader shows.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress

from aggregator.core import Fold
from aggregator.gate import SETTLING
from aggregator.keyframe import load_keyframe
from aggregator.ledger import REMEMBERED
from aggregator.state import FoldState
from broker_topics.bus import Bus
from broker_topics.errors import HeadwaterError, WireError
from broker_topics.frames import frame_crc
from broker_topics.messages import Head, Reject, Update
from broker_topics.models_log import HEAD_KEY, ModelsReader, PartMissingError
from broker_topics.record import Decision, Record, Run, RunKind
from tests.simulation.history import History, Input, inputs_of, read_history


async def check(
    bus: Bus,
    task: str,
    *,
    seen: Iterable[tuple[int, bytes]] = (),
    known: Mapping[int, bytes] | None = None,
    settled: bool = False,
    keyframes: int = 0,
) -> History:
    """Check a task's log.

    Args:    seen: (height, hash) of records that readers took for official. known: frames by CRC, for inputs that
             retention has taken. settled: nothing may be left in the log undecided. keyframes: of the newest so many
             keyframes no part may be missing.
    Returns: the history, with every violation found.
    """
    history = await read_history(bus, task)
    if not history.chain:
        history.broken("I2", "the chain has no beginning")
        return history
    decided = list(inputs_of(history, known or {}))
    _check_records(history)
    _check_seen(history, seen)
    _check_once(history, decided)
    _check_staleness(history, decided)
    _check_offsets(history, decided, settled=settled)
    _check_rejects(history, decided)
    await _check_keyframes(bus, task, history, complete=keyframes)
    return history


def _check_records(history: History) -> None:
    """I2: versions count steps, a step takes what its record accepted, `head` names an official keyframe."""
    control = len(history.vector) - 1
    for last, record in zip(history.chain, history.chain[1:], strict=False):
        body = record.body
        if body.version != last.body.version + len(body.steps):
            history.broken("I2", f"height {record.height} makes version {last.body.version} into {body.version}")
        taken = sum(step.inputs for step in body.steps)
        if taken != sum(d.accepted for run, d in _by_run(body.runs, body.decisions) if run.partition != control):
            history.broken("I2", f"height {record.height}: the step takes another number of updates than was accepted")
        if not body.steps and (body.state_hash, body.hidden_hash) != (last.body.state_hash, last.body.hidden_hash):
            history.broken("I2", f"height {record.height} moves the model without a step")
        if not body.runs and not body.keyframe:
            history.broken("I2", f"height {record.height} consumes nothing")
    for found in history.models.values():
        if found.key == HEAD_KEY and found.value:
            _check_head(history, found.value)


def _by_run(runs: Sequence[Run], decisions: Sequence[Decision]) -> Iterator[tuple[Run, Decision]]:
    rest = iter(decisions)
    for run in runs:
        if run.kind is RunKind.DATA:
            for _ in range(run.count):
                yield run, next(rest)


def _check_head(history: History, data: bytes) -> None:
    try:
        head = Head.from_bytes(data)
    except WireError:
        return
    if head.offset in history.offsets:
        record = history.chain[history.offsets.index(head.offset)]
        if record.hash == head.record_hash and not record.body.keyframe:
            history.broken("I2", f"head names height {head.height}, which is no keyframe")
        return
    official = {record.hash for record in history.chain}
    if head.height < len(history.chain) and history.chain[head.height].hash != head.record_hash in official:
        history.broken("I2", f"head names a record that never became official at height {head.height}")


def _check_seen(history: History, seen: Iterable[tuple[int, bytes]]) -> None:
    """I2: no reader ever followed another chain."""
    for height, digest in sorted(set(seen)):
        if height >= len(history.chain) or history.chain[height].hash != digest:
            history.broken("I2", f"a reader saw another record at height {height}")


def _check_once(history: History, decided: Sequence[Input]) -> None:
    """I1."""
    control = len(history.vector) - 1
    taken = [one for one in decided if one.decision.accepted and one.partition != control]
    for crc, count in Counter(one.decision.crc for one in taken).items():
        if count > 1:
            history.broken("I1", f"update {crc:08x} was accepted {count} times")
    last_taken: dict[tuple[str, int, int], int] = {}
    for one in taken:
        if one.data is None:
            continue
        update, body = Update.from_bytes(one.data), history.chain[one.height].body
        name = update.client_id, update.incarnation, update.sequence
        # A device silent for longer than the ledger remembers may be installed anew and count from the beginning.
        remembered = REMEMBERED * min(body.max_staleness, history.chain[one.height - 1].body.max_staleness)
        if name in last_taken and body.version - last_taken[name] <= remembered:
            history.broken("I1", f"two updates were accepted as {name}")
        last_taken[name] = body.version
    refused: set[int] = set()
    for one in decided:
        if one.decision.accepted and one.decision.crc in refused and one.partition != control:
            history.broken("I1", f"update {one.decision.crc:08x} was refused for good and then accepted")
        if one.decision.code in SETTLING:
            refused.add(one.decision.crc)


def _check_staleness(history: History, decided: Sequence[Input]) -> None:
    """I5."""
    control = len(history.vector) - 1
    bases = {record.body.version: record.body.base_hash for record in reversed(history.chain)}
    for one in decided:
        if not one.decision.accepted or one.partition == control or one.data is None:
            continue
        update, last = Update.from_bytes(one.data), history.chain[one.height - 1].body
        staleness = last.version - update.base_version
        if not 0 <= staleness <= last.max_staleness:
            history.broken("I5", f"height {one.height} applies an update {staleness} versions old")
        if bases.get(update.base_version) != update.base_hash:
            history.broken("I5", f"height {one.height} applies an update from a base that never was")


def _check_offsets(history: History, decided: Sequence[Input], *, settled: bool) -> None:
    """I6, and I4 where everything should be settled."""
    counts: Counter[int] = Counter()
    for one in decided:
        counts[one.partition] += 1
        found = history.inputs.get((one.partition, one.offset))
        if found is None and one.offset >= history.starts[one.partition]:
            history.broken("I6", f"partition {one.partition}, offset {one.offset} was decided on, but holds nothing")
        if found is not None and (not found.readable or frame_crc(found.value or b"") != one.decision.crc):
            history.broken("I6", f"partition {one.partition}, offset {one.offset} holds another input than decided on")
    first = history.chain[0].body.vector
    for record in history.chain:
        for run in record.body.runs:
            if run.kind is not RunKind.DATA:
                counts[run.partition] += run.count
                _check_void(history, run)
    for partition, (start, end) in enumerate(zip(first, history.vector, strict=True)):
        if counts[partition] != end - start:
            history.broken("I6", f"partition {partition}: {end - start} offsets passed, {counts[partition]} told of")
    for (partition, offset), _ in history.inputs.items():
        if settled and offset >= history.vector[partition]:
            history.broken("I4", f"partition {partition}, offset {offset} was acknowledged and never settled")


def _check_void(history: History, run: Run) -> None:
    for offset in range(run.first, run.first + run.count):
        found = history.inputs.get((run.partition, offset))
        if found is not None and (found.readable or run.kind is not RunKind.UNREADABLE):
            history.broken("I6", f"partition {run.partition}, offset {offset} was passed over, but can be read")


def _check_rejects(history: History, decided: Sequence[Input]) -> None:
    """Only what the chain refused may be told to a device as refused."""
    codes = {(one.partition, one.offset): one.decision for one in decided}
    for found in history.rejects:
        try:
            reject = Reject.from_bytes(found.value or b"")
        except WireError:
            history.broken("I6", "a reject cannot be read")
            continue
        decision = codes.get((reject.partition, reject.offset))
        if decision is None or (decision.code, decision.crc) != (reject.code, reject.crc):
            history.broken("I6", f"a reject of {reject.partition}/{reject.offset} says what the chain does not")


async def _check_keyframes(bus: Bus, task: str, history: History, *, complete: int) -> None:
    """I3: from each keyframe to the next; where inputs between them are gone the next one begins anew."""
    heights = [record.height for record in history.chain if record.body.keyframe]
    fold: Fold | None = None
    models = ModelsReader(bus, task)
    try:
        for record in history.chain[heights[0] :]:
            if record.body.replaces_model:
                fold = None  # a roll back or repair: the model is what its keyframe says
            elif fold is not None:
                fold = _replayed(history, fold, record)
            if record.body.keyframe:
                state = await _loaded(models, history, record, must=record.height in heights[len(heights) - complete :])
                if fold is not None and state is not None:
                    _compare(history, record, fold.state, state)
                fold = Fold(task=task, state=state) if state is not None else fold
        history.x = fold.state.x if fold is not None else None
    finally:
        await models.close()


async def _loaded(models: ModelsReader, history: History, record: Record, *, must: bool) -> FoldState | None:
    try:
        return await load_keyframe(models, record)
    except PartMissingError as error:
        if must:
            history.broken("I3", f"the keyframe at height {record.height} is gone: {error}")
    except HeadwaterError as error:
        history.broken("I3", f"the keyframe at height {record.height} cannot be loaded: {error}")
    return None


def _replayed(history: History, fold: Fold, record: Record) -> Fold | None:
    frames: dict[tuple[int, int], bytes] = {}
    for run in record.body.runs:
        for offset in range(run.first, run.first + run.count) if run.kind is RunKind.DATA else ():
            found = history.inputs.get((run.partition, offset))
            if found is None:
                return None
            frames[run.partition, offset] = found.value or b""
    try:
        fold.replay(record.body, frames)
    except HeadwaterError as error:
        history.broken("I3", f"replay of height {record.height}: {error}")
        return None
    history.segments += record.body.keyframe
    return fold


def _compare(history: History, record: Record, replayed: FoldState, loaded: FoldState) -> None:
    with suppress(KeyError):
        same = all((replayed.vectors()[name] == vector).all() for name, vector in loaded.vectors().items())
        if same and _facts(replayed) == _facts(loaded):
            return
    history.broken("I3", f"the keyframe at height {record.height} is not the state that replay reaches")


def _facts(state: FoldState) -> tuple[object, ...]:
    """All that the fold reads beside vectors, not by way of the bytes that a keyframe writes."""
    return (
        state.settings,
        state.layout,
        state.model.version,
        list(state.ledger.rows()),
        state.fairness,
        state.bases,
        state.max_staleness,
        state.paused,
        state.vector,
        state.last_crc,
    )
