"""The fleet page as HTTP: read only, for this machine alone, live, and never in anybody's way."""

import http.client
import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from monitoring.health import HealthServer, Readiness
from monitoring.metrics import Metrics
from monitoring.page.feed import BEAT, Feed
from monitoring.page.history import History, Link, Series
from monitoring.page.page import EVENTS, FILES, FleetPage
from monitoring.page.picture import Picture
from monitoring.page.sample import judge, read

ASSETS = Path(__file__).parents[2] / "monitoring" / "page" / "assets"
NOW_S = 1_800_000_000.0


def link(height: int, **changed: Any) -> Link:
    known = {"version": height, "hash": f"{height:064x}", "parent": f"{height - 1:064x}", "cause": "full"}
    counts = {"accepted": 5, "refused": 0, "keyframe": False, "passed": 5 * height, "at_s": NOW_S}
    return Link(**{"height": height, **known, **counts, **changed})


def picture(metrics: Metrics, history: History, **changed: Any) -> Picture:
    readiness = Readiness()
    readiness.ready()
    given = {"task": "watch", "readiness": readiness, "heartbeat_age_s": lambda: 0.1, "started_s": NOW_S}
    return Picture(metrics.registry, history, **{**given, **changed})


@pytest.fixture
def history() -> History:
    known = History(parameters=100)
    known.official(link(1))
    known.update("w-17", staleness=3, at_s=NOW_S)
    return known


@pytest.fixture
def page(history: History) -> Iterator[FleetPage]:
    with closing(FleetPage(picture(Metrics(), history), listeners=2, stall_s=0.3)) as shown:
        yield shown


@pytest.fixture
def server(page: FleetPage) -> Iterator[HealthServer]:
    metrics = Metrics()
    with HealthServer(metrics.registry, heartbeat_age_s=lambda: 0.0, readiness=Readiness(), page=page) as serving:
        yield serving


def ask(server: HealthServer, path: str, **headers: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request("GET", path, headers=headers)
    return connection.getresponse()


def events(answer: http.client.HTTPResponse) -> Iterator[tuple[str, Any]]:
    """The named events of a stream as they come."""
    name = ""
    while line := answer.readline().decode():
        if line.startswith("event: "):
            name = line[7:].strip()
        elif line.startswith("data: "):
            yield name, json.loads(line[6:])


@pytest.mark.parametrize("path", FILES)
def test_every_file_is_served_under_a_policy_that_allows_nothing_from_elsewhere(server, path):
    answer = ask(server, path)
    policy = answer.headers["Content-Security-Policy"]
    assert answer.status == 200
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Type"] == FILES[path][1]
    assert len(answer.read()) > 100


def test_no_file_carries_a_script_or_style_within_or_names_another_host():
    for name, _ in FILES.values():
        text = (ASSETS / name).read_text(encoding="utf-8")
        addresses = set(re.findall(r"https?://[^\"'\s)]+", text))
        assert addresses <= {"http://www.w3.org/2000/svg"}, name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", text), name
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=", text), name


def test_every_asset_is_listed():
    assert {name for name, _ in FILES.values()} == {path.name for path in ASSETS.iterdir()}


@pytest.mark.parametrize("host", ["evil.example", "evil.example:9464", "127.0.0.1.evil.example", "10.0.0.7:9464", "["])
def test_a_name_that_somebody_else_gave_this_machine_is_refused(server, host):
    for path in ("/", EVENTS):
        answer = ask(server, path, Host=host)
        assert answer.status == 403
        assert "kubectl port-forward" in answer.read().decode()


@pytest.mark.parametrize("host", ["localhost:9464", "127.0.0.1", "[::1]:9464"])
def test_this_machine_s_own_names_are_taken(server, host):
    assert ask(server, "/", Host=host).status == 200


def test_a_browser_on_another_machine_is_refused_whatever_it_says(page):
    said: list[str] = []
    environ = {"PATH_INFO": "/", "REMOTE_ADDR": "192.168.1.9", "HTTP_HOST": "localhost"}
    page.answer(environ, lambda status, headers: said.append(status))
    assert said == ["403 Forbidden"]


def test_the_probes_and_metrics_stay_where_they_were(server):
    assert ask(server, "/livez", Host="10.0.0.7").status == 200
    assert b"headwater_model_version" in ask(server, "/metrics").read()
    assert ask(server, "/nothing").status == 404


def test_without_a_page_there_is_none():
    metrics = Metrics()
    with HealthServer(metrics.registry, heartbeat_age_s=lambda: 0.0, readiness=Readiness()) as plain:
        assert ask(plain, "/").status == 404
        assert ask(plain, EVENTS).status == 404


def test_a_listener_hears_the_whole_first_and_then_what_is_new(server, page, history):
    heard = events(ask(server, EVENTS))
    name, whole = next(heard)
    assert (name, whole["now"]["task"], len(whole["points"])) == ("whole", "watch", 1)
    assert whole["now"]["chain"][0]["height"] == 1
    history.official(link(2))
    while True:
        name, tick = next(heard)
        assert name in ("tick", "whole")
        if tick["now"]["chain"][0]["height"] == 2:
            break
    assert tick["now"]["passed"] == 10


def test_a_third_listener_is_turned_away_while_two_listen(server, page):
    first, second = ask(server, EVENTS), ask(server, EVENTS)
    third = ask(server, EVENTS)
    assert (first.status, second.status, third.status) == (200, 200, 503)
    assert "close one" in third.read().decode()


def test_a_listener_that_takes_nothing_is_dropped_and_holds_up_nobody(server, page):
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", server.port))
        deaf.sendall(f"GET {EVENTS} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        heard = ask(server, EVENTS)
        next(events(heard))
        assert page.feed.listening == 2
        give_up = time.monotonic() + 20
        while page.feed.listening == 2 and time.monotonic() < give_up:
            page.feed.publish(b'event: tick\ndata: "' + b"7" * 100_000 + b'"\n\n')
            next(events(heard))
    assert page.feed.listening == 1
    assert ask(server, EVENTS).status == 200


def test_a_listener_that_goes_away_gives_its_place_to_another(server, page):
    for _ in range(5):
        answer = ask(server, EVENTS)
        assert answer.status == 200
        answer.close()
        while page.feed.listening:
            page.look()


def test_closing_the_page_ends_its_streams(history):
    shown = FleetPage(picture(Metrics(), history))
    metrics = Metrics()
    with HealthServer(metrics.registry, heartbeat_age_s=lambda: 0.0, readiness=Readiness(), page=shown) as serving:
        heard = events(ask(serving, EVENTS))
        next(heard)
        shown.close()
        assert all(name in ("tick", "whole") for name, _ in heard)
        assert ask(serving, EVENTS).status == 503
    shown.close()


def test_a_listener_that_missed_a_tick_is_given_the_whole_again():
    feed = Feed(lambda: b"whole", listeners=1, beat_s=0.01)
    listener = feed.listen()
    assert listener is not None
    assert next(listener) == b"whole"
    feed.publish(b"first")
    assert next(listener) == b"first"
    feed.publish(b"second")
    feed.publish(b"third")
    assert next(listener) == b"whole"
    assert next(listener) == BEAT
    listener.close()
    listener.close()
    assert feed.listening == 0


def test_hashed_ids_show_no_id_and_no_two_processes_hash_alike(history):
    shown = [picture(Metrics(), history, hash_ids=True).sample(NOW_S) for _ in range(2)]
    ids = {json.loads(each)["now"]["devices"]["slowest"][0]["id"] for each in shown}
    assert len(ids) == 2
    assert b"w-17" not in b"".join(shown)
    assert b"w-17" in picture(Metrics(), history).sample(NOW_S)


def test_the_stragglers_beside_the_page_bear_the_names_that_it_shows(history):
    rows = [{"client_id": "w-17", "staleness": 9}]
    hashed = picture(Metrics(), history, hash_ids=True)
    (shown,) = hashed.named(lambda k: rows[:k])(1)
    assert shown == {
        "client_id": json.loads(hashed.sample(NOW_S))["now"]["devices"]["slowest"][0]["id"],
        "staleness": 9,
    }
    assert [*picture(Metrics(), history).named(lambda k: rows)(1)] == rows


def test_a_picture_shows_what_the_metrics_say_and_nothing_that_is_not_json(history):
    metrics = Metrics()
    metrics.updates_processed_total.labels(outcome="applied").inc(8)
    metrics.rejects_total.labels(code="stale").inc(2)
    metrics.update_bytes.labels(codec="sparse").observe(400)
    metrics.model_version.set(7)
    shown = picture(metrics, history)
    now = json.loads(shown.sample(NOW_S))["now"]
    assert now["updates"]["codes"] == {"stale": 2}
    assert (now["updates"]["bytes"], now["updates"]["float32_bytes"]) == (400.0, 3200)
    assert now["log"]["headroom_s"] is None
    assert json.loads(shown.whole())["scores"] == []
    metrics.evaluation_accuracy.set(0.9)
    metrics.evaluation_loss.set(0.3)
    metrics.evaluation_model_version.set(6)
    metrics.evaluation_timestamp_seconds.set(NOW_S)
    assert json.loads(shown.sample(NOW_S + 1))["score"] == [NOW_S, 6.0, 0.9, 0.3]
    assert "score" not in json.loads(shown.sample(NOW_S + 2))


def test_updates_per_second_look_back_ten_seconds(history):
    metrics = Metrics()
    shown = picture(metrics, history)
    rates = []
    for second in range(30):
        metrics.updates_processed_total.labels(outcome="applied").inc(4 if second < 15 else 0)
        rates.append(json.loads(shown.sample(NOW_S + second))["now"]["updates"]["per_s"])
    assert (rates[0], rates[10], rates[29]) == (0.0, 4.0, 0.0)


def test_a_curve_of_a_million_seconds_keeps_its_ends_and_few_places():
    curve = Series(places=100)
    for second in range(1_000_000):
        curve.add((float(second), 1.0))
    times = [row[0] for row in curve.rows]
    gaps = {later - earlier for earlier, later in pairwise(times)}
    assert times[0] == 0.0
    assert 50 <= len(times) <= 100
    assert times[-1] >= 980_000
    assert max(gaps) <= 2 * min(gaps)


def test_the_slowest_devices_stay_although_a_hundred_thousand_others_come_and_go():
    history = History(places=10)
    history.update("snail", staleness=9, at_s=0.0)
    for number in range(100_000):
        history.update(f"w-{number}", staleness=1, at_s=1.0 + number / 1000)
    history.update("snail", staleness=9, at_s=101.0)
    (name, device), *_ = history.slowest(3, 101.0)
    assert (name, device.updates, device.gap_s) == ("snail", 2, 101.0)
    assert len(history._devices) <= 20


def test_a_device_of_which_nothing_is_heard_grows_slow_and_is_forgotten_after_a_day():
    history = History()
    for second in (0.0, 5.0, 10.0):
        history.update("steady", staleness=1, at_s=second)
    history.update("silent", staleness=1, at_s=2.0)
    assert [name for name, _ in history.slowest(2, 11.0)] == ["steady", "silent"]
    assert [name for name, _ in history.slowest(2, 31.0)] == ["silent", "steady"]
    assert history.slowest(2, 11.0)[0][1].gap_s == 5.0
    assert history.slowest(2, 2 * 86_400.0) == []


def test_of_the_chain_only_the_newest_twelve_records_are_kept():
    history = History()
    for height in range(100):
        history.official(link(height))
    assert [each["height"] for each in history.links()] == list(range(99, 87, -1))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({}, "Learning"),
        ({"heartbeat_age_s": 6.0}, "Stuck"),
        ({"started": False}, "Restoring"),
        ({"now_s": NOW_S + 100}, "Idle"),
        ({"now_s": NOW_S + 100, "lag": 3}, "Behind"),
        ({"lag": 3}, "Learning"),
    ],
)
def test_one_word_says_how_the_fleet_is(change, word):
    metrics = Metrics()
    metrics.model_published_timestamp_seconds.set(NOW_S - 2)
    metrics.consumer_lag_records.labels(partition=4).set(change.pop("lag", 0))
    given = {"started": True, "reason": "ready", "heartbeat_age_s": 0.1, "now_s": NOW_S, **change}
    assert judge(read(metrics.registry), **given).word == word


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_every_text_can_be_read_on_its_ground(scheme):
    text = (ASSETS / "style.css").read_text(encoding="utf-8")
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", text.split("prefers-color-scheme: dark")[scheme]))
    pairs = [(ink, ground) for ink in ("ink", "soft", "river", "clay") for ground in ("card", "ground")]
    pairs += [(level, f"{level}-fill") for level in ("good", "warn", "bad", "idle")]
    pairs += [(level, "card") for level in ("good", "warn", "bad", "idle")]
    low = {pair: round(contrast(*(colours[name] for name in pair)), 2) for pair in pairs}
    assert {pair: found for pair, found in low.items() if found < 4.5} == {}
