"""`headwater dashboards preview` as people type it, against a stand-in that speaks Prometheus' query API."""

import json
import socket
import struct
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs

import pytest

from broker_topics.errors import ExitCode
from headwater.cli import run
from monitoring.dashboards import DASHBOARDS

FILES = ["headwater-aggregator.png", "headwater-fleet.png", "headwater-kafka.png", "headwater-slo.png"]
BOUNDS = ("0.5", "5", "+Inf")


class StandIn:
    """Answers `query_range` with lines that rise, one for each bucket's bound.

    knows_nothing_of: begins the names of metrics that it never saw.
    """

    def __init__(self) -> None:
        self.asked: list[dict[str, str]] = []
        self.paths: set[str] = set()
        self.knows_nothing_of = ""
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                stand_in.paths.add(self.path)
                stand_in.asked.append({name: value for name, (value,) in form.items()})
                body = json.dumps({"status": "success", "data": stand_in.answer(stand_in.asked[-1])}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                return

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.http.server_port}"
        Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def answer(self, asked: dict[str, str]) -> dict[str, Any]:
        begin, end, step = (float(asked[name]) for name in ("start", "end", "step"))
        times = [begin + place * step for place in range(int((end - begin) / step) + 1)]
        lines = [
            {
                "metric": {"task": "watch", "le": bound},
                "values": [[at, str(place + rank)] for rank, at in enumerate(times)],
            }
            for place, bound in enumerate(BOUNDS)
        ]
        unknown = self.knows_nothing_of and self.knows_nothing_of in asked["query"]
        return {"resultType": "matrix", "result": [] if unknown else lines}


@pytest.fixture
def prometheus() -> Iterator[StandIn]:
    stand_in = StandIn()
    yield stand_in
    stand_in.http.shutdown()
    stand_in.http.server_close()


def preview(address: str, out: Path) -> int:
    return run(
        ["dashboards", "preview", "--task", "watch", "--prometheus", address, "--minutes", "4", "--out", str(out)]
    )


def size_of(picture: bytes) -> tuple[int, int]:
    """Width and height of a PNG in pixels, from its first chunk."""
    assert picture[:16] == b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
    assert picture[-8:-4] == b"IEND"
    width, height = struct.unpack(">II", picture[16:24])
    return width, height


def test_preview_draws_every_dashboard_and_names_the_panels_for_which_there_is_nothing(
    prometheus: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prometheus.knows_nothing_of = "kafka_"
    out = tmp_path / "new" / "folder"
    assert preview(prometheus.address, out) == 0
    assert sorted(path.name for path in out.iterdir()) == FILES
    for name in FILES:
        picture = (out / name).read_bytes()
        width, height = size_of(picture)
        assert width == 1760
        assert 500 < height < 6000
        assert 30_000 < len(picture) < 3_000_000, "neither blank nor a burden"
    printed = dict(line.partition("  ")[::2] for line in capsys.readouterr().out.splitlines())
    assert sorted(printed) == [str(out / name) for name in FILES]
    (kafka,) = (dashboard for dashboard in DASHBOARDS if dashboard.name == "kafka")
    empty = [panel.title for panel in kafka.panels() if all("kafka_" in query.expr for query in panel.queries)]
    assert len(empty) > 5
    assert printed.pop(str(out / "headwater-kafka.png")) == f"(no data for: {', '.join(empty)})"
    assert set(printed.values()) == {""}
    asked = prometheus.asked
    assert prometheus.paths == {"/api/v1/query_range"}
    assert len(asked) == sum(len(panel.queries) for each in DASHBOARDS for panel in each.panels())
    assert "$" not in "".join(each["query"] for each in asked)
    assert sum('task=~"watch"' in each["query"] for each in asked) > 20
    assert {float(each["end"]) - float(each["start"]) for each in asked} == {240.0}
    assert {each["step"] for each in asked} == {"1.0"}


def test_preview_without_a_prometheus_says_what_mends_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        assert preview(address, tmp_path) == ExitCode.BROKER_UNREACHABLE
    said = capsys.readouterr().err
    assert f"no Prometheus answers at {address}: " in said
    assert "start it, or correct the address" in said
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []
