"""The probes and the metrics answer over HTTP, also while the event loop cannot."""

import http.client
import json
import socket
from collections.abc import Iterator

import numpy as np
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_plain

from broker_topics.errors import ConfigError
from monitoring.health import HealthServer, Readiness
from monitoring.loop_lag import EventLoopLag
from monitoring.metrics import Metrics


class Probe:
    """A running server with everything that a test turns."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.readiness = Readiness()
        self.age_s = 0.0
        self.rows: list[dict[str, object]] = []
        self.server = HealthServer(
            self.metrics.registry,
            heartbeat_age_s=lambda: self.age_s,
            readiness=self.readiness,
            stragglers=lambda k: self.rows[:k],
            max_heartbeat_age_s=10.0,
        )

    def get(self, path: str, accept: str = "*/*", method: str = "GET") -> tuple[int, str, str]:
        """Status, content type and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=10)
        connection.request(method, path, headers={"Accept": accept})
        answer = connection.getresponse()
        body = answer.read().decode()
        connection.close()
        return answer.status, answer.getheader("Content-Type") or "", body


@pytest.fixture
def probe() -> Iterator[Probe]:
    running = Probe()
    yield running
    running.server.close()


def test_metrics_are_served_in_the_plain_format(probe: Probe) -> None:
    probe.metrics.updates_received_total.inc(7)
    status, kind, body = probe.get("/metrics")
    assert status == 200
    assert kind.startswith("text/plain")
    samples = {s.name: s.value for family in parse_plain(body) for s in family.samples}
    assert samples["headwater_updates_received_total"] == 7.0


def test_metrics_are_served_as_openmetrics_to_who_asks_for_it(probe: Probe) -> None:
    status, kind, body = probe.get("/metrics", accept="application/openmetrics-text; version=1.0.0")
    assert status == 200
    assert kind.startswith("application/openmetrics-text; version=1.0.0")
    assert body.endswith("# EOF\n")
    assert "headwater_build_info" in {s.name for family in parse_openmetrics(body) for s in family.samples}


def test_a_choice_of_names_is_served_alone_and_still_without_creation_times(probe: Probe) -> None:
    probe.metrics.rejects_total.labels(code="stale").inc()
    _, _, body = probe.get("/metrics?name[]=headwater_leader&name[]=headwater_rejects_total")
    names = {line.partition("{")[0].partition(" ")[0] for line in body.splitlines() if not line.startswith("#")}
    assert names == {"headwater_leader", "headwater_rejects_total"}


def test_an_old_heartbeat_fails_liveness_and_a_new_one_heals_it(probe: Probe) -> None:
    assert probe.get("/livez")[0] == 200
    probe.age_s = 10.5
    status, _, body = probe.get("/livez")
    assert status == 503
    assert json.loads(body) == {"heartbeat_age_s": 10.5, "max_heartbeat_age_s": 10.0}
    probe.age_s = 0.1
    assert probe.get("/livez")[0] == 200


async def test_liveness_answers_503_while_the_event_loop_stands_still() -> None:
    metrics = Metrics()
    async with EventLoopLag(metrics) as lag:
        with HealthServer(
            metrics.registry, heartbeat_age_s=lag.age_s, readiness=Readiness(), max_heartbeat_age_s=0.5
        ) as server:
            # Blocking requests from inside the loop: nothing else runs on it until one answers 503.
            for _ in range(100_000):
                connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
                connection.request("GET", "/livez")
                status = connection.getresponse().status
                connection.close()
                if status == 503:
                    break
            assert status == 503


def test_ready_means_restored_and_caught_up(probe: Probe) -> None:
    def statuses() -> tuple[int, int]:
        return probe.get("/startupz")[0], probe.get("/readyz")[0]

    assert statuses() == (503, 503)
    probe.readiness.restoring("replaying version 12 of 40")
    assert statuses() == (503, 503)
    assert json.loads(probe.get("/readyz")[2]) == {"reason": "replaying version 12 of 40"}
    probe.readiness.catching_up("900 updates behind")
    assert statuses() == (200, 503)
    probe.readiness.ready()
    assert statuses() == (200, 200)
    probe.readiness.not_ready("stopping")
    assert statuses() == (200, 503)


def test_the_slowest_devices_are_named_where_asked_for(probe: Probe) -> None:
    probe.rows = [{"client": f"w-{n}", "staleness": np.float32(n), "norm": float("nan")} for n in range(5)]
    status, kind, body = probe.get("/debug/stragglers?k=2")
    assert (status, kind) == (200, "application/json")
    assert json.loads(body) == {
        "stragglers": [
            {"client": "w-0", "staleness": 0.0, "norm": "nan"},
            {"client": "w-1", "staleness": 1.0, "norm": "nan"},
        ]
    }


@pytest.mark.parametrize("k", ["0", "-1", "1001", "many", "1" * 40, "00010000", "%D9%A3"])
def test_a_senseless_number_of_devices_is_refused(probe: Probe, k: str) -> None:
    status, _, body = probe.get(f"/debug/stragglers?k={k}")
    assert status == 400
    assert json.loads(body)["error"] == "k must be a number from 1 to 1000"


def test_other_pages_and_methods_are_refused_and_the_server_goes_on(probe: Probe) -> None:
    assert probe.get("/etc/passwd")[0] == 404
    assert probe.get("/livez", method="POST")[0] == 405
    assert probe.get("/livez")[0] == 200


def test_a_failing_page_answers_500_and_the_server_goes_on(probe: Probe) -> None:
    probe.rows = None  # type: ignore[assignment]
    assert probe.get("/debug/stragglers")[0] == 500
    assert probe.get("/livez")[0] == 200


def test_a_client_that_goes_away_harms_nobody(probe: Probe, capfd: pytest.CaptureFixture[str]) -> None:
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", probe.server.port), timeout=5) as connection:
            connection.sendall(b"GET /metrics HT")
    assert probe.get("/livez")[0] == 200
    assert capfd.readouterr().err == ""


def test_a_port_in_use_is_told_with_its_mend_and_close_frees_it() -> None:
    def serve(port: int) -> HealthServer:
        return HealthServer(CollectorRegistry(), heartbeat_age_s=lambda: 0.0, readiness=Readiness(), port=port)

    first = serve(0)
    with pytest.raises(ConfigError, match=f"127.0.0.1:{first.port}: the port is in use; choose another one"):
        serve(first.port)
    first.close()
    first.close()
    second = serve(first.port)
    assert second.port == first.port
    second.close()


def test_nobody_listens_beyond_this_machine_unless_told() -> None:
    with HealthServer(CollectorRegistry(), heartbeat_age_s=lambda: 0.0, readiness=Readiness()) as server:
        assert server._server.server_address[0] == "127.0.0.1"


@pytest.mark.parametrize(
    ("host", "port", "mend"),
    [
        ("192.0.2.1", 0, "an address of this machine"),
        ("no.such.host.invalid", 0, "an address"),
        ("127.0.0.1", 70000, "65535"),
    ],
)
def test_an_address_that_cannot_be_is_a_settings_error(host: str, port: int, mend: str) -> None:
    with pytest.raises(ConfigError, match=mend):
        HealthServer(CollectorRegistry(), heartbeat_age_s=lambda: 0.0, readiness=Readiness(), host=host, port=port)
