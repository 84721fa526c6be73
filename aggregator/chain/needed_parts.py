"""Watches the parts of models without which newcomers have no way in, as long as this process leads."""

import asyncio
from dataclasses import dataclass

from aggregator.restore.chain_check import parts_end
from broker_topics.bus import Bus
from broker_topics.commits_log import Official
from broker_topics.errors import BusError
from broker_topics.models_log import ModelsReader, PartMissingError
from broker_topics.record import PartRef
from broker_topics.topics import Topic, topic_name
from monitoring.logs import get_logger

_EVERY_S = 15.0

log = get_logger("aggregator")


@dataclass(slots=True)
class NeededParts:
    """Those of the newest keyframe, and every delta since.

    end: the offset in models behind all of them, infinite where a newer keyframe cannot be read.
    lost: whether some are gone, so that the next record must be a keyframe, whoever else has something to say or not.
    """

    bus: Bus
    task: str
    parts: list[PartRef]
    end: float
    lost: bool = False
    _turn: int = -1

    def official(self, official: Official) -> None:
        """Take note of a new official record."""
        body = official.record.body
        if body.keyframe:
            self.parts.clear()
        self.parts += body.parts
        self.end = max(self.end, parts_end([official]))

    async def look(self) -> None:
        """See whether the topic was cut short."""
        end = (await self.bus.end_offsets(topic_name(self.task, Topic.MODELS)))[0]
        if end < self.end:
            log.warning("parts_lost", end=end)
            self.end, self.lost = end, True

    async def run(self) -> None:
        """Read one part every few seconds, one after the other, for ever: a disk may lose what lies in the middle."""
        while True:
            await asyncio.sleep(_EVERY_S)
            if self.parts and not self.lost:
                self._turn = (self._turn + 1) % len(self.parts)
                await self._read(self.parts[self._turn])

    async def _read(self, part: PartRef) -> None:
        reader = ModelsReader(self.bus, self.task)
        try:
            await reader.check([part])
        except PartMissingError:
            if part in self.parts:
                log.warning("parts_lost", offset=part.offset, name=part.name)
                self.lost = True
        except BusError as error:
            log.warning("broker_unreachable", reason=str(error))
        finally:
            await reader.close()
