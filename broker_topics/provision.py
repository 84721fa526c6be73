"""Making a task's topics, and refusing to work with ones that are not as the table says."""

from collections.abc import Sequence

from broker_topics.bus import Bus
from broker_topics.crash_points import Io, passing
from broker_topics.errors import ConfigError
from broker_topics.topics import TopicDifference, TopicSpec, diff_topics


async def compare_topics(bus: Bus, specs: Sequence[TopicSpec]) -> list[TopicDifference]:
    """How the broker's topics differ from `specs`; empty when they agree."""
    return diff_topics(specs, await bus.describe([spec.name for spec in specs]))


async def apply_topics(bus: Bus, specs: Sequence[TopicSpec], *, dry_run: bool = False) -> list[TopicDifference]:
    """Create the topics that are missing; what exists is verified and never changed.

    Args:    dry_run: create nothing.
    Returns: what was missing before.
    Raises:  ConfigError: an existing topic differs; nothing is created then.
    """
    differences = await compare_topics(bus, specs)
    refuse_changes(differences)
    names = {difference.name for difference in differences}
    missing = [spec for spec in specs if spec.name in names]
    if missing and not dry_run:
        with passing(Io.CREATE_TOPICS):
            await bus.create(missing)
        refuse_changes(await compare_topics(bus, specs))
    return differences


def refuse_changes(differences: Sequence[TopicDifference]) -> None:
    """Raise ConfigError with the mend when an existing topic is other than it should be."""
    changed = [difference for difference in differences if not difference.missing]
    if not changed:
        return
    found = "; ".join(line for difference in changed for line in difference.lines())
    if any("partitions" in difference.differing for difference in changed):
        mend = (
            "a device's partition follows from its id, so that the number of partitions is fixed for life: "
            "delete the topics of this task, or choose another task name"
        )
    else:
        mend = (
            "existing topics are never changed: mend them with Kafka's own `kafka-configs.sh --alter --entity-type "
            "topics` (replication: `kafka-reassign-partitions.sh`), or give the --replication that they have"
        )
    raise ConfigError(f"{found}; {mend}")
