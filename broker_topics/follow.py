"""Follows a task as a device does: the official records, the hidden model and the served average, bit for bit."""

import asyncio
from contextlib import suppress

import msgpack

from broker_topics.bus import Bus
from broker_topics.chain import ChainPosition
from broker_topics.codecs import decode
from broker_topics.commits_log import ChainLostError, CommitsReader, Official
from broker_topics.entry import check_task, entry
from broker_topics.errors import ConfigError, InvariantError, RejectCode, WireError
from broker_topics.hidden import HiddenModel
from broker_topics.layout import Layout
from broker_topics.messages import Delta
from broker_topics.models_log import ModelsReader, PartMissingError
from broker_topics.parts import DELTA, DEVICE_BLOBS, TASK, blob_bytes, blob_refs
from broker_topics.record import Record
from broker_topics.task import TaskSettings
from broker_topics.topics import Topic


class Follower:
    """x̂ and the served average at the newest official version; whatever was missed, the bytes end equal.

    After `enter`: `settings`, `layout`, `model` and `last` are set. `model` is advanced in place by `poll`: copy what
    you keep.
    """

    settings: TaskSettings
    layout: Layout
    model: HiddenModel
    last: Record

    def __init__(self, bus: Bus, task: str) -> None:
        self._bus, self.task = bus, task
        self._models = ModelsReader(bus, task)
        self._commits: CommitsReader | None = None
        self._held: list[Record] = []

    @property
    def position(self) -> ChainPosition:
        """The newest official record that `poll` has taken in."""
        if self._commits is None:
            raise ChainLostError("enter first")
        return self._commits.position

    @property
    def bytes_received(self) -> int:
        """Bytes of models, deltas and keyframes fetched so far."""
        return self._models.bytes_received

    async def enter(self, since: ChainPosition | None = None, *, until: int | None = None) -> bool:
        """Load the newest model, or version `until`, at which it then stays.

        Returns: True if the first `poll` returns every record after `since`; False if the chain cannot be followed
                 from there (or `since` is None): what was decided in between is then unknown.
        Raises:  ConfigError: unknown task or version.  ChainLostError: no model can be read yet; try again.
        """
        await check_task(self._bus, self.task, (Topic.COMMITS, Topic.MODELS))
        first = await entry(self._bus, self.task, self._models, since) if until is None else None
        records = await self._records(first)
        if until is not None:
            records = self._up_to(until, records)
            await self._leave()
        try:
            await self._load(records)
        except ChainLostError:
            if first is None:
                raise
            records = await self._records(None)
            await self._load(records)
        self.last = records[-1]
        known = since is not None and any(r.height == since.height and r.hash == since.hash for r in records)
        self._held = [r for r in records if since and r.height > since.height] if known else []
        return known

    async def poll(self, *, timeout_s: float) -> list[Record]:
        """Newly official records in order; the model stands at the last one's version when it returns.

        Raises:  ChainLostError: enter again.  BusError: try again.
        """
        if self._commits is None:
            raise ChainLostError("enter first")
        if self._held:
            held, self._held = self._held, []
            return held
        records = [official.record for official in await self._commits.poll(timeout_s)]
        if records:
            try:
                await self._advance(records)
            except PartMissingError as error:
                await self._leave()
                raise ChainLostError(f"the models topic does not reach back to here: {error}") from error
            except BaseException:
                await self._leave()
                raise
            self.last = records[-1]
        return records

    async def _records(self, first: Official | None) -> list[Record]:
        """Every official record from `first`, or the log's beginning, to its end; further ones are read from there."""
        await self._leave()
        self._commits = CommitsReader(self._bus, self.task, first)
        records = [official.record for official in await self._commits.to_the_end()]
        if not records:
            raise ConfigError(
                f"task {self.task!r} has no first record; make it with: headwater task create --task {self.task}"
            )
        return records

    def _up_to(self, version: int, records: list[Record]) -> list[Record]:
        kept = [record for record in records if record.body.version <= version]
        if not kept or kept[-1].body.version != version:
            newest = records[-1].body.version
            raise ConfigError(f"version {version} of task {self.task!r} does not exist; it has versions 0 to {newest}")
        return kept

    async def close(self) -> None:
        """Give up the connections."""
        await self._leave()
        await self._models.close()

    async def _leave(self) -> None:
        commits, self._commits = self._commits, None
        if commits is not None:
            await commits.close()

    async def _load(self, records: list[Record]) -> None:
        """Load the newest readable keyframe among the records and apply what came after it."""
        for index in range(len(records) - 1, -1, -1):
            if records[index].body.keyframe and await self._jump(records[index]):
                try:
                    await self._apply(records[index + 1 :])
                except PartMissingError as error:
                    raise ChainLostError(f"only the next keyframe leads past a lost delta: {error}") from error
                return
        raise ChainLostError("no keyframe of this task can be read; the aggregator will write one")

    async def _load_keyframe(self, record: Record) -> None:
        refs = record.body.parts
        layout, settings = read_task_blob(await self._models.read(refs, TASK))
        hidden = await self._models.read_vector(refs, "hidden", layout.size)
        served = await self._models.read_vector(refs, "served", layout.size)
        model = HiddenModel(version=record.body.version, hidden=hidden, served=served)
        await asyncio.to_thread(_check, model, record)
        self.layout, self.settings, self.model = layout, settings, model

    async def _advance(self, records: list[Record]) -> None:
        """Catch up by deltas or by the newest keyframe, whichever is smaller."""
        newest = max((i for i, record in enumerate(records) if record.body.keyframe), default=None)
        if newest is not None and newest > 0:
            by_deltas = sum(blob_bytes(record.body.parts, [DELTA]) for record in records[: newest + 1])
            if blob_bytes(records[newest].body.parts, DEVICE_BLOBS) < by_deltas and await self._jump(records[newest]):
                records = records[newest + 1 :]
        await self._apply(records)

    async def _jump(self, keyframe: Record) -> bool:
        with suppress(PartMissingError):
            await self._load_keyframe(keyframe)
            return True
        return False

    async def _apply(self, records: list[Record]) -> None:
        for record in records:
            if record.body.replaces_model:
                await self._load_keyframe(record)
            elif record.body.steps:
                await asyncio.to_thread(self._step, record, await self._delta(record))

    def _step(self, record: Record, delta: Delta | None) -> None:
        decoded = decode(delta.encoded) if delta else None
        inputs = record.body.steps[0].inputs
        self.model.advance(decoded, inputs=inputs, horizon=self.settings.served_horizon)
        _check(self.model, record)

    async def _delta(self, record: Record) -> Delta | None:
        if not blob_refs(record.body.parts, DELTA):
            return None
        delta = Delta.from_bytes(await self._models.read(record.body.parts, DELTA))
        if delta.layout != self.layout.fingerprint or delta.encoded.size != self.layout.size:
            raise WireError(RejectCode.UNKNOWN_LAYOUT, "a delta belongs to another model")
        return delta


def task_blob(layout: Layout, settings: TaskSettings) -> bytes:
    """What a device must know of a task beside its numbers: layout and settings."""
    packed: bytes = msgpack.packb([layout.to_bytes(), settings.to_bytes()])
    return packed


def read_task_blob(data: bytes) -> tuple[Layout, TaskSettings]:
    """Read what `task_blob` wrote; WireError (malformed) on anything else."""
    try:
        layout, settings = msgpack.unpackb(data)
    except (ValueError, TypeError) as error:
        raise WireError(RejectCode.MALFORMED, f"task cannot be read: {error}") from error
    return Layout.from_bytes(layout), TaskSettings.from_bytes(settings)


def _check(model: HiddenModel, record: Record) -> None:
    body = record.body
    if model.version != body.version:
        raise InvariantError(f"followed to version {model.version}, the chain says {body.version}")
    if model.hidden_hash() != body.hidden_hash or model.served_hash() != body.served_hash:
        raise InvariantError(f"version {body.version} differs from what the chain says; the models topic was tampered")
