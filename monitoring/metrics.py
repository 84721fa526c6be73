"""Every metric of Headwater in one typed list: the code that counts and the reference page both read it.

A device's id is never a label. Facts of the fleet are histograms and bounded labels; single devices are found through
`/debug/stragglers` and the logs.
"""

import math
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal, get_args

from prometheus_client import ProcessCollector

from broker_topics.errors import RejectCode
from broker_topics.record import RunKind
from broker_topics.task import CODECS
from broker_topics.topics import UPDATE_PARTITIONS
from monitoring.definitions import (
    Definition,
    Registry,
    counter,
    counters,
    gauge,
    gauges,
    histogram,
    histograms,
    info,
)

StageName = Literal["fetch", "gate", "decode", "aggregate", "publish", "commit", "snapshot"]
Outcome = Literal["applied", "refused"]
Speed = Literal["fastest_tenth", "middle", "slowest_tenth"]
Window = Literal["5m", "1h", "1d"]
Published = Literal["keyframe", "delta", "record", "reject"]

_STEPS = (0.0, 1.0, 2.0, 3.0, 5.0, 8.0, 13.0, 21.0, 34.0, 55.0, 89.0, 144.0, 233.0, 377.0, 1000.0, 10000.0)
_BYTES = tuple(float(4**power) for power in range(3, 16))
_AGE_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0, 21600.0, 86400.0)
_WORK_S = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
_NORM = tuple(10.0 ** (power / 2) for power in range(-8, 9))
_RATIO = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 100.0, 150.0, 200.0, 250.0, 300.0, 400.0, 500.0, 1000.0, 2000.0)
# Fine around the budget of 15 ms, coarse where only the alarm matters.
_LAG_S = (
    *(0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.0125, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05),
    *(0.075, 0.1, 0.25, 0.5, 1.0, 5.0),
)


class Metrics:
    """The metrics of one process, in a registry of its own; every series exists from the start.

    >>> metrics = Metrics()
    >>> metrics.updates_received_total.inc()
    >>> metrics.rejects_total.labels(code=RejectCode.STALE).inc()
    >>> metrics.registry.get_sample_value("headwater_rejects_total", {"code": "stale"})
    1.0
    """

    # Updates
    updates_received_total = counter("Updates read from the log, whatever became of them.", unit="updates")
    updates_processed_total = counters(
        "Updates decided by an official record; received = applied + refused + still buffered.",
        unit="updates",
        label="outcome",
        values=get_args(Outcome),
    )
    rejects_total = counters(
        "Updates refused, by reject code.",
        unit="updates",
        label="code",
        values=RejectCode,
        failures_of="updates_received_total",
    )
    void_offsets_total = counters(
        "Offsets that official records passed without an update in them: lost, unreadable or a device's transaction.",
        unit="offsets",
        label="kind",
        values=[kind for kind in RunKind if kind is not RunKind.DATA],
        failures_of="updates_received_total",
    )
    update_bytes = histograms(
        "Size of a received update, frame included.", unit="bytes", buckets=_BYTES, label="codec", values=CODECS
    )
    compression_ratio = histogram("Float32 size of the model over the size of an update.", unit="ratio", buckets=_RATIO)
    update_staleness_versions = histogram(
        "Staleness τ at admission: server steps since the update's base version.", unit="versions", buckets=_STEPS
    )
    update_age_seconds = histogram(
        "From the update's append to the log until its record is official.", unit="seconds", buckets=_AGE_S
    )
    update_norm = histogram("L2 norm of an accepted delta before weighting.", unit="norm", buckets=_NORM)

    # Fairness
    participation_share = gauges(
        "Share of the applied updates by devices of this speed; compare with data_share.",
        unit="ratio",
        label="speed",
        values=get_args(Speed),
    )
    data_share = gauges(
        "Share of the objective that belongs to devices of this speed.",
        unit="ratio",
        label="speed",
        values=get_args(Speed),
    )
    participation_bias = gauge(
        "Half the sum over devices of |share of total weight - share of the objective|; 0 is unbiased.", unit="ratio"
    )
    effective_weight_gini = gauge(
        "Gini coefficient of the devices' total contribution weights; 0 is equal, towards 1 one device is all.",
        unit="ratio",
    )
    straggler_share = gauge(
        "Share of devices that are refused as stale or lie beyond the 95th percentile of staleness.", unit="ratio"
    )
    clients_active = gauges("Devices heard within the window.", unit="devices", label="window", values=get_args(Window))

    # Stages
    stage_duration_seconds = histograms(
        "Time that one pass of a stage took.",
        unit="seconds",
        buckets=_WORK_S,
        label="stage",
        values=get_args(StageName),
    )
    buffer_updates = gauge("Accepted updates that wait for the next server step.", unit="updates")
    event_loop_lag_seconds = histogram(
        "How late the event loop ran a due timer; the budget is 15 ms.", unit="seconds", buckets=_LAG_S
    )

    # Model
    model_version = gauge("Newest official model version: server steps since the first model.", unit="versions")
    model_published_timestamp_seconds = gauge("When the newest version became official.", unit="unix seconds")
    server_step_norm = histogram("L2 norm of a server step.", unit="norm", buckets=_NORM)
    evaluation_loss = gauge(
        "Held-out loss of the served model, as the evaluator reports.", unit="loss", initial=math.nan
    )
    evaluation_accuracy = gauge(
        "Held-out accuracy of the served model, as the evaluator reports.", unit="ratio", initial=math.nan
    )
    evaluation_model_version = gauge("Version that the last evaluation scored.", unit="versions", initial=math.nan)
    evaluation_timestamp_seconds = gauge("When the last evaluation arrived.", unit="unix seconds")
    bytes_published_total = counters(
        "Bytes that the aggregator wrote to the log.", unit="bytes", label="kind", values=get_args(Published)
    )

    # Log
    consumer_lag_records = gauges(
        "Updates in the log that no official record has consumed yet.",
        unit="records",
        label="partition",
        values=map(str, range(UPDATE_PARTITIONS)),
    )
    consumer_lag_seconds = gauge("Age of the oldest update not yet consumed; 0 when there is none.", unit="seconds")
    retention_headroom_seconds = gauge(
        "Time until retention would delete an update that is still needed.", unit="seconds", initial=math.inf
    )
    chain_length = gauge("Height of the newest official record of the commit chain.", unit="records")
    chain_appends_total = counter("Records that this process tried to append to the chain.", unit="records")
    chain_lost_races_total = counter(
        "Records whose place another aggregator took.", unit="records", failures_of="chain_appends_total"
    )
    keyframe_attempts_total = counter("Keyframes that were begun.", unit="keyframes")
    keyframe_failures_total = counter(
        "Keyframes that did not become official.", unit="keyframes", failures_of="keyframe_attempts_total"
    )
    keyframe_last_success_timestamp_seconds = gauge("When the last keyframe became official.", unit="unix seconds")
    replay_versions_total = counter("Versions re-derived from the log at start.", unit="versions")

    # Devices, as they report through the telemetry topic
    telemetry_reports_total = counter("Telemetry reports read.", unit="reports")
    telemetry_unreadable_total = counter(
        "Telemetry reports that could not be read.", unit="reports", failures_of="telemetry_reports_total"
    )
    train_seconds = histogram("Duration of one local training.", unit="seconds", buckets=_AGE_S)
    outbox_updates = histogram("Updates that wait on a device.", unit="updates", buckets=_STEPS)
    outbox_bytes = histogram("Size of a device's outbox.", unit="bytes", buckets=_BYTES)
    publish_attempts_total = counter("Sends that devices began.", unit="sends")
    publish_retries_total = counter("Sends that devices repeated.", unit="sends", failures_of="publish_attempts_total")
    base_version_lag = histogram(
        "Versions between the newest model and the one that a device trains from.", unit="versions", buckets=_STEPS
    )

    # Process
    build_info = info("Version of Headwater and of Python.")
    leader = gauge("1 while this process writes the chain, else 0.", unit="1")

    def __init__(self) -> None:
        self.registry = Registry()
        for attribute, definition in _definitions().items():
            setattr(self, attribute, definition.build(self.registry))
        ProcessCollector(registry=self.registry)
        self.build_info.info({"version": _headwater_version(), "python": platform.python_version()})

    @classmethod
    def definitions(cls) -> tuple[Definition[Any], ...]:
        """Every definition, in the order of the reference page."""
        return tuple(_definitions().values())


@contextmanager
def stage(metrics: Metrics, name: StageName) -> Iterator[None]:
    """Measure the enclosed work as one pass of a stage, also when it raises; any thread may use it."""
    begin = time.perf_counter()
    try:
        yield
    finally:
        metrics.stage_duration_seconds.labels(stage=name).observe(time.perf_counter() - begin)


def _definitions() -> dict[str, Definition[Any]]:
    return {name: value for name, value in vars(Metrics).items() if isinstance(value, Definition)}


def _headwater_version() -> str:
    try:
        return version("headwater")
    except PackageNotFoundError:
        return "unknown"
