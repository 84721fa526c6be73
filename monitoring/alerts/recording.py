"""Recording rules: what alerts and dashboards share. One series a task, whichever of its processes leads."""

from monitoring.alerts.rules import Options, Record


def records(options: Options) -> list[Record]:
    """Every recording rule, in order: a later one may read an earlier one."""
    return [*_process(options), *_updates(options), *_model(options)]


def _process(options: Options) -> list[Record]:
    return [
        Record(record="headwater:leaders:count", expr="sum by (task) (headwater_leader)"),
        Record(
            record="headwater:consumer_lag:records",
            expr="max by (task) (sum without (partition) (headwater_consumer_lag_records))",
        ),
        Record(
            record="headwater:consumer_lag:seconds",
            expr="max by (task) (headwater_consumer_lag_seconds)",
        ),
        Record(
            record="headwater:event_loop_lag:p99",
            expr="histogram_quantile(0.99, sum by (task, le) "
            f"(rate(headwater_event_loop_lag_seconds_bucket[{options.span('5m')}])))",
        ),
    ]


def _updates(options: Options) -> list[Record]:
    window = options.span("5m")
    return [
        Record(
            record="headwater:updates_received:rate5m",
            expr=f"sum by (task) (rate(headwater_updates_received_total[{window}]))",
        ),
        Record(
            record="headwater:updates_applied:rate5m",
            expr=f'sum by (task) (rate(headwater_updates_processed_total{{outcome="applied"}}[{window}]))',
        ),
        # A duplicate is a resend after a lost answer: nothing was lost and nobody is at fault.
        Record(
            record="headwater:updates_refused:rate5m",
            expr=f'sum by (task) (rate(headwater_rejects_total{{code!="duplicate"}}[{window}]))',
        ),
        Record(
            record="headwater:updates_refused:ratio5m",
            expr="headwater:updates_refused:rate5m\n"
            "/ (headwater:updates_refused:rate5m + headwater:updates_applied:rate5m > 0)",
        ),
        *[
            Record(
                record=f"headwater:{name}:p{percent}",
                expr=f"histogram_quantile({percent / 100}, "
                f"sum by (task, le) (rate(headwater_{metric}_bucket[{window}])))",
            )
            for name, metric, percent in (
                ("staleness", "update_staleness_versions", 50),
                ("staleness", "update_staleness_versions", 95),
                ("update_age", "update_age_seconds", 95),
            )
        ],
        Record(
            record="headwater:outbox_age:p90",
            expr="histogram_quantile(0.9, sum by (task, le) "
            f"(rate(headwater_outbox_age_seconds_bucket[{options.span('30m')}])))",
        ),
        Record(
            record="headwater:slow_devices_weight:ratio",
            expr='max by (task) (headwater_weight_share{speed="slowest_tenth"})\n'
            '/ (max by (task) (headwater_data_share{speed="slowest_tenth"}) > 0)',
        ),
    ]


def _model(options: Options) -> list[Record]:
    return [
        # Goes on after the process is gone: that is when it matters. Processes that never led say 0.
        Record(
            record="headwater:version_age:seconds",
            expr="time() - max by (task) "
            f"(last_over_time(headwater_model_published_timestamp_seconds[{options.span('1d')}]) > 0)",
        ),
        # Where nobody leads, nobody can tell whether updates arrive: then they are taken to.
        Record(
            record="headwater:version_age_while_updates_arrive:seconds",
            expr="headwater:version_age:seconds\n"
            "and on (task) (\n"
            f"  sum by (task) (increase(headwater_updates_received_total[{options.span('5m')}])) > 0\n"
            "  or headwater:consumer_lag:records > 0\n"
            "  or (headwater:version_age:seconds unless on (task) (headwater:leaders:count > 0))\n"
            ")\n"
            "unless on (task) (max by (task) (headwater_paused) == 1)",
        ),
        Record(
            record="headwater:evaluation_loss:avg10m",
            expr=_known_average("headwater_evaluation_loss", options.span("10m")),
        ),
        Record(
            record="headwater:evaluation_accuracy:avg10m",
            expr=_known_average("headwater_evaluation_accuracy", options.span("10m")),
        ),
    ]


def _known_average(gauge: str, window: str) -> str:
    """The mean of what was known: a gauge is not a number before its first report, and one such value spoils a mean."""
    return f"max by (task) (avg_over_time(({gauge} > -Inf)[{window}:]))"
