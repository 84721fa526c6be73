"""Turns what devices and the evaluator say of themselves into metrics; lossy, and never part of a decision."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from broker_topics.bus import Bus, BusRecord, LogReader
from broker_topics.crash_points import Io, passing
from broker_topics.errors import BusError, WireError
from broker_topics.messages import Telemetry
from broker_topics.topics import Topic, topic_name
from monitoring.logs import get_logger
from monitoring.metrics import Metrics

EVALUATOR = "evaluator"
"""Client id under which the evaluator reports."""

_RETRY_S = 1.0

log = get_logger("aggregator")


@dataclass(slots=True)
class TelemetryExporter:
    """Reads the telemetry topic from its end on, for as long as it runs.

    cohort_stated: told the client id and cohort of every report that states one.
    """

    bus: Bus
    task: str
    metrics: Metrics
    cohort_stated: Callable[[str, str], None] = lambda client_id, cohort: None

    async def run(self) -> None:
        """Read for ever; a broker that is away for a while only costs telemetry."""
        while True:
            try:
                await self._read(await self._at_the_end())
            except BusError:
                await asyncio.sleep(_RETRY_S)

    async def _at_the_end(self) -> LogReader:
        topic = topic_name(self.task, Topic.TELEMETRY)
        return self.bus.reader(topic, await self.bus.end_offsets(topic))

    async def _read(self, reader: LogReader) -> None:
        try:
            while True:
                with passing(Io.READ_TELEMETRY):
                    records = await reader.fetch(timeout_s=5.0)
                for record in records:
                    self._take(record)
        finally:
            await reader.close()

    def _take(self, record: BusRecord) -> None:
        self.metrics.telemetry_reports_total.inc()
        try:
            report = Telemetry.from_bytes(record.value or b"")
        except WireError as error:
            self.metrics.telemetry_unreadable_total.inc()
            log.warning("telemetry_unreadable", reason=error.reason)
            return
        if report.client_id == EVALUATOR:
            self._evaluation(report)
            return
        cohort = report.values.get("cohort")
        if isinstance(cohort, str):
            self.cohort_stated(report.client_id, cohort)
        for name, export in self._exports().items():
            value = _number(report.values.get(name))
            if value is not None:
                export(value)

    def _exports(self) -> dict[str, Callable[[float], None]]:
        metrics = self.metrics
        return {
            "train_seconds": metrics.train_seconds.observe,
            "outbox_updates": metrics.outbox_updates.observe,
            "outbox_age_seconds": metrics.outbox_age_seconds.observe,
            "outbox_bytes": metrics.outbox_bytes.observe,
            "base_version_lag": metrics.base_version_lag.observe,
            "publish_attempts": metrics.publish_attempts_total.inc,
            "publish_retries": metrics.publish_retries_total.inc,
        }

    def _evaluation(self, report: Telemetry) -> None:
        gauges = {
            "accuracy": self.metrics.evaluation_accuracy,
            "loss": self.metrics.evaluation_loss,
            "version": self.metrics.evaluation_model_version,
        }
        for name, gauge in gauges.items():
            value = _number(report.values.get(name))
            if value is not None:
                gauge.set(value)
        self.metrics.evaluation_timestamp_seconds.set(time.time())
        log.info("evaluation_received", **{name: report.values.get(name) for name in gauges})


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and 0 <= value < 1e15 else None
