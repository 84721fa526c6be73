"""Goes through every check of the doctor against a broker and this machine."""

import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from broker_topics.access import Role
from broker_topics.bus import Bus
from broker_topics.errors import BusError, ConfigError, HeadwaterError
from broker_topics.kafka import KafkaBus
from broker_topics.kafka_probe import Sight, look
from broker_topics.provision import compare_topics
from broker_topics.settings import ConnectionSettings
from broker_topics.topics import Topic, TopicDifference, topic_name, topic_specs
from headwater.checkup import doctor
from headwater.checkup.facts import Facts, read_facts
from headwater.checkup.finding import Finding, bad, good, note
from headwater.checkup.status import inputs, keyframe, retention
from headwater.checkup.tail import newest_stamp, newest_updates

_ANONYMOUS = "ANONYMOUS"


async def examine(
    settings: ConnectionSettings,
    task: str,
    role: Role,
    state_dir: Path,
    *,
    now_s: Callable[[], float] = time.time,
) -> list[Finding]:
    """Every finding; a check that needs what an earlier one missed is left out. Nothing is written.

    Raises:  ConfigError: the task's name is no name, or a certificate cannot be read.
    """
    machine = [*doctor.packages(), doctor.disk(state_dir, shutil.disk_usage(_existing(state_dir)).free)]
    names = [topic_name(task, topic) for topic in Topic]
    try:
        sight = await look(settings, names)
    except HeadwaterError as error:
        return [bad("broker", str(error), "nothing else of the broker was looked at"), *machine]
    user = settings.user or _ANONYMOUS
    findings = [good("broker", f"{settings.bootstrap} answers"), doctor.kafka(sight)]
    async with KafkaBus(settings) as bus:
        findings += doctor.topics(task, await _differences(bus, task, sight))
        findings += doctor.replicas(sight)
        findings += doctor.rights(task, role, user, sight)
        findings += await _task(bus, task, role, now_s)
    return [*findings, *machine]


async def _differences(bus: Bus, task: str, sight: Sight) -> list[TopicDifference] | None:
    """How topics differ from the table; None where this user may not see their settings."""
    specs = topic_specs(task, replication=doctor.copies(sight))
    try:
        return await compare_topics(bus, specs)
    except ConfigError:
        return None


async def _task(bus: Bus, task: str, role: Role, now_s: Callable[[], float]) -> list[Finding]:
    """What the log itself tells, as far as this user may read it."""
    stamp = None
    with suppress(HeadwaterError):
        stamp = await newest_stamp(bus, task)
    found = [doctor.clock(stamp, now_s())]
    try:
        facts, heard = await read_facts(bus, task, now_s=now_s), await newest_updates(bus, task)
    except (ConfigError, BusError) as error:
        if role is not Role.AGGREGATOR:
            return [note("log", f"what this user may not read was not looked at ({error})"), *found]
        return [bad("log", str(error), "mend what is named above, then look again"), *found]
    return [*_log(facts), doctor.buffer(facts, len(heard)), *found]


def _log(facts: Facts) -> list[Finding]:
    return [inputs(facts), keyframe(facts), retention(facts)]


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there already."""
    return next(place for place in (folder, *folder.parents) if place.exists())
