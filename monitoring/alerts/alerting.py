"""The alerts that people are called by; each has a section of its name in the runbooks."""

from monitoring.alerts.rules import Alert, Options

REJECTS = 0.1
STRAGGLERS = 0.2
FORGOTTEN = 0.5
BLOCKED_S = 0.1
HEADROOM = 0.5


def alerts(options: Options) -> list[Alert]:
    """Every alert but those on burn rates, the most urgent first."""
    return [*_process(options), *_log(options), *_model(options), *_fleet(options)]


def _process(options: Options) -> list[Alert]:
    return [
        Alert(
            name="AggregatorDown",
            expr=f"max by (task) (max_over_time(headwater_leader[{options.span('1d')}])) == 1\n"
            "unless on (task) (max by (task) (headwater_leader) == 1)\n"
            "or absent(headwater_leader)",
            wait=options.span("2m"),
            severity="critical",
            summary="No aggregator of task {{ $labels.task }} writes the chain",
            description="An aggregator led this task within the last day, or rules are installed, and none does now. "
            "Devices keep training and keep their work; the model does not advance.",
        ),
        Alert(
            name="ChainRaceLost",
            expr=f"sum by (task) (increase(headwater_chain_lost_races_total[{options.span('15m')}])) > 0\n"
            "or headwater:leaders:count > 1",
            wait=options.span("1m"),
            severity="warning",
            summary="Two aggregators of task {{ $labels.task }} wrote at once",
            description="The chain let one of them win and nothing is lost, but work is done twice and one process "
            "ends with status 75 again and again.",
        ),
        Alert(
            name="EventLoopBlocked",
            expr=f"headwater:event_loop_lag:p99 > {BLOCKED_S:g}",
            wait=options.span("10m"),
            severity="warning",
            summary="The aggregator of task {{ $labels.task }} stands still for moments",
            description="One timer in a hundred runs {{ $value | humanizeDuration }} late; the budget is 15 ms.",
        ),
        Alert(
            name="ReconcileGap",
            expr="max by (task) (abs(headwater_reconcile_gap_updates)) > 0",
            wait=options.span("1m"),
            severity="critical",
            summary="Offsets and decisions of task {{ $labels.task }} do not add up",
            description="The chain passed {{ $value }} offsets more, or fewer, than decisions were counted. This is a "
            "fault of ours: updates may have been skipped.",
        ),
    ]


def _log(options: Options) -> list[Alert]:
    return [
        Alert(
            name="UpdatesLostToRetention",
            expr='max by (task) (headwater_void_offsets_total{kind="lost"}) > 0\n'
            "or min by (task) (headwater_retention_headroom_seconds) <= 0",
            wait="0s",
            severity="critical",
            summary="Updates of task {{ $labels.task }} were lost before they were used",
            description="The log deleted acknowledged updates that no record had consumed, or may do so at any moment.",
        ),
        Alert(
            name="RetentionHeadroomLow",
            expr=f"min by (task) (headwater_retention_headroom_seconds / headwater_retention_seconds) < {HEADROOM:g}",
            wait=options.span("15m"),
            severity="critical",
            summary="Retention comes near updates of task {{ $labels.task }} that are still needed",
            description="Only {{ $value | humanizePercentage }} of the retention time are left for the oldest update "
            "that waits, or that no keyframe covers yet.",
        ),
        Alert(
            name="LagGrowing",
            expr=f"headwater:consumer_lag:seconds > {options.seconds(300):g}\n"
            f"and on (task) deriv(headwater:consumer_lag:records[{options.span('15m')}]) > 0\n"
            "unless on (task) (max by (task) (headwater_paused) == 1)",
            wait=options.span("10m"),
            severity="warning",
            summary="Updates of task {{ $labels.task }} arrive faster than they are folded in",
            description="The oldest waiting update is {{ $value | humanizeDuration }} old and the backlog grows.",
        ),
        Alert(
            name="BrokerUnderMinISR",
            expr="sum by (job) (kafka_server_replicamanager_underminisrpartitioncount) > 0",
            wait=options.span("1m"),
            severity="critical",
            summary="Kafka refuses writes to {{ $value }} partitions",
            description="They have fewer in-sync replicas than min.insync.replicas. Devices keep their work; the "
            "aggregator waits.",
        ),
    ]


def _model(options: Options) -> list[Alert]:
    return [
        Alert(
            name="ModelStale",
            expr=f"headwater:version_age_while_updates_arrive:seconds > {options.seconds(options.freshness_s):g}",
            wait=options.span("5m"),
            severity="critical",
            summary="The model of task {{ $labels.task }} does not advance although updates arrive",
            description="The newest version is {{ $value | humanizeDuration }} old.",
        ),
        Alert(
            name="KeyframeFailing",
            expr=f"sum by (task) (increase(headwater_keyframe_failures_total[{options.span('10m')}])) > 0",
            wait=options.span("10m"),
            severity="critical",
            summary="Keyframes of task {{ $labels.task }} cannot be written",
            description="Writing one has failed for ten minutes. Restarts and newcomers take longer and longer, and "
            "retention comes nearer to what replay needs.",
        ),
    ]


def _fleet(options: Options) -> list[Alert]:
    return [
        Alert(
            name="RejectRatioHigh",
            expr=f"headwater:updates_refused:ratio5m > {REJECTS:g}",
            wait=options.span("10m"),
            severity="warning",
            summary="Task {{ $labels.task }} refuses {{ $value | humanizePercentage }} of its updates",
            description=f"More than {REJECTS:.0%} is unusual. The codes say whether devices are too slow, too new, "
            "damaged or hostile.",
        ),
        Alert(
            name="StragglerShareHigh",
            expr=f"max by (task) (headwater_straggler_share) > {STRAGGLERS:g}",
            wait=options.span("30m"),
            severity="warning",
            summary="{{ $value | humanizePercentage }} of the devices of task {{ $labels.task }} are stragglers",
            description="Their last update was refused as stale, or they are usually later than 95 % of all updates.",
        ),
        Alert(
            name="SlowDevicesForgotten",
            expr=f'max by (task) (headwater_silent_share{{speed="slowest_tenth"}}) > {FORGOTTEN:g}\n'
            f"or headwater:slow_devices_weight:ratio < {FORGOTTEN:g}",
            wait=options.span("30m"),
            severity="warning",
            summary="The model of task {{ $labels.task }} forgets what only slow devices know",
            description="Most of the slowest tenth of the devices have fallen silent, or count less than half of what "
            "they should.",
        ),
        Alert(
            name="OutboxGrowing",
            expr=f"headwater:outbox_age:p90 > {options.seconds(600):g}",
            wait=options.span("15m"),
            severity="warning",
            summary="Work piles up on the devices of task {{ $labels.task }}",
            description="One device in ten holds work that has waited for {{ $value | humanizeDuration }} or longer "
            "for its decision.",
        ),
    ]
