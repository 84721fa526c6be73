"""The fleet page of a live run, in a real browser: what stands there, that it moves, and that it asks nobody else."""

import json
import re
import urllib.request

import pytest

from broker_topics.kafka import KafkaBus
from broker_topics.topics import Topic, topic_name
from tests.browser import Browser, browser
from tests.kafka.support import Fleet, fleet_in, free_port, get

pytestmark = pytest.mark.timeout(300)

LIVE = "document.body.dataset.link === 'live'"


@pytest.fixture
async def fleet(bootstrap, task_name, tmp_path):
    """Four devices that train, an evaluator, and an aggregator with a page."""
    with fleet_in(tmp_path, bootstrap, task_name) as fleet:
        await fleet.create(keyframe_every=5)
        yield fleet


def with_page(fleet: Fleet, port: int, **environment: str):
    return fleet.start("aggregator", "--listen-port", str(port), "--fleet-page", environment=environment)


def number(page: Browser, selector: str) -> float:
    return float("".join(each for each in page.text(selector) if each.isdigit() or each == ".") or "nan")


async def test_a_browser_sees_a_live_run_move_and_come_back_after_a_kill(fleet: Fleet, bus: KafkaBus):
    port = free_port()
    aggregator = with_page(fleet, port)
    fleet.worker("w-1", "w-2", "w-3", "w-4")
    fleet.start("evaluator", "--module", "my_fleet:make_evaluator")
    await fleet.until_told(aggregator, "keyframe_official")
    with browser() as page:
        page.open(f"http://127.0.0.1:{port}/")
        page.until(f"{LIVE} && document.querySelectorAll('#links li').length >= 5")
        assert (page.text("#word"), page.text("#task")) == ("Learning", fleet.task)
        page.until("document.querySelectorAll('#plot-accuracy path.curve').length === 1")
        assert 0.0 < number(page, "#accuracy") <= 100.0
        assert number(page, "#bytes") > 5
        assert number(page, "#loss") > 0.0
        assert page.run("document.querySelectorAll('#plot-loss path.curve').length") == 1
        page.until("parseFloat(document.querySelector('#rate').textContent) > 0")
        assert re.fullmatch(r"\d+\.\d+ / s", page.text("#rate"))
        assert re.fullmatch(r"\d+ median", page.text("#stale"))
        assert re.fullmatch(r"versions; 95 % within \d+, largest \d+", page.text("#stale-under"))
        assert page.run(
            "[...document.querySelectorAll('#bars td:last-child')].some(cell => Number(cell.textContent) > 0)"
        )
        assert "Nothing was refused" in page.text("#refused")
        await bus.send(topic_name(fleet.task, Topic.UPDATES), key=b"w-9", value=b"no update", partition=0)
        page.until("document.querySelector('#refused th') !== null")
        assert page.text("#refused tr") == "malformed1"
        assert re.fullmatch(r"1 of [\d,]+ updates \(\d+\.\d %\), by reject code\.", page.text("#refused-under"))
        slow = page.run("[...document.querySelectorAll('#slow tr td:first-child')].map(cell => cell.textContent)")
        assert set(slow) == {"w-1", "w-2", "w-3", "w-4"}
        head = page.text("#head")
        chain = {record["hash"]: record["parent"] for record in state(port)["chain"]}
        assert len(head) == 64
        assert set(chain) & set(chain.values()), "records name their parents"

        version, heard = number(page, "#version"), page.run("Number(document.body.dataset.events)")
        page.until(f"Number(document.body.dataset.events) > {heard + 2}")
        page.until(f"Number(document.querySelector('#version').textContent.replace(/\\D/g, '')) > {version}")
        assert page.text("#head") != head
        for width in (320, 390, 1280):
            page.size(width, 900)
            assert page.run("document.documentElement.scrollWidth") <= width
        assert page.faults == []

        aggregator.kill()
        page.until("document.body.dataset.link === 'lost'")
        assert (page.text("#word"), page.text("#sign")) == ("No signal", "✕")
        with_page(fleet, port)
        page.until(f"{LIVE} && document.querySelector('#word').textContent === 'Learning'")
        page.until("document.querySelectorAll('#plot-accuracy .restart').length === 1")
        assert page.hosts() == {f"127.0.0.1:{port}"}


async def test_hashed_ids_keep_the_devices_names_off_the_page(fleet: Fleet):
    port = free_port()
    aggregator = with_page(fleet, port, HEADWATER_AGGREGATOR_FLEET_PAGE_HASH_IDS="true")
    fleet.worker("w-1", "w-2")
    await fleet.until_told(aggregator, "keyframe_official")
    await fleet.until(lambda: state(port)["devices"]["slowest"] != [], "the page shows devices")
    shown = json.dumps(state(port))
    assert '"id": "#' in shown
    assert "w-1" not in shown
    beside = [get(port, path)[1] for path in ("/", "/metrics", "/readyz", "/debug/stragglers?k=50")]
    assert not [text for text in beside if "w-1" in text or "w-2" in text]


def state(port: int) -> dict:
    """The newest state, as the first event of a stream says it."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/fleet/events", timeout=10) as stream:
        assert stream.readline() == b"event: whole\n"
        return json.loads(stream.readline().removeprefix(b"data: "))["now"]
