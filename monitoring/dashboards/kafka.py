"""Kafka as Headwater sees it: the brokers' own metrics, from the JMX agent of Strimzi or of `headwater broker up`."""

from monitoring.dashboards.model import RATE, Dashboard, Good, Kind, Limit, Panel, Query, Row, Unit

_TOPICS = 'topic=~"fl[.]($task)[.].*"'


def _sum(metric: str) -> tuple[Query, ...]:
    return (Query(f"sum(kafka_{metric})", "all brokers"),)


def _rate(metric: str) -> tuple[Query, ...]:
    return (
        Query(
            f"sum by (topic) (rate(kafka_server_brokertopicmetrics_{metric}_total{{{_TOPICS}}}[{RATE}]))", "{{topic}}"
        ),
    )


_ZERO_IS_GOOD = Limit(good=Good.LOW, warn=0.5, bad=1)

HEALTH = Row(
    "Health",
    (
        Panel(
            title="Brokers",
            description="Brokers that the controller counts as alive.",
            unit=Unit.COUNT,
            queries=(Query("max(kafka_controller_kafkacontroller_activebrokercount)", "alive"),),
            kind=Kind.STAT,
            width=4,
        ),
        Panel(
            title="Fenced brokers (zero is good)",
            description="Brokers that are registered but not heard: their partitions have other leaders now.",
            unit=Unit.COUNT,
            queries=(Query("max(kafka_controller_kafkacontroller_fencedbrokercount)", "fenced"),),
            kind=Kind.STAT,
            width=4,
            limit=_ZERO_IS_GOOD,
        ),
        Panel(
            title="Offline partitions (zero is good)",
            description="Partitions without a leader: devices keep their updates until they are back.",
            unit=Unit.COUNT,
            queries=(Query("max(kafka_controller_kafkacontroller_offlinepartitionscount)", "offline"),),
            kind=Kind.STAT,
            width=4,
            limit=_ZERO_IS_GOOD,
        ),
        Panel(
            title="Under min ISR (zero is good)",
            description="Partitions with too few replicas in sync: writes with acks=all are refused until they return.",
            unit=Unit.COUNT,
            queries=_sum("server_replicamanager_underminisrpartitioncount"),
            kind=Kind.STAT,
            width=4,
            limit=_ZERO_IS_GOOD,
        ),
        Panel(
            title="Under-replicated (zero is good)",
            description="Partitions that lack a replica: nothing is lost yet, one more failure may stop writes.",
            unit=Unit.COUNT,
            queries=_sum("server_replicamanager_underreplicatedpartitions"),
            kind=Kind.STAT,
            width=4,
            limit=_ZERO_IS_GOOD,
        ),
        Panel(
            title="Idle request handlers (high is good)",
            description="Share of time in which a broker's request handlers wait for work. Below 0.3 it is overloaded.",
            unit=Unit.RATIO,
            queries=(Query("min(kafka_server_kafkarequesthandlerpool_requesthandleravgidle_percent)", "least idle"),),
            kind=Kind.STAT,
            width=4,
            limit=Limit(good=Good.HIGH, warn=0.3, bad=0.1),
        ),
    ),
)

TRAFFIC = Row(
    "Traffic of the task's topics",
    (
        Panel(
            title="Records in",
            description="Records appended, by topic; nothing into `updates` means that no device sends.",
            unit=Unit.PER_SECOND,
            queries=_rate("messagesin"),
        ),
        Panel(
            title="Bytes in",
            description="Bytes appended, by topic. `updates` is what devices send.",
            unit=Unit.BYTES_PER_SECOND,
            queries=_rate("bytesin"),
        ),
        Panel(
            title="Bytes out",
            description="Bytes read, by topic. `models` is what devices fetch; it grows with the fleet.",
            unit=Unit.BYTES_PER_SECOND,
            queries=_rate("bytesout"),
        ),
    ),
)

STORAGE = Row(
    "Time and space",
    (
        Panel(
            title="Request time, 99th percentile",
            description="How long brokers take to answer. Consumers wait inside FetchConsumer by design.",
            unit=Unit.MILLISECONDS,
            queries=(
                Query('max by (request) (kafka_network_requestmetrics_totaltimems{quantile="0.99"})', "{{request}}"),
            ),
        ),
        Panel(
            title="Size on disk",
            description="Bytes that each topic takes on all brokers; `models` is compacted, `commits` kept for ever.",
            unit=Unit.BYTES,
            queries=(Query(f"sum by (topic) (kafka_log_log_size{{{_TOPICS}}})", "{{topic}}"),),
        ),
        Panel(
            title="Heap",
            description="Memory that each broker's Java runtime uses.",
            unit=Unit.BYTES,
            queries=(Query('jvm_memory_used_bytes{area="heap"}', "{{instance}}"),),
        ),
    ),
)

KAFKA = Dashboard(
    name="kafka",
    title="Headwater: Kafka",
    description="The brokers behind a task: replicas, traffic, answers, disks.",
    rows=(HEALTH, TRAFFIC, STORAGE),
)
