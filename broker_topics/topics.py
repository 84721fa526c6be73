"""The one table of topics: what each is called, how it is cut and how long it lasts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from broker_topics.errors import ConfigError

RECORD_BYTES = 1024 * 1024
"""Largest value of a record, in any topic."""

KEY_BYTES = 1024
"""Largest key of a record, in any topic."""

PART_BYTES = 768 * 1024
"""Largest part of a model; leaves room for the frame and the batch within a record."""

UPDATE_PARTITIONS = 12
"""Fixed for life: the partition of a device follows from its id."""

_DAY_MS = 24 * 3600 * 1000


class Topic(StrEnum):
    """The role of a topic; its name also holds the task."""

    UPDATES = "updates"
    MODELS = "models"
    COMMITS = "commits"
    REJECTS = "rejects"
    CLIENTS = "clients"
    CONTROL = "control"
    TELEMETRY = "telemetry"


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicSpec:
    """One topic as it should be, or as a broker describes it."""

    name: str
    partitions: int
    replication: int
    settings: Mapping[str, str] = field(default_factory=dict)


def topic_name(task: str, topic: Topic) -> str:
    """The topic's name in Kafka; raises ConfigError for a task name that Kafka would not take.

    >>> topic_name("watch", Topic.UPDATES)
    'fl.watch.updates'
    """
    if not task or len(task) > 100 or not all(c.isascii() and (c.isalnum() or c in "-_") for c in task):
        raise ConfigError(f"task name {task!r}: use 1 to 100 letters, digits, '-' or '_'")
    return f"fl.{task}.{topic.value}"


_COMMON = {
    "compression.type": "uncompressed",
    "max.message.bytes": str(RECORD_BYTES + 64 * 1024),
    # The broker's clock: it refuses records that a device's own clock dates an hour ahead.
    "message.timestamp.type": "LogAppendTime",
}
_DELETE = {**_COMMON, "cleanup.policy": "delete"}
_COMPACT = {**_COMMON, "cleanup.policy": "compact"}
_TABLE: dict[Topic, tuple[int, dict[str, str]]] = {
    Topic.UPDATES: (
        UPDATE_PARTITIONS,
        {**_DELETE, "retention.ms": str(7 * _DAY_MS)},
    ),
    Topic.MODELS: (
        1,
        {**_COMPACT, "min.compaction.lag.ms": str(_DAY_MS)},
    ),
    Topic.COMMITS: (
        1,
        {**_DELETE, "retention.ms": "-1", "retention.bytes": "-1"},
    ),
    Topic.REJECTS: (3, {**_DELETE, "retention.ms": str(14 * _DAY_MS)}),
    Topic.CLIENTS: (UPDATE_PARTITIONS, {**_COMPACT}),
    Topic.CONTROL: (
        1,
        {**_DELETE, "retention.ms": "-1", "retention.bytes": "-1"},
    ),
    Topic.TELEMETRY: (UPDATE_PARTITIONS, {**_DELETE, "retention.ms": str(_DAY_MS)}),
}


def keeps_every_offset(name: str) -> bool:
    """Whether a topic is one of ours that is never compacted: only what Kafka itself wrote leaves gaps in it."""
    kind = name.rpartition(".")[2]
    return name.startswith("fl.") and kind in set(Topic) and _TABLE[Topic(kind)][1]["cleanup.policy"] == "delete"


def topic_specs(task: str, *, replication: int) -> tuple[TopicSpec, ...]:
    """Every topic of a task; with three replicas two must have a record before it counts as written."""
    if replication < 1:
        raise ConfigError("replication must be at least 1")
    durable = {"min.insync.replicas": "2" if replication >= 3 else "1", "unclean.leader.election.enable": "false"}
    return tuple(
        TopicSpec(
            name=topic_name(task, topic),
            partitions=partitions,
            replication=replication,
            settings={**settings, **durable},
        )
        for topic, (partitions, settings) in _TABLE.items()
    )


def check_record_size(topic: str, key: bytes | None, value: bytes | None) -> int:
    """Bytes of key and value together; raises ConfigError where no topic takes them, or there is neither."""
    key_bytes, value_bytes = len(key or b""), len(value or b"")
    if key is None and value is None:
        raise ConfigError(f"{topic}: a record needs a key or a value")
    if key_bytes > KEY_BYTES:
        raise ConfigError(
            f"{topic}: a key of {key_bytes:,} bytes is above the limit of {KEY_BYTES:,}; use a shorter one"
        )
    if value_bytes > RECORD_BYTES:
        raise ConfigError(
            f"{topic}: a record of {value_bytes:,} bytes is above the limit of {RECORD_BYTES:,}; send less, or in parts"
        )
    return key_bytes + value_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicDifference:
    """How one topic on a broker differs from the table.

    `differing`: what → (as it should be, as it is), for `partitions`, `replication` and settings by their Kafka names;
    empty for a topic that is missing altogether.
    """

    name: str
    differing: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def missing(self) -> bool:
        """Whether the topic does not exist yet."""
        return not self.differing

    def lines(self) -> list[str]:
        """The difference in words, a line each."""
        if self.missing:
            return [f"{self.name}: missing"]
        return [f"{self.name}: {what} is {found}, should be {want}" for what, (want, found) in self.differing.items()]


def diff_topics(wanted: Sequence[TopicSpec], found: Mapping[str, TopicSpec]) -> list[TopicDifference]:
    """What is missing or other than wanted, in the order of `wanted`; settings that the table does not name are free.

    >>> want = TopicSpec(name="fl.t.control", partitions=1, replication=3, settings={"retention.ms": "-1"})
    >>> have = TopicSpec(name="fl.t.control", partitions=1, replication=3, settings={"retention.ms": "1000"})
    >>> [line for difference in diff_topics([want], {have.name: have}) for line in difference.lines()]
    ['fl.t.control: retention.ms is 1000, should be -1']
    """
    differences = []
    for want in wanted:
        have = found.get(want.name)
        if have is None:
            differences.append(TopicDifference(name=want.name))
        elif differing := _differing(want, have):
            differences.append(TopicDifference(name=want.name, differing=differing))
    return differences


def _differing(want: TopicSpec, have: TopicSpec) -> dict[str, tuple[str, str]]:
    rows = {
        "partitions": (str(want.partitions), str(have.partitions)),
        "replication": (str(want.replication), str(have.replication)),
    } | {name: (value, have.settings.get(name, "unset")) for name, value in want.settings.items()}
    return {what: (wanted, found) for what, (wanted, found) in rows.items() if wanted != found}
