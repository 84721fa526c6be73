"""What `make bench` hands on: figures with their bars, a prepared backlog, the quantile of a histogram."""

import json
from pathlib import Path

import pytest

from benchmarks.backlog import make_task, send_all, updates
from benchmarks.figures import at_least, at_most, plain, show, write
from benchmarks.process import quantile_s
from broker_topics.memory import MemoryBus
from broker_topics.memory_log import MemoryLog
from tests.fleet import chain_of, metric, running, until


def test_a_bar_is_met_at_the_bar_itself_and_missed_beyond_it() -> None:
    assert [at_most("lag", value, 15)["met"] for value in (14.9, 15.0, 15.1)] == [True, True, False]
    assert [at_least("ratio", value, 0.5)["met"] for value in (0.49, 0.5)] == [False, True]


def test_the_report_holds_name_value_unit_bar_and_met_and_nulls_where_nothing_was_promised(tmp_path: Path) -> None:
    path = tmp_path / "report" / "bench.json"
    write([plain("restart", 2.34567, "s"), at_most("lag", 20.0, 15, "ms")], path)
    assert json.loads(path.read_text()) == [
        {"name": "restart", "value": 2.346, "unit": "s", "bar": None, "met": None},
        {"name": "lag", "value": 20.0, "unit": "ms", "bar": "≤ 15", "met": False},
    ]


def test_a_missed_bar_says_so_in_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    show([at_least("ratio", 0.4, 0.5), at_least("other", 0.6, 0.5), plain("speed", 1234567.0, "updates/s")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("MISSED")
    assert lines[1].endswith("ok")
    assert lines[2].split()[-2:] == ["1,235,000", "updates/s"]


def test_a_quantile_counts_only_what_came_between_two_looks() -> None:
    end = float("inf")
    before = {0.001: 1000.0, 0.01: 1000.0, end: 1000.0}
    assert quantile_s(0.99, before, {0.001: 1000.0, 0.01: 1100.0, end: 1100.0}) == pytest.approx(0.00991)
    assert quantile_s(0.99, before, {0.001: 1100.0, 0.01: 1100.0, end: 1100.0}) == pytest.approx(0.00099)


async def test_every_update_of_a_prepared_backlog_is_accepted() -> None:
    async with MemoryBus(MemoryLog()) as bus:
        task = await make_task(bus, "watch", 5_000, buffer_size=50, backlog_buffer_size=50)
        records = list(updates(task, 50))
        assert await send_all(task, iter(records)) == sum(len(value) for _, value in records)
        async with running(bus, "watch") as aggregator:
            await until(lambda: metric(aggregator, "headwater_updates_processed_total", outcome="applied") == 50)
        chain = await chain_of(bus, "watch")
    assert [step.inputs for record in chain for step in record.body.steps] == [50]
