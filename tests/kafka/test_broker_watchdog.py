"""The watchdog ends what it runs, whatever happens around it; shown with small programs in place of a JVM."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from broker_topics.local import watchdog
from broker_topics.local.process import Process

SLEEP = ["sleep", "1000"]

STUBBORN = [
    sys.executable,
    "-c",
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); signal.pause()",
]


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not become true in time"
        time.sleep(0.02)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and ") Z " in stat.read_text()


def start(folder: Path, command: list[str]) -> Process:
    return Process(command, lock=folder / "lock", output=folder / "output")


def test_a_program_ends_with_its_own_status_and_its_output_is_kept(tmp_path: Path) -> None:
    process = start(tmp_path, ["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert process.wait(10) == 3
    assert (tmp_path / "output").read_text() == "out\nerr\n"


def test_stop_ends_it_by_sigterm_and_kill_by_sigkill(tmp_path: Path) -> None:
    assert start(tmp_path, SLEEP).stop() == 128 + 15
    assert start(tmp_path, SLEEP).kill() == 128 + 9


def test_a_frozen_program_is_woken_to_hear_that_it_should_stop(tmp_path: Path) -> None:
    process = start(tmp_path, SLEEP)
    process.send_signal(signal.SIGSTOP)
    assert process.stop() == 128 + 15


def test_a_deaf_program_is_killed_when_its_time_is_up(tmp_path: Path) -> None:
    code = (
        "import runpy, sys; space = runpy.run_path(sys.argv[1], run_name='watchdog')\n"
        "space['main'].__globals__['GRACE_S'] = 0.3\n"
        "sys.exit(128 - space['main'](sys.argv[2], sys.argv[3], sys.argv[4:]))"
    )
    names = [watchdog.__file__, str(tmp_path / "lock"), str(tmp_path / "output")]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *names, *STUBBORN], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    eventually(lambda: (tmp_path / "output").exists() and (tmp_path / "output").read_text() == "deaf\n")
    process.communicate()
    assert process.returncode == 128 + 9


def test_a_second_one_on_the_same_lock_is_not_started(tmp_path: Path) -> None:
    first = start(tmp_path, SLEEP)
    second = start(tmp_path, SLEEP)
    assert (second.pid, second.wait(10)) == (None, watchdog.LOCKED)
    first.stop()
    third = start(tmp_path, SLEEP)
    assert third.running
    third.stop()


@pytest.mark.parametrize("forked", [False, True], ids=["alone", "with a forked child that holds the pipe"])
def test_kill_9_of_the_parent_ends_the_program(tmp_path: Path, forked: bool) -> None:
    code = (
        "import os, sys, time\nfrom pathlib import Path\nfrom broker_topics.local.process import Process\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "process = Process(['sleep', '1000'], lock=folder / 'lock', output=folder / 'output')\n"
        f"child = os.fork() if {forked} else 1\n"
        "if child: print(process.pid, child, flush=True)\n"
        "time.sleep(1000)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid, child = map(int, parent.stdout.readline().split())
    assert not gone(pid)
    parent.kill()
    parent.wait()
    eventually(lambda: gone(pid))
    if forked:
        os.kill(child, signal.SIGKILL)
    parent.stdout.close()
