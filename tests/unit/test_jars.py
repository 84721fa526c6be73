"""Kafka's jars come by a lock with hashes, once, and never half or wrong."""

import hashlib
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from broker_topics.errors import ConfigError, ToolMissingError
from broker_topics.local.jars import LOCK_FILE, Jar, ensure_jars, read_lock

CONTENTS = {"one-1.0.jar": b"first", "two-2.0.jar": b"second", "three-3.0.jar": b"third"}


class Maven:
    """Serves CONTENTS and counts; `broken` names a file whose download fails, `changed` one that is not what it was."""

    def __init__(self, *, broken: str = "", changed: str = "") -> None:
        self.broken, self.changed = broken, changed
        self.served: list[str] = []

    def __call__(self, jar: Jar, scratch: Path) -> Path:
        if jar.file_name == self.broken:
            raise ToolMissingError("no network")
        self.served.append(jar.file_name)
        path = scratch / "somewhere" / jar.file_name
        path.parent.mkdir()
        path.write_bytes(b"changed" if jar.file_name == self.changed else CONTENTS[jar.file_name])
        return path


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    path = tmp_path / "jars.lock"
    rows = [
        f"org.example:{name.partition('-')[0]}:{name.partition('-')[2].removesuffix('.jar')} "
        f"{hashlib.sha256(content).hexdigest()}"
        for name, content in CONTENTS.items()
    ]
    path.write_text("# a comment\n\n" + "\n".join(rows) + "\n")
    return path


def ensure(lock: Path, maven: Maven, lines: list[str] | None = None) -> Path:
    progress = [] if lines is None else lines
    return ensure_jars(progress.append, lock=lock, cache=lock.parent / "cache", fetch=maven)


def test_the_lock_names_kafka_4_4_with_44_other_jars() -> None:
    jars = read_lock(LOCK_FILE.read_text())
    assert len(jars) == 45
    assert "kafka_2.13-4.4.0.jar" in {jar.file_name for jar in jars}
    assert "log4j-slf4j-impl-2.25.1.jar" in {jar.file_name for jar in jars}
    assert {jar.version for jar in jars if jar.group == "org.apache.kafka"} == {"4.4.0"}
    assert all(set(jar.sha256) <= set("0123456789abcdef") for jar in jars)


def test_the_first_run_fetches_every_jar_and_says_so(lock: Path) -> None:
    lines: list[str] = []
    folder = ensure(lock, Maven(), lines)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == CONTENTS
    assert lines[0] == "fetching Kafka's jars from Maven Central: 1 of 3, one-1.0.jar"
    assert len(lines) == 3


def test_the_second_run_fetches_nothing_and_says_nothing(lock: Path) -> None:
    folder = ensure(lock, Maven())
    maven, lines = Maven(), list[str]()
    assert ensure(lock, maven, lines) == folder
    assert (maven.served, lines) == ([], [])


def test_a_download_with_another_hash_is_refused_and_not_kept(lock: Path) -> None:
    with pytest.raises(ConfigError, match=r"two-2\.0\.jar has SHA-256 .* jars\.lock says .*proxy"):
        ensure(lock, Maven(changed="two-2.0.jar"))
    (folder,) = [path for path in (lock.parent / "cache").iterdir() if path.is_dir()]
    assert [path.name for path in folder.iterdir()] == ["one-1.0.jar"]


def test_a_jar_that_changed_in_the_cache_is_refused_by_its_path(lock: Path) -> None:
    folder = ensure(lock, Maven())
    (folder / "three-3.0.jar").write_bytes(b"thirD")
    with pytest.raises(ConfigError, match=r"three-3\.0\.jar has another SHA-256 .* delete the file and run again"):
        ensure(lock, Maven())
    (folder / "three-3.0.jar").unlink()
    assert ensure(lock, Maven()) == folder


def test_what_was_fetched_before_the_network_went_is_kept(lock: Path) -> None:
    with pytest.raises(ToolMissingError):
        ensure(lock, Maven(broken="two-2.0.jar"))
    maven = Maven()
    ensure(lock, maven)
    assert maven.served == ["two-2.0.jar", "three-3.0.jar"]


def test_of_four_starts_at_once_one_fetches(lock: Path) -> None:
    maven = Maven()
    with ThreadPoolExecutor(4) as pool:
        folders = set(pool.map(lambda _: ensure(lock, maven), range(4)))
    assert len(folders) == 1
    assert sorted(maven.served) == sorted(CONTENTS)


def test_another_lock_has_another_folder(lock: Path) -> None:
    first = ensure(lock, Maven())
    lock.write_text("\n".join(lock.read_text().splitlines()[:-1]))
    second = ensure(lock, Maven())
    assert first != second
    assert {path.name for path in second.iterdir()} == {"one-1.0.jar", "two-2.0.jar"}


@pytest.mark.parametrize("line", ["org.example:one 00", "org.example:one:1.0", "org.example:one:1.0 abc"])
def test_a_line_of_another_form_is_refused(line: str) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*scripts/lock_jars\.py"):
        read_lock(line)


def test_without_a_network_the_error_says_what_to_check(lock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ToolMissingError, match=r"cannot fetch one-1\.0\.jar .* check the network or its proxy"):
        ensure_jars(lambda _: None, lock=lock, cache=lock.parent / "cache")


def test_without_the_extra_the_error_says_how_to_get_the_resolver(lock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jgo.maven", None)
    with pytest.raises(ToolMissingError, match=r"pip install 'headwater\[broker\]'"):
        ensure_jars(lambda _: None, lock=lock, cache=lock.parent / "cache")
