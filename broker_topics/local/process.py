"""A program that ends when we do: started through the watchdog, stopped through it, killed past it."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from broker_topics.local import watchdog

_STOP_S = watchdog.GRACE_S + 10


class Process:
    """One supervised program. Its methods block: call them from a thread where an event loop runs."""

    def __init__(self, command: Sequence[str | Path], *, lock: Path, output: Path) -> None:
        """Start `command`, its output appended to `output`; `lock` is held until the program has really ended."""
        self._command = [str(part) for part in command]
        self._watchdog = subprocess.Popen(
            [sys.executable, "-I", "-S", watchdog.__file__, str(lock), str(output), *self._command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._watchdog.stdout is not None
        with self._watchdog.stdout as first:
            line = first.readline().strip()
        self.pid: int | None = int(line) if line else None

    @property
    def running(self) -> bool:
        """Whether the program has not ended yet."""
        return self._watchdog.poll() is None

    @property
    def status(self) -> int | None:
        """The program's exit status, 128 + n for signal n; None while it runs."""
        return self._watchdog.poll()

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the program itself; nothing when it has ended."""
        if self.running and self.pid is not None:
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                return

    def wait(self, timeout_s: float | None = None) -> int:
        """The exit status, once the program has ended; raises TimeoutError."""
        try:
            return self._watchdog.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{self._command[0]} still runs after {timeout_s} s") from None

    def stop(self) -> int:
        """SIGTERM, then SIGKILL when that takes too long; returns the exit status."""
        assert self._watchdog.stdin is not None
        self._watchdog.stdin.close()
        return self.wait(_STOP_S)

    def kill(self) -> int:
        """SIGKILL, as a power cut would; returns the exit status."""
        self.send_signal(signal.SIGKILL)
        return self.wait(_STOP_S)
