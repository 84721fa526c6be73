"""What every command does first: read the settings, and set the logs up by them."""

import os
from collections.abc import Mapping

from broker_topics import crash_points
from broker_topics.settings import ConnectionSettings
from headwater.settings import Settings, load
from monitoring.logs import configure, get_logger

log = get_logger("process")


def prepared(bootstrap: str | None, **given: Mapping[str, object]) -> Settings:
    """The settings of this process, logs set up by them; what the command line gives beats all."""
    settings = load(given={"connection": {"bootstrap": bootstrap}, **given})
    configure(level=settings.log.level, format_=settings.log.format)
    armed = crash_points.arm(os.environ)
    if armed is not None:
        log.warning("crash_point_armed", point=armed)
    return settings


def connection(bootstrap: str | None) -> ConnectionSettings:
    """How to reach the broker: the command line first, then environment, then the settings file."""
    return prepared(bootstrap).connection
