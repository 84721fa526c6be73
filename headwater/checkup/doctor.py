"""Looks for what would go wrong: each check is a function of what was seen, and says what mends it."""

import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from broker_topics.access import ACCESS, Operation, Role
from broker_topics.kafka_probe import Sight
from broker_topics.topics import Topic, TopicDifference, topic_name
from headwater.checkup.facts import Facts
from headwater.checkup.finding import Finding, bad, good, note
from headwater.checkup.words import many, span

TESTED_RELEASE = "4.4"
CLIENT = "0.14."
"""Releases of aiokafka whose traps are known to us."""

FREE_BYTES = 1024**3
_SKEW_S = 2.0
_FRESH_S = 30.0


def kafka(sight: Sight) -> Finding:
    """Which Kafka it is, as far as it says."""
    count = many(len(sight.brokers), "broker")
    if not sight.release:
        return note("kafka", f"{count}, release unknown", f"tested is Apache Kafka {TESTED_RELEASE}")
    if sight.upgrade_open:
        mend = "finish it: kafka-features.sh upgrade --release-version …"
        return note("kafka", f"{count}, release {sight.release}, its upgrade is not finished", mend)
    if sight.release != TESTED_RELEASE:
        return note("kafka", f"{count}, release {sight.release}; tested is {TESTED_RELEASE}")
    return good("kafka", f"{count}, release {sight.release}")


def copies(sight: Sight) -> int:
    """How many replicas topics should have; a broker that is away counts, for its replicas still belong to it."""
    placed = {node for topic in sight.topics.values() for each in topic.partitions for node in each.replicas}
    return min(3, len(placed.union(sight.brokers)))


def topics(task: str, differences: Sequence[TopicDifference] | None) -> list[Finding]:
    """Each difference from the table; None where this user may not see settings."""
    if differences is None:
        return [note("topics", "their settings cannot be seen by this user", "grant DescribeConfigs on them")]
    found = []
    for difference in differences:
        if difference.missing:
            found.append(bad("topics", f"{difference.name} is missing", f"headwater topics apply --task {task}"))
        for what, (wanted, real) in difference.differing.items():
            found.append(bad("topics", f"{difference.name}: {what} is {real}", _mend(difference.name, what, wanted)))
    return found or [good("topics", "all as the table says")]


def _mend(topic: str, what: str, wanted: str) -> str:
    if what == "partitions":
        return f"{wanted} are needed and fixed for life: use another task name, or delete the task's topics"
    if what == "replication":
        return f"kafka-reassign-partitions.sh to {wanted} replicas"
    return f"kafka-configs.sh --alter --entity-type topics --entity-name {topic} --add-config {what}={wanted}"


def replicas(sight: Sight) -> list[Finding]:
    """Partitions that nobody leads, or that not all of their replicas have."""
    found = []
    for name, topic in sight.topics.items():
        dead = [p.partition for p in topic.partitions if p.leader < 0]
        behind = [p for p in topic.partitions if len(p.in_sync) < len(p.replicas)]
        missing = sorted({node for p in behind for node in set(p.replicas) - set(p.in_sync)})
        if dead:
            found.append(bad("replicas", f"{name}: nobody leads partitions {_listed(dead)}", "start its brokers again"))
        elif behind:
            words = f"{name}: {many(len(behind), 'partition')} not on all replicas"
            found.append(bad("replicas", words, f"start broker {_listed(missing)} again, or wait until it caught up"))
    return found or [good("replicas", "every partition is on all its replicas")]


def rights(task: str, role: Role, user: str, sight: Sight) -> list[Finding]:
    """What a role needs and this user may not, and what it may and should not; nothing is written to find out."""
    found, unknown, all_powerful = [], False, True
    for topic in Topic:
        seen = sight.topics.get(topic_name(task, topic))
        needed = ACCESS[role].get(topic, frozenset())
        if seen is None:
            continue
        if seen.rights is None:
            unknown = True
            continue
        all_powerful = all_powerful and Operation.WRITE in seen.rights and Operation.READ in seen.rights
        if lacking := sorted(needed - seen.rights):
            rule = " ".join(f"--operation {operation}" for operation in lacking)
            words = f"{topic_name(task, topic)}: may not {', '.join(lacking)}"
            mend = f"kafka-acls.sh --add --allow-principal User:{user} {rule} --topic {topic_name(task, topic)}"
            found.append(bad("rights", words, mend))
    if found:
        return found
    if unknown or not sight.topics:
        return [note("rights", "the broker does not say what this user may", "try the role itself")]
    if all_powerful:
        words = f"{user} may read and write every topic: no access rules hold, or it is a super user"
        return [note("rights", words, f"give each role its own user and rules; {role} needs far less")]
    quota = "whether a quota slows its writes cannot be known without writing"
    return [good("rights", f"{user} has the rights of the role {role}; {quota}")]


def clock(newest_s: float | None, now_s: float) -> Finding:
    """Our clock against the log's newest time stamp, which lies in the past of a right clock.

    Args:    newest_s, now_s: unix seconds, the log's clock and ours; None where there is no record.
    """
    if newest_s is None:
        return note("clock", "no record to compare with", "look again once something was written")
    ahead_s = newest_s - now_s
    if ahead_s > _SKEW_S:
        words = f"this machine's is at least {span(ahead_s)} behind the broker's"
        return bad("clock", words, "synchronise it: chrony, ntp")
    if -ahead_s > _FRESH_S:
        words = f"not behind the broker's; ahead by at most {span(-ahead_s)}, the age of the newest record"
        return note("clock", words)
    return good("clock", f"agrees with the broker's within {span(abs(ahead_s))}")


def packages() -> list[Finding]:
    """Releases of ourselves and of the libraries that matter."""
    known = {name: _version(name) for name in ("headwater", "aiokafka", "numpy", "numba", "torch")}
    words = ", ".join(f"{name} {release}" for name, release in known.items() if release)
    found = [good("packages", f"Python {platform.python_version()}, {words}")]
    client = known["aiokafka"] or "none"
    if not client.startswith(CLIENT):
        found.append(bad("packages", f"aiokafka {client} is not {CLIENT}x", f"pip install 'aiokafka=={CLIENT}*'"))
    return found


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def buffer(facts: Facts, heard: int) -> Finding:
    """K against the devices that are there: one device has one update under way, so more than half would wait long.

    Args:    heard: devices seen among the newest updates.
    """
    active = max(heard, round(facts.population))
    if not active:
        return note("buffer", f"K is {facts.buffer_size}; no device was heard yet")
    words = f"K is {facts.buffer_size}, {many(active, 'device')} active"
    if 2 * facts.buffer_size > active:
        most = max(1, active // 2)
        mend = f"K should be at most {most}: versions wait for flush_deadline_s; a new task can have buffer_size={most}"
        return bad("buffer", words, mend)
    return good("buffer", words)


def disk(folder: Path, free_bytes: int, *, needed_bytes: int = FREE_BYTES) -> Finding:
    """Room for the devices' outboxes on this machine."""
    words = f"{free_bytes / 1e9:.1f} GB free for devices' state in {folder}"
    if free_bytes < needed_bytes:
        return bad("disk", words, f"free {needed_bytes / 1e9:.1f} GB, or set HEADWATER_WORKER_STATE_DIR")
    return good("disk", words)


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
