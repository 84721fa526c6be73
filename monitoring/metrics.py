"""Every metric of Headwater in one typed list: the code that counts and the reference page both read it.

A device's id is never a label. Facts of the fleet are histograms and bounded labels; single devices are found through
`/debug/stragglers` and the logs.
"""

import math
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal, get_args

from prometheus_client import ProcessCollector

from broker_topics.errors import RejectCode
from broker_topics.record import RunKind
from broker_topics.task import CODECS
from broker_topics.topics import UPDATE_PARTITIONS
from monitoring.buckets import AGE_S, BYTES, LAG_S, NORM, RATIO, STEPS, WORK_S
from monitoring.cohorts import MAX_COHORTS, OTHER, Cohorts
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
        "Size of a received update, frame included.", unit="bytes", buckets=BYTES, label="codec", values=CODECS
    )
    compression_ratio = histogram("Float32 size of the model over the size of an update.", unit="ratio", buckets=RATIO)
    update_staleness_versions = histogram(
        "Staleness τ at admission: server steps since the update's base version.", unit="versions", buckets=STEPS
    )
    update_age_seconds = histogram(
        "From an applied update's append to the log until its record is official.", unit="seconds", buckets=AGE_S
    )
    update_norm = histogram("L2 norm of an accepted delta before weighting.", unit="norm", buckets=NORM)
    reconcile_gap_updates = gauge(
        "Offsets that official records passed since this process took over, less the decisions and void offsets that "
        "it counted; anything but 0 is a fault of ours.",
        unit="updates",
    )

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
    weight_share = gauges(
        "Share of the total contribution weight of devices of this speed; fair is data_share.",
        unit="ratio",
        label="speed",
        values=get_args(Speed),
    )
    silent_share = gauges(
        "Share of the devices of this speed that were not heard for five times their usual distance between updates.",
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
        "Share of devices whose last update was refused as stale, or whose usual staleness lies beyond the 95th "
        "percentile of updates.",
        unit="ratio",
    )
    clients_active = gauges("Devices heard within the window.", unit="devices", label="window", values=get_args(Window))

    # Cohorts: groups that devices state, `Worker(cohort=…)`; believed for these counts and for nothing else
    cohort_updates_total = counters(
        "Updates decided, by cohort.", unit="updates", label="cohort", values=[OTHER], admitted=MAX_COHORTS
    )
    cohort_updates_refused_total = counters(
        "Updates refused, by cohort.",
        unit="updates",
        label="cohort",
        values=[OTHER],
        admitted=MAX_COHORTS,
        failures_of="cohort_updates_total",
    )
    cohort_weight_total = counters(
        "Contribution weight of the updates applied, by cohort.",
        unit="weight",
        label="cohort",
        values=[OTHER],
        admitted=MAX_COHORTS,
    )
    cohort_clients_active = gauges(
        "Devices heard within the last hour, by cohort.",
        unit="devices",
        label="cohort",
        values=[OTHER],
        admitted=MAX_COHORTS,
    )

    # Stages
    stage_duration_seconds = histograms(
        "Time that one pass of a stage took. Of a slice of updates `decode` reads the payloads, `gate` does all else: "
        "it judges, weighs and adds up.",
        unit="seconds",
        buckets=WORK_S,
        label="stage",
        values=get_args(StageName),
    )
    buffer_updates = gauge("Accepted updates that wait for the next server step.", unit="updates")
    buffer_size_updates = gauge(
        "Accepted updates that make a server step (K); more than half the active devices is too many.", unit="updates"
    )
    staleness_limit_versions = gauge("Staleness beyond which an update is refused now.", unit="versions")
    paused = gauge("1 while an operator has paused the task, else 0.", unit="1")
    event_loop_lag_seconds = histogram(
        "How late the event loop ran a due timer; the budget is 15 ms.", unit="seconds", buckets=LAG_S
    )

    # Model
    model_version = gauge("Newest official model version: server steps since the first model.", unit="versions")
    model_published_timestamp_seconds = gauge("When the newest version became official.", unit="unix seconds")
    server_step_norm = histogram(
        "L2 norm of a version's published delta: how far the devices' model moved.", unit="norm", buckets=NORM
    )
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
    fetch_probes_total = counter(
        "Times that the aggregator fetched the newest version's parts as a device does.", unit="probes"
    )
    fetch_probe_failures_total = counter(
        "Such fetches that failed: devices cannot follow.", unit="probes", failures_of="fetch_probes_total"
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
    retention_seconds = gauge("How long the log keeps an update.", unit="seconds", initial=math.inf)
    chain_length = gauge("Height of the newest official record of the commit chain.", unit="records")
    chain_appends_total = counter("Records that this process tried to append to the chain.", unit="records")
    chain_lost_races_total = counter(
        "Records seen in the log, of this or another process, whose place in the chain was taken.",
        unit="records",
        failures_of="chain_appends_total",
    )
    keyframe_attempts_total = counter("Keyframes that were begun.", unit="keyframes")
    keyframe_failures_total = counter(
        "Tries to write a keyframe, or the way to it, that failed and were repeated.",
        unit="keyframes",
        failures_of="keyframe_attempts_total",
    )
    keyframe_last_success_timestamp_seconds = gauge("When the last keyframe became official.", unit="unix seconds")
    replay_versions_total = counter("Versions re-derived from the log at start.", unit="versions")

    # Devices, as they report through the telemetry topic
    telemetry_reports_total = counter("Telemetry reports read.", unit="reports")
    telemetry_unreadable_total = counter(
        "Telemetry reports that could not be read.", unit="reports", failures_of="telemetry_reports_total"
    )
    train_seconds = histogram("Duration of one local training.", unit="seconds", buckets=AGE_S)
    outbox_updates = histogram("Updates that wait on a device.", unit="updates", buckets=STEPS)
    outbox_age_seconds = histogram(
        "How long the oldest work on a device has waited for its decision.", unit="seconds", buckets=AGE_S
    )
    outbox_bytes = histogram("Size of a device's outbox.", unit="bytes", buckets=BYTES)
    publish_attempts_total = counter("Sends that devices began.", unit="sends")
    publish_retries_total = counter("Sends that devices repeated.", unit="sends", failures_of="publish_attempts_total")
    base_version_lag = histogram(
        "Versions between the newest model and the one that a device trains from.", unit="versions", buckets=STEPS
    )

    # Process
    build_info = info("Version of Headwater and of Python.")
    leader = gauge("1 while this process writes the chain, else 0.", unit="1")
    lease_requests_total = counter("Questions to the Kubernetes API about the Lease.", unit="requests")
    lease_failures_total = counter(
        "Those without a usable answer in time.", unit="requests", failures_of="lease_requests_total"
    )

    def __init__(self, *, task: str = "", cohorts: Sequence[str] = ()) -> None:
        """Build every metric.

        Args:    task: becomes a label of every sample, so that one Prometheus can watch many tasks; "" for none.
                 cohorts: the only ones that are counted by name; without, the first MAX_COHORTS that devices state.
        """
        self.registry = Registry({"task": task} if task else None)
        for attribute, definition in _definitions().items():
            setattr(self, attribute, definition.build(self.registry))
        by_cohort = [name for name, definition in _definitions().items() if definition.label == "cohort"]
        self.cohorts = Cohorts([getattr(self, name) for name in by_cohort], cohorts)
        ProcessCollector(registry=self.registry)
        self.build_info.info({"version": _headwater_version(), "python": platform.python_version()})

    @classmethod
    def definitions(cls) -> tuple[Definition[Any], ...]:
        """Every definition, in the order of the reference page."""
        return tuple(_definitions().values())


def _definitions() -> dict[str, Definition[Any]]:
    return {name: value for name, value in vars(Metrics).items() if isinstance(value, Definition)}


def _headwater_version() -> str:
    try:
        return version("headwater")
    except PackageNotFoundError:
        return "unknown"
