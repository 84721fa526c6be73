"""Deletes parts of models that nobody can need any more, and notices when needed ones are gone."""

from dataclasses import dataclass

from broker_topics.bus import Bus
from broker_topics.commits_log import Official
from broker_topics.crash_points import Io, passing
from broker_topics.models_log import HEAD_KEY, ModelsReader, ModelsWriter, PartMissingError
from broker_topics.parts import height_of
from broker_topics.topics import Topic, topic_name
from monitoring.logs import get_logger

KEEP_MS = 24 * 3600 * 1000
"""How long a keyframe must have been official before what lies two keyframes back may go."""

EVERY_MS = 3600 * 1000
"""A sweep reads the whole topic, hence not more often than this."""

log = get_logger("aggregator")


@dataclass(slots=True)
class Sweeper:
    """Tombstones every part below the second-newest keyframe, once the newest is a day old by the log's own clock.

    Both keyframes are read back first; where a part is missing nothing is deleted and `keyframe_needed` asks for a
    new one.
    """

    bus: Bus
    task: str
    models: ModelsWriter
    keyframes: list[Official]
    keep_ms: int = KEEP_MS
    keyframe_needed: bool = False
    _swept_below: int = 0
    _swept_at_ms: int = 0

    async def keyframe(self, official: Official) -> None:
        """Take note of a new official keyframe, and sweep if an older pair has come of age."""
        self.keyframes.append(official)
        now_ms = official.timestamp_ms
        aged = [i for i, k in enumerate(self.keyframes) if i > 0 and now_ms - k.timestamp_ms >= self.keep_ms]
        if not aged or now_ms - self._swept_at_ms < min(EVERY_MS, self.keep_ms):
            return
        self._swept_at_ms = now_ms
        newest = aged[-1]
        if not await self._readable(self.keyframes[newest - 1 :]):
            self.keyframe_needed = True
            return
        await self._sweep(self.keyframes[newest - 1].record.height)
        self.keyframes = self.keyframes[newest - 1 :]

    async def _readable(self, keyframes: list[Official]) -> bool:
        reader = ModelsReader(self.bus, self.task)
        try:
            for keyframe in keyframes:
                with passing(Io.SWEEP_READ):
                    await reader.check(keyframe.record.body.parts)
            return True
        except PartMissingError:
            return False
        finally:
            await reader.close()

    async def _sweep(self, below: int) -> None:
        if below <= self._swept_below:
            return
        reader = ModelsReader(self.bus, self.task)
        end = (await self.bus.end_offsets(topic_name(self.task, Topic.MODELS)))[0]
        count = 0
        for key in await reader.keys(end):
            height = height_of(key)
            if key != HEAD_KEY and height is not None and height < below:
                await self.models.forget(key)
                count += 1
        self._swept_below = below
        log.info("parts_swept", below_height=below, parts=count)
