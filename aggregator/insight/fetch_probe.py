"""Fetches the newest version's parts now and then, as a device does: what nobody can fetch, nobody can train from."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from broker_topics.bus import Bus
from broker_topics.errors import BusError, ConfigError, WireError
from broker_topics.models_log import ModelsReader
from broker_topics.parts import DELTA
from broker_topics.record import Record
from monitoring.logs import get_logger
from monitoring.metrics import Metrics

_EVERY_S = 15.0

log = get_logger("aggregator")


@dataclass(slots=True)
class FetchProbe:
    """Reads one record's delta every few seconds, or its keyframe's smallest blobs where it has no delta.

    newest: the newest official record.
    """

    bus: Bus
    task: str
    metrics: Metrics
    newest: Callable[[], Record]
    every_s: float = _EVERY_S

    async def run(self) -> None:
        """Probe for ever; the first time at once."""
        while True:
            await self.probe()
            await asyncio.sleep(self.every_s)

    async def probe(self) -> None:
        """Fetch once, and count whether it worked; a record without parts has nothing to fetch."""
        parts = self.newest().body.parts
        wanted = [part for part in parts if part.name == DELTA] or parts[:1]
        if not wanted:
            return
        self.metrics.fetch_probes_total.inc()
        reader = ModelsReader(self.bus, self.task)
        try:
            await reader.check(wanted)
        except (BusError, ConfigError, WireError) as error:
            self.metrics.fetch_probe_failures_total.inc()
            log.warning("fetch_probe_failed", reason=str(error))
        finally:
            await reader.close()
