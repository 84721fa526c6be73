"""A real Prometheus for tests: promtool, and a server that scrapes what a test starts.

    with prometheus_in(folder, {"headwater": [f"127.0.0.1:{port}"]}, rules=rules_yaml(Options(speed=60))) as server:
        server.until(lambda: server.query("headwater_model_version > 3"), "three versions were made")

Scrapes and evaluates twice a second. Where it is missing the test is skipped, and a skip fails in CI.
"""

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

HOW_TO_GET_IT = "is not installed: apt install prometheus (Debian's package has promtool too)"
PATIENCE_S = 90.0

Sample = tuple[dict[str, str], float]


def tool(name: str) -> str:
    """Path of `prometheus` or `promtool`; skips the test where it is missing, which counts as a failure in CI."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} {HOW_TO_GET_IT}")
    return path


class QueryError(AssertionError):
    """Prometheus refused or could not evaluate an expression."""


@dataclass(slots=True)
class Prometheus:
    """A running server."""

    address: str
    log: Path
    process: "subprocess.Popen[bytes]"

    def query(self, expr: str) -> list[Sample]:
        """An instant query now: labels and value of each result; QueryError with Prometheus' own words."""
        result = self._get("query", query=expr)
        if result["resultType"] in ("scalar", "string"):
            return [({}, float(result["result"][1]))]
        return [(row["metric"], float(row["value"][1])) for row in result["result"]]

    def query_range(self, expr: str, *, seconds: float = 60.0, step_s: float = 1.0) -> list[dict[str, Any]]:
        """What a panel asks for: each result has `metric` and `values`."""
        now = time.time()
        result = self._get("query_range", query=expr, start=f"{now - seconds}", end=f"{now}", step=f"{step_s}")
        rows: list[dict[str, Any]] = result["result"]
        return rows

    def rules(self) -> list[dict[str, Any]]:
        """Every rule as it was last evaluated: `name`, `query`, `health`, `lastError`, for alerts `state`."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def alerts(self) -> dict[str, str]:
        """Alerts that are pending or firing, by name; firing beats pending."""
        found: dict[str, str] = {}
        for alert in self._get("alerts")["alerts"]:
            name = alert["labels"]["alertname"]
            found[name] = "firing" if "firing" in (found.get(name), alert["state"]) else "pending"
        return found

    def fires(self, name: str) -> bool:
        """Whether an alert fires now."""
        return self.alerts().get(name) == "firing"

    def until(self, true: Callable[[], object], what: str, *, within_s: float = PATIENCE_S) -> None:
        """Wait for something that Prometheus will see."""
        give_up = time.monotonic() + within_s
        while not true():
            if time.monotonic() > give_up or self.process.poll() is not None:
                raise AssertionError(
                    f"it never came that {what}; alerts: {self.alerts()}\n{self.log.read_text()[-2000:]}"
                )
            time.sleep(0.2)

    def _get(self, what: str, **parameters: str) -> Any:
        url = f"http://{self.address}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise QueryError(f"{parameters}: {error.read().decode()}") from error


@contextmanager
def prometheus_in(
    folder: Path, targets: Mapping[str, Sequence[str]], *, rules: str = "", interval: str = "500ms"
) -> Iterator[Prometheus]:
    """A server that scrapes `job → host:port, …`; gone at the end.

    Args:    folder: an empty directory for its data, configuration and log. rules: a rule file's content.
    """
    binary = tool("prometheus")
    (folder / "rules.yml").write_text(rules or "groups: []\n", encoding="utf-8")
    (folder / "prometheus.yml").write_text(_configuration(folder, targets, interval), encoding="utf-8")
    address = f"127.0.0.1:{_free_port()}"
    log = folder / "prometheus.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [
                binary,
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={address}",
                "--log.level=warn",
            ],
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    server = Prometheus(address, log, process)
    try:
        _until_ready(server)
        yield server
    finally:
        process.kill()
        process.wait()


def _configuration(folder: Path, targets: Mapping[str, Sequence[str]], interval: str) -> str:
    jobs: list[dict[str, Any]] = [
        {"job_name": job, "static_configs": [{"targets": list(addresses)}]} for job, addresses in targets.items()
    ]
    for job in jobs:
        if job["job_name"] != "headwater":  # A broker's agent walks through all its beans for an answer.
            job |= {"scrape_interval": "5s", "scrape_timeout": "5s"}
    return json.dumps(  # JSON is YAML
        {
            "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": "1s"},
            "rule_files": [str(folder / "rules.yml")],
            "scrape_configs": jobs,
        }
    )


def _until_ready(server: Prometheus) -> None:
    give_up = time.monotonic() + PATIENCE_S
    while True:
        try:
            with urllib.request.urlopen(f"http://{server.address}/-/ready", timeout=5):
                return
        except OSError:
            if time.monotonic() > give_up or server.process.poll() is not None:
                raise AssertionError(f"prometheus did not start:\n{server.log.read_text()}") from None
            time.sleep(0.1)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
