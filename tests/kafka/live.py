"""A short fleet on a real Kafka, watched by a real Prometheus: what rules, alerts and dashboards are tried against."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from monitoring.alerts import Options, rules_yaml
from tests.kafka.support import Fleet, Role, fleet_in, free_port
from tests.prometheus import Prometheus, prometheus_in

FAST = Options(speed=60)
"""Rules whose minutes are seconds."""


@dataclass(slots=True)
class Live:
    """The fleet's processes, and who watches them; `port` is where the aggregator serves."""

    fleet: Fleet
    prometheus: Prometheus
    aggregator: Role
    port: int


@contextmanager
def watched_fleet(
    folder: Path,
    bootstrap: str,
    task: str,
    *,
    devices: Sequence[str] = ("w-0", "w-3", "w-6"),
    more_targets: Mapping[str, Sequence[str]] | None = None,
    options: Options = FAST,
    **settings: object,
) -> Iterator[Live]:
    """A task, its aggregator, one process of devices and an evaluator, scraped twice a second; all gone at the end.

    Args:    more_targets: jobs to scrape beside `headwater`. options: of the rules. settings: of the task.
    """
    port = free_port()
    (folder / "fleet").mkdir()
    (folder / "prometheus").mkdir()
    targets = {"headwater": [f"127.0.0.1:{port}"], **(more_targets or {})}
    with (
        fleet_in(folder / "fleet", bootstrap, task) as fleet,
        prometheus_in(folder / "prometheus", targets, rules=rules_yaml(options)) as prometheus,
    ):
        asyncio.run(fleet.create(**settings))
        aggregator = fleet.start("aggregator", "--listen-port", str(port))
        if devices:
            fleet.worker(*devices)
        fleet.start("evaluator", "--module", "my_fleet:make_evaluator")
        live = Live(fleet, prometheus, aggregator, port)
        prometheus.until(lambda: prometheus.query("headwater_leader == 1"), f"it leads\n{fleet.logs()}")
        yield live
