"""Kafka's jars: named with their hashes in `jars.lock`, fetched once from Maven Central, kept in the user's cache."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from platformdirs import user_cache_path

from broker_topics.errors import ConfigError, ToolMissingError

LOCK_FILE = Path(__file__).with_name("jars.lock")

FETCH_TIMEOUT_S = 60

Progress = Callable[[str], None]
"""Takes one line about what a long step is doing."""

Fetch = Callable[["Jar", Path], Path]
"""Downloads one jar somewhere below a folder and says where; the caller verifies what came."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Jar:
    """One line of the lock: a Maven coordinate and the SHA-256 (hex) that its jar must have."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def file_name(self) -> str:
        """What the jar is called in Maven and in the cache."""
        return f"{self.artifact}-{self.version}.jar"


def read_lock(text: str) -> tuple[Jar, ...]:
    """Parse lines `group:artifact:version sha256`; blank lines and those that begin with # are skipped.

    Raises:  ConfigError: a line has another form.

    >>> read_lock("org.slf4j:slf4j-api:1.7.36 " + "d3" * 32)[0].file_name
    'slf4j-api-1.7.36.jar'
    """
    jars = []
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        coordinate, _, sha256 = line.partition(" ")
        parts = coordinate.split(":")
        if len(parts) != 3 or len(sha256) != 64:
            raise ConfigError(f"jars.lock: cannot read {line!r}; write it again with scripts/lock_jars.py")
        jars.append(Jar(group=parts[0], artifact=parts[1], version=parts[2], sha256=sha256))
    return tuple(jars)


def ensure_jars(
    progress: Progress, *, lock: Path = LOCK_FILE, cache: Path | None = None, fetch: Fetch | None = None
) -> Path:
    """The folder that holds exactly the jars of the lock, each verified; fetches what is missing.

    Safe to call from several processes at once: one fetches, the others wait. What is there already is hashed again
    (50 ms) and never downloaded. Each lock has a folder of its own, so a newer Kafka never meets older jars.

    Args:    progress: told about each download.
             lock: the lock file.
             cache: where folders of jars are kept; the platform's user cache folder if None.
             fetch: downloads one jar; from Maven Central if None.
    Raises:  ConfigError: a jar's hash differs from the lock's.
             ToolMissingError: a jar cannot be downloaded, or the extra `broker` is not installed.
    """
    text = lock.read_text()
    folder = (cache or user_cache_path("headwater")) / f"kafka-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    jars = read_lock(text)
    with FileLock(folder.with_suffix(".lock")):
        missing = [jar for jar in jars if not _is_there(jar, folder)]
        for number, jar in enumerate(missing, start=1):
            progress(f"fetching Kafka's jars from Maven Central: {number} of {len(missing)}, {jar.file_name}")
            _fetch_one(jar, folder, fetch or _from_maven)
    return folder


def _is_there(jar: Jar, folder: Path) -> bool:
    path = folder / jar.file_name
    if not path.exists():
        return False
    if sha256_of(path) != jar.sha256:
        raise ConfigError(f"{path} has another SHA-256 than jars.lock says: delete the file and run again")
    return True


def _fetch_one(jar: Jar, folder: Path, fetch: Fetch) -> None:
    """Download beside the folder, verify, then move in by one rename: a jar in the cache is whole and right."""
    scratch = Path(tempfile.mkdtemp(prefix="fetch-", dir=folder.parent))
    try:
        path = fetch(jar, scratch)
        found = sha256_of(path)
        if found != jar.sha256:
            raise ConfigError(
                f"the download of {jar.file_name} has SHA-256 {found}, jars.lock says {jar.sha256}: "
                "something between here and Maven Central changes files (a proxy, a mirror); nothing was installed"
            )
        os.replace(path, folder / jar.file_name)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _from_maven(jar: Jar, scratch: Path) -> Path:
    try:
        from jgo.maven import MavenContext, PythonResolver
        from requests import RequestException
    except ImportError:
        raise ToolMissingError("the local broker needs jgo: pip install 'headwater[broker]'") from None
    context = MavenContext(repo_cache=scratch, local_repos=[], resolver=PythonResolver(), timeout=FETCH_TIMEOUT_S)
    try:
        component = context.project(jar.group, jar.artifact).at_version(jar.version)
        return Path(component.artifact().resolve())
    except (RequestException, RuntimeError, OSError) as error:
        raise ToolMissingError(
            f"cannot fetch {jar.file_name} from Maven Central ({error}): check the network or its proxy, then run "
            "again; what was fetched is kept"
        ) from error
