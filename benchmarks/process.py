"""`headwater aggregator` as a process of its own: started, asked for its metrics and memory, killed."""

import asyncio
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from prometheus_client.parser import text_string_to_metric_families

from broker_topics.local.plan import free_ports

_LAG = "headwater_event_loop_lag_seconds_bucket"
_END_S = 30.0

Buckets = Mapping[float, float]
"""Upper bound in seconds → how many were at most that, since the process started."""


class AggregatorProcess:
    """One run of the command that operators type. Use it as an async context manager: it ends with the block."""

    def __init__(self, bootstrap: str, task: str, log: Path, *more: str, preload: bool = True) -> None:
        (self._port,) = free_ports(1)
        arguments = ["aggregator", "--task", task, "--bootstrap", bootstrap, "--listen-port", str(self._port), *more]
        self._log = log
        with log.open("ab") as sink:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "headwater", *arguments],
                stdout=sink,
                stderr=sink,
                env={
                    **os.environ,
                    "PYTHONDONTWRITEBYTECODE": "",  # as installed: with byte code from the second start on
                    "HEADWATER_LOG_LEVEL": "info",
                    "HEADWATER_LOG_FORMAT": "json",
                    "HEADWATER_AGGREGATOR_PRELOAD": str(preload).lower(),
                },
            )
        self.pid = self._process.pid

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """End it in order, or at last with SIGKILL."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            await asyncio.to_thread(self._process.wait, _END_S)
        except subprocess.TimeoutExpired:
            await self.kill()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    async def ready(self) -> bool:
        """Whether its probe says so."""
        try:
            await asyncio.to_thread(urllib.request.urlopen, f"http://127.0.0.1:{self._port}/readyz", timeout=5)
        except OSError:
            return False
        return True

    async def kill(self) -> None:
        """End it with SIGKILL, and return when it is gone."""
        self._process.kill()
        await asyncio.to_thread(self._process.wait)

    def check(self) -> None:
        """Raise RuntimeError with its last words if it ended by itself."""
        if self._process.poll() is not None:
            words = self._log.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"the aggregator ended with status {self._process.returncode}: {words}")

    def peak_bytes(self) -> int:
        """The most memory that it was resident with so far; only Linux tells."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024

    async def lags(self) -> Buckets:
        """How late the event loop ran its timers so far."""
        text = await asyncio.to_thread(self._scrape)
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        return {float(sample.labels["le"]): sample.value for sample in samples if sample.name == _LAG}

    def _scrape(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics", timeout=10) as answer:
            text: str = answer.read().decode()
            return text


def quantile_s(share: float, before: Buckets, after: Buckets) -> float:
    """The lag that `share` of the ticks between two looks did not exceed, linear within a bucket, as Prometheus does.

    >>> quantile_s(0.5, {0.01: 0, 0.02: 0, float("inf"): 0}, {0.01: 0, 0.02: 10, float("inf"): 10})
    0.015
    """
    counts = [(bound, after[bound] - before[bound]) for bound in sorted(after)]
    wanted = share * counts[-1][1]
    low, below = 0.0, 0.0
    for bound, count in counts:
        if count >= wanted:
            return low if bound == float("inf") else low + (bound - low) * (wanted - below) / (count - below)
        low, below = bound, count
    return low
