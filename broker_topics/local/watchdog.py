"""Runs one JVM and never lets it outlive whoever asked for it; started as a program of its own, by path.

`watchdog.py LOCK OUTPUT PROGRAM ARGUMENT…` takes the lock file, starts the program with its output appended to OUTPUT,
prints the program's process id, and stays until the program has ended. When standard input is closed or the parent is
gone, even by kill -9, the program gets SIGTERM, and SIGKILL when that has not ended it in time. Standard library only
and no import of Headwater: it starts in 30 ms and works wherever it is copied.
"""

import ctypes
import fcntl
import os
import select
import signal
import subprocess
import sys
import time

GRACE_S = 15.0
"""How long a clean stop may take before SIGKILL."""

LOCKED = 75
"""Exit status when another watchdog still holds the lock."""

_POLL_S = 0.25
_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Linux: have the kernel kill the JVM should this watchdog itself be killed; elsewhere nothing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main(lock: str, output: str, command: list[str]) -> int:
    """Run `command`; returns its exit status, negative for a signal."""
    parent = os.getppid()
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    lock_fd = os.open(lock, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return LOCKED
    with open(output, "ab") as log:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - this process has one thread
        )
    print(child.pid, flush=True)
    signal.signal(signal.SIGTERM, lambda *_: stop(child))
    while child.poll() is None:
        closed = bool(select.select([0], [], [], _POLL_S)[0]) and not os.read(0, 1)
        if closed or os.getppid() != parent:
            stop(child)
    return child.returncode


def stop(child: "subprocess.Popen[bytes]") -> None:
    """Ask, wait, insist. A frozen child is woken first, so that it can hear."""
    child.terminate()
    child.send_signal(signal.SIGCONT)
    deadline = time.monotonic() + GRACE_S
    while child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    child.kill()
    child.wait()


if __name__ == "__main__":
    status = main(sys.argv[1], sys.argv[2], sys.argv[3:])
    sys.exit(status if status >= 0 else 128 - status)
