"""The aggregator: is it healthy, how far is it, where does its time go."""

from monitoring.dashboards.model import (
    RATE,
    Dashboard,
    Good,
    Kind,
    Limit,
    Panel,
    Query,
    Row,
    Unit,
    of_task,
    quantile,
    quantiles,
    rate,
)

GLANCE = Row(
    "At a glance",
    (
        Panel(
            title="Processes that lead (one is good)",
            description="Aggregators that write the chain. 0: nobody does, updates wait in the log. More than 1 for "
            "long: two run without election; harmless, but one wastes its work.",
            unit=Unit.COUNT,
            queries=(Query(f"sum by (task) ({of_task('leader')})", "{{task}}"),),
            kind=Kind.STAT,
            width=4,
            limit=Limit(good=Good.HIGH, warn=1, bad=0.5),
        ),
        Panel(
            title="Model version",
            description="Server steps since the first model.",
            unit=Unit.NUMBER,
            queries=(Query(f"max by (task) ({of_task('model_version')})", "{{task}}"),),
            kind=Kind.STAT,
            width=4,
        ),
        Panel(
            title="Age of the newest version (low is good)",
            description="Grows while no update arrives, or when the aggregator is stuck: compare with the lag.",
            unit=Unit.SECONDS,
            queries=(Query(f"time() - max by (task) ({of_task('model_published_timestamp_seconds')})", "{{task}}"),),
            kind=Kind.STAT,
            width=4,
        ),
        Panel(
            title="Updates that wait (low is good)",
            description="Updates in the log that no official record has consumed yet.",
            unit=Unit.COUNT,
            queries=(Query(f"sum by (task) ({of_task('consumer_lag_records')})", "{{task}}"),),
            kind=Kind.STAT,
            width=4,
        ),
        Panel(
            title="Time until retention bites (high is good)",
            description="How long the log still keeps the oldest update that is needed. Below a quarter of the "
            "retention a keyframe is overdue.",
            unit=Unit.SECONDS,
            queries=(Query(f"min by (task) ({of_task('retention_headroom_seconds')})", "{{task}}"),),
            kind=Kind.STAT,
            width=4,
        ),
        Panel(
            title="Updates unaccounted for (zero is good)",
            description="Offsets consumed less decisions and void offsets. Anything but 0 is a fault of ours.",
            unit=Unit.COUNT,
            queries=(Query(f"sum by (task) ({of_task('reconcile_gap_updates')})", "{{task}}"),),
            kind=Kind.STAT,
            width=4,
            limit=Limit(good=Good.LOW, warn=0.5, bad=1),
        ),
    ),
)

GOLDEN = Row(
    "Golden signals",
    (
        Panel(
            title="Traffic",
            description="Updates read from the log, and what official records made of them.",
            unit=Unit.PER_SECOND,
            queries=(
                Query(rate(of_task("updates_received_total")), "received"),
                Query(rate(of_task("updates_processed_total"), by="outcome"), "{{outcome}}"),
            ),
            width=6,
        ),
        Panel(
            title="Latency: append to official",
            description="From an update's append to the log until the record that names it is official. A buffer "
            "that fills slowly is in it too.",
            unit=Unit.SECONDS,
            queries=quantiles("update_age_seconds", 0.5, 0.95, 0.99),
            width=6,
        ),
        Panel(
            title="Errors",
            description="Lost races for the chain, keyframes that had to be repeated, versions that could not be "
            "fetched as a device does.",
            unit=Unit.COUNT,
            queries=(
                Query(f"sum(increase({of_task('chain_lost_races_total')}[{RATE}]))", "lost races"),
                Query(f"sum(increase({of_task('keyframe_failures_total')}[{RATE}]))", "keyframe failures"),
                Query(f"sum(increase({of_task('fetch_probe_failures_total')}[{RATE}]))", "fetch failures"),
            ),
            width=6,
        ),
        Panel(
            title="Saturation: event loop late by",
            description="How late the event loop runs a due timer; the budget is 15 ms.",
            unit=Unit.SECONDS,
            queries=quantiles("event_loop_lag_seconds", 0.5, 0.99),
            width=6,
        ),
    ),
)

TIMELINE = Row(
    "The model",
    (
        Panel(
            title="Versions",
            description="Each server step is one version. A flat line while updates wait is a standstill.",
            unit=Unit.NUMBER,
            queries=(Query(f"max by (task) ({of_task('model_version')})", "{{task}}"),),
            width=6,
        ),
        Panel(
            title="Held-out accuracy",
            description="Of the served model, as the evaluator reports it; no line without an evaluator.",
            unit=Unit.RATIO,
            queries=(Query(of_task("evaluation_accuracy"), "{{task}}"),),
            width=6,
            top=1,
        ),
        Panel(
            title="Held-out loss",
            description="Of the served model, as the evaluator reports it; no line without an evaluator.",
            unit=Unit.NUMBER,
            queries=(Query(of_task("evaluation_loss"), "{{task}}"),),
            width=6,
        ),
        Panel(
            title="Size of steps and updates",
            description="L2 norms: how far a server step moves the devices' model, and how large updates are.",
            unit=Unit.NUMBER,
            queries=(
                Query(quantile(0.5, "server_step_norm"), "step p50"),
                Query(quantile(0.95, "server_step_norm"), "step p95"),
                Query(quantile(0.5, "update_norm"), "update p50"),
                Query(quantile(0.95, "update_norm"), "update p95"),
            ),
            width=6,
        ),
    ),
)

WORK = Row(
    "Where the time goes",
    (
        Panel(
            title="Stages, 95th percentile",
            description="fetch waits for the broker; gate, decode and aggregate are computation; publish and commit "
            "wait for acknowledgements.",
            unit=Unit.SECONDS,
            queries=(Query(quantile(0.95, "stage_duration_seconds", by="stage"), "{{stage}}"),),
        ),
        Panel(
            title="Buffer",
            description="Accepted updates that wait for the next server step, against the size at which it is made.",
            unit=Unit.COUNT,
            queries=(
                Query(f"max({of_task('buffer_updates')})", "waiting"),
                Query(f"max({of_task('buffer_size_updates')})", "K"),
            ),
        ),
        Panel(
            title="Written to the log",
            description="Bytes that the aggregator publishes: deltas go to every device, keyframes to newcomers.",
            unit=Unit.BYTES_PER_SECOND,
            queries=(Query(rate(of_task("bytes_published_total"), by="kind"), "{{kind}}"),),
            kind=Kind.STACKED,
        ),
        Panel(
            title="Updates that wait, by partition",
            description="One partition that grows alone holds a record that cannot be read, or one very busy device.",
            unit=Unit.COUNT,
            queries=(Query(f"sum by (partition) ({of_task('consumer_lag_records')})", "{{partition}}"),),
            kind=Kind.BARS,
        ),
        Panel(
            title="Age of the oldest update that waits",
            description="How far behind the log the model is.",
            unit=Unit.SECONDS,
            queries=(Query(f"max({of_task('consumer_lag_seconds')})", "oldest"),),
        ),
        Panel(
            title="Age of the newest keyframe",
            description="A restart replays everything since. Keyframes come every so many versions, and before "
            "retention needs one.",
            unit=Unit.SECONDS,
            queries=(
                Query(f"time() - max({of_task('keyframe_last_success_timestamp_seconds')} > 0)", "since the last"),
            ),
        ),
    ),
)

PROCESS = Row(
    "The process",
    (
        Panel(
            title="Memory",
            description="Resident memory of each aggregator. It follows the model's size, not the fleet's.",
            unit=Unit.BYTES,
            queries=(Query('process_resident_memory_bytes{task=~"$task",task!=""}', "{{instance}}"),),
        ),
        Panel(
            title="Processors",
            description="Processor seconds each second. Near the limit of the container, the lag will grow.",
            unit=Unit.NUMBER,
            queries=(Query(f'rate(process_cpu_seconds_total{{task=~"$task",task!=""}}[{RATE}])', "{{instance}}"),),
        ),
        Panel(
            title="Chain records",
            description="Records that this process tried to append, and records of anybody whose place was taken.",
            unit=Unit.PER_SECOND,
            queries=(
                Query(rate(of_task("chain_appends_total")), "appended"),
                Query(rate(of_task("chain_lost_races_total")), "lost races"),
            ),
        ),
    ),
)

AGGREGATOR = Dashboard(
    name="aggregator",
    title="Headwater: aggregator",
    description="Is it healthy, how far is it, where does its time go.",
    rows=(GLANCE, GOLDEN, TIMELINE, WORK, PROCESS),
)
