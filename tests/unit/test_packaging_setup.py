"""`make` on a machine that lacks something says what, and how to get it."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The files that set-up reads, without an environment."""
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def make(checkout: Path, *arguments: str, path: Path | None = None) -> "subprocess.CompletedProcess[str]":
    env = {name: value for name, value in os.environ.items() if name != "MAKEFLAGS"}
    if path is not None:
        env["PATH"] = str(path)
    command = [shutil.which("make") or "make", *arguments]
    return subprocess.run(command, cwd=checkout, env=env, capture_output=True, text=True, timeout=60, check=False)


def program(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_help_explains_every_target(checkout: Path) -> None:
    done = make(checkout)
    assert done.returncode == 0
    for target in ("demo", "test", "check", "bench", "lock", "clean", "help"):
        assert f"  make {target} " in done.stdout


def test_a_python_that_is_too_old_is_named_with_the_mend(checkout: Path, tmp_path: Path) -> None:
    old = program(tmp_path / "bin", "python3", "exit 1")
    done = make(checkout, "setup", f"PYTHON={old}")
    assert done.returncode == 2
    assert f"no Python 3.11 or newer was found as PYTHON={old}" in done.stderr
    assert "apt install python3 python3-venv" in done.stderr


def test_a_machine_without_python_is_told_so(checkout: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sh", "touch"):
        (folder / name).symlink_to(shutil.which(name) or name)
    done = make(checkout, "setup", path=folder)
    assert done.returncode == 2
    assert "headwater: no Python 3.11 or newer was found: install one" in done.stderr


def test_a_python_without_venv_is_told_so(checkout: Path, tmp_path: Path) -> None:
    half = program(tmp_path / "bin", "python3", 'case "$2" in *ensurepip*) exit 1;; esac; exit 0')
    done = make(checkout, "setup", f"PYTHON={half}")
    assert done.returncode == 2
    assert "cannot make virtual environments" in done.stderr
    assert "apt install python3-venv" in done.stderr


def test_a_second_run_installs_nothing(checkout: Path) -> None:
    (checkout / ".venv").mkdir()
    (checkout / ".venv" / ".ready").touch()
    done = make(checkout, "setup")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Nothing to be done" in done.stdout


def test_a_changed_lock_is_installed(checkout: Path) -> None:
    (checkout / ".venv").mkdir()
    (checkout / ".venv" / ".ready").touch()
    later = (checkout / ".venv" / ".ready").stat().st_mtime + 10
    os.utime(checkout / "requirements" / "base.lock", (later, later))
    assert "setup.sh" in make(checkout, "-n", "setup").stdout
