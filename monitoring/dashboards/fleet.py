"""The fleet: who is heard, how late, how fairly, and what devices tell of themselves."""

from monitoring.dashboards.model import (
    Dashboard,
    Good,
    Kind,
    Limit,
    Panel,
    Query,
    Row,
    Unit,
    of_task,
    quantiles,
    rate,
)

_PROCESSED = of_task("updates_processed_total")
_REFUSED = of_task("updates_processed_total", outcome="refused")

GLANCE = Row(
    "At a glance",
    (
        Panel(
            title="Devices heard within the hour",
            description="Devices with an accepted update. A fall means that devices are offline or refused.",
            unit=Unit.COUNT,
            queries=(Query(of_task("clients_active", window="1h"), "{{task}}"),),
            kind=Kind.STAT,
            width=4,
        ),
        Panel(
            title="Updates decided",
            description="Updates that official records accepted or refused, each second.",
            unit=Unit.PER_SECOND,
            queries=(Query(rate(_PROCESSED, by="task"), "{{task}}"),),
            kind=Kind.STAT,
            width=4,
        ),
        Panel(
            title="Refused (low is good)",
            description="Share of decided updates that were refused. See the codes below for why.",
            unit=Unit.RATIO,
            queries=(Query(f"{rate(_REFUSED)} / ({rate(_PROCESSED)} > 0)", "refused"),),
            kind=Kind.STAT,
            width=4,
            limit=Limit(good=Good.LOW, warn=0.05, bad=0.2),
        ),
        Panel(
            title="Stragglers (low is good)",
            description="Share of devices that were refused as stale or whose usual staleness is beyond the 95th "
            "percentile. Name them with: headwater stragglers.",
            unit=Unit.RATIO,
            queries=(Query(of_task("straggler_share"), "{{task}}"),),
            kind=Kind.STAT,
            width=4,
            limit=Limit(good=Good.LOW, warn=0.15, bad=0.3),
        ),
        Panel(
            title="Bias of participation (low is good)",
            description="Half the sum of the differences between each device's share of the weight and its share of "
            "the objective. 0: everybody counts as much as they should.",
            unit=Unit.RATIO,
            queries=(Query(of_task("participation_bias"), "{{task}}"),),
            kind=Kind.STAT,
            width=4,
            limit=Limit(good=Good.LOW, warn=0.2, bad=0.4),
        ),
        Panel(
            title="Smaller than float32 (high is good)",
            description="Median of how many times smaller an update is than the model in float32.",
            unit=Unit.NUMBER,
            queries=quantiles("compression_ratio", 0.5),
            kind=Kind.STAT,
            width=4,
        ),
    ),
)

STALENESS = Row(
    "Staleness: server steps between what a device started from and now",
    (
        Panel(
            title="Staleness of updates",
            description="Each column is one interval, each cell how many updates had that staleness. Two bands are two "
            "kinds of devices; a band that climbs towards the limit will soon be refused.",
            unit=Unit.NUMBER,
            queries=(Query(rate(of_task("update_staleness_versions_bucket"), by="le"), "{{le}}"),),
            kind=Kind.HEATMAP,
            width=12,
        ),
        Panel(
            title="Staleness against its limit",
            description="Above the limit an update goes back into its device's residual and is sent again later.",
            unit=Unit.NUMBER,
            queries=(
                *quantiles("update_staleness_versions", 0.5, 0.95, 0.99),
                Query(f"max({of_task('staleness_limit_versions')})", "limit"),
            ),
            width=12,
        ),
    ),
)

FAIRNESS = Row(
    "Fairness: does the model listen to everybody?",
    (
        Panel(
            title="Weight against data, by speed of device",
            description="A group's share of the weight should be its share of the objective. Where the slowest tenth "
            "lies below, the model forgets what only slow devices know.",
            unit=Unit.RATIO,
            queries=(
                Query(of_task("weight_share"), "weight of {{speed}}"),
                Query(of_task("data_share"), "data of {{speed}}"),
            ),
            top=1,
        ),
        Panel(
            title="Share of the updates, by speed of device",
            description="Fast devices send more updates; arrival weights make up for it. That is no fault by itself.",
            unit=Unit.RATIO,
            queries=(Query(of_task("participation_share"), "{{speed}}"),),
            top=1,
        ),
        Panel(
            title="Silent devices, by speed",
            description="Share of devices not heard for five times their usual distance. Slow devices that fall "
            "silent first point to a staleness limit or deadline that is too short for them.",
            unit=Unit.RATIO,
            queries=(Query(of_task("silent_share"), "{{speed}}"),),
            top=1,
        ),
        Panel(
            title="Inequality of weight (low is good)",
            description="Gini coefficient of the devices' total weights and the bias of participation.",
            unit=Unit.RATIO,
            queries=(
                Query(of_task("effective_weight_gini"), "Gini"),
                Query(of_task("participation_bias"), "bias"),
            ),
            top=1,
        ),
        Panel(
            title="Devices heard",
            description="Devices with an accepted update within the window.",
            unit=Unit.COUNT,
            queries=(Query(of_task("clients_active"), "within {{window}}"),),
        ),
        Panel(
            title="Updates by cohort",
            description="Groups that devices state themselves; believed for these counts only.",
            unit=Unit.PER_SECOND,
            queries=(Query(rate(of_task("cohort_updates_total"), by="cohort"), "{{cohort}}"),),
            kind=Kind.STACKED,
        ),
    ),
)

REFUSALS = Row(
    "Refusals",
    (
        Panel(
            title="Refused updates by code",
            description="The codes are explained in the protocol. `stale` goes back to the device and is sent again; "
            "`malformed`, `identity` and `conflict` want a look at the device.",
            unit=Unit.PER_SECOND,
            queries=(Query(f"topk(8, {rate(of_task('rejects_total'), by='code')})", "{{code}}"),),
            kind=Kind.STACKED,
            width=12,
        ),
        Panel(
            title="Refused by cohort",
            description="One cohort that stands out is usually one release of a device's software.",
            unit=Unit.PER_SECOND,
            queries=(Query(rate(of_task("cohort_updates_refused_total"), by="cohort"), "{{cohort}}"),),
            kind=Kind.STACKED,
            width=12,
        ),
    ),
)

DEVICES = Row(
    "What devices tell of themselves (lossy by design)",
    (
        Panel(
            title="Local training",
            description="How long one local training takes.",
            unit=Unit.SECONDS,
            queries=quantiles("train_seconds", 0.5, 0.95),
            width=6,
        ),
        Panel(
            title="Waiting in outboxes",
            description="Bytes that devices hold. Growing everywhere: the broker does not take updates.",
            unit=Unit.BYTES,
            queries=quantiles("outbox_bytes", 0.5, 0.95),
            width=6,
        ),
        Panel(
            title="Sends that were repeated (low is good)",
            description="Share of sends that devices repeated: links or brokers that fail. Nothing is lost by it.",
            unit=Unit.RATIO,
            queries=(
                Query(
                    f"{rate(of_task('publish_retries_total'))} / ({rate(of_task('publish_attempts_total'))} > 0)",
                    "repeated",
                ),
            ),
            width=6,
        ),
        Panel(
            title="Behind the newest model",
            description="Versions between the newest model and the one that a device trains from.",
            unit=Unit.NUMBER,
            queries=quantiles("base_version_lag", 0.5, 0.95),
            width=6,
        ),
    ),
)

FLEET = Dashboard(
    name="fleet",
    title="Headwater: fleet and stragglers",
    description="Who is heard, how late, and whether the model listens to everybody.",
    rows=(GLANCE, STALENESS, FAIRNESS, REFUSALS, DEVICES),
)
