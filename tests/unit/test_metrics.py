"""The registry is one typed list: it counts, it bounds the number of series, and it is the reference page."""

import re

import pytest
from prometheus_client import Counter, Gauge, generate_latest

from broker_topics.errors import InvariantError, RejectCode
from broker_topics.task import CODECS
from monitoring.definitions import Family
from monitoring.histogram import Histogram
from monitoring.metrics import Metrics
from monitoring.stages import stage, stage_within


def series(metrics: Metrics) -> list[str]:
    """Every line of the exposition that is a sample of ours."""
    return [line for line in generate_latest(metrics.registry).decode().splitlines() if line.startswith("headwater_")]


def test_ten_thousand_devices_make_not_one_series_more() -> None:
    metrics = Metrics()
    before = len(series(metrics))
    codes = list(RejectCode)

    for device in range(10_000):
        metrics.updates_received_total.inc()
        metrics.update_bytes.labels(codec=CODECS[device % len(CODECS)]).observe(device)
        metrics.rejects_total.labels(code=codes[device % len(codes)]).inc()
        metrics.updates_processed_total.labels(outcome="applied").inc()
        metrics.update_staleness_versions.observe(device)
        metrics.train_seconds.observe(device)

    assert metrics.registry.get_sample_value("headwater_updates_received_total") == 10_000
    assert len(series(metrics)) == before


def test_the_definitions_know_how_many_series_there_are_and_it_is_below_six_hundred() -> None:
    metrics = Metrics()
    for number in range(100):
        metrics.cohorts.label(f"android-{number}")
    assert len(series(metrics)) == sum(definition.series for definition in Metrics.definitions())
    assert len(series(metrics)) < 600


def test_a_client_id_as_a_label_value_is_a_bug_that_is_named() -> None:
    with pytest.raises(InvariantError, match="code must be one of malformed, too_large"):
        Metrics().rejects_total.labels(code="watch-17")
    with pytest.raises(InvariantError, match="code must be one of"):
        Metrics().rejects_total.labels(client="watch-17")


def test_every_reject_code_is_counted_from_zero() -> None:
    metrics = Metrics()
    for code in RejectCode:
        assert metrics.registry.get_sample_value("headwater_rejects_total", {"code": code.value}) == 0.0


def test_every_label_value_exists_before_its_first_event() -> None:
    for definition in Metrics.definitions():
        if definition.label is not None:
            assert isinstance(getattr(Metrics(), definition.name.removeprefix("headwater_")), Family)
            assert len(definition.values) + definition.admitted > 1, definition.name


def test_a_partition_is_named_by_its_number() -> None:
    metrics = Metrics()
    metrics.consumer_lag_records.labels(partition=11).set(5)
    assert metrics.registry.get_sample_value("headwater_consumer_lag_records", {"partition": "11"}) == 5.0


def test_a_new_cohort_begins_at_zero_in_every_metric_of_cohorts() -> None:
    metrics = Metrics()
    assert metrics.cohorts.label("android-14") == "android-14"
    for name in ("updates_total", "updates_refused_total", "weight_total", "clients_active"):
        assert metrics.registry.get_sample_value(f"headwater_cohort_{name}", {"cohort": "android-14"}) == 0.0


def test_the_twenty_first_cohort_and_what_is_no_name_are_other() -> None:
    cohorts = Metrics().cohorts
    assert [cohorts.label(text) for text in ("", "line\nbreak", "x" * 65)] == ["other"] * 3
    assert [cohorts.label(f"c-{number}") for number in range(20)] == [f"c-{number}" for number in range(20)]
    assert cohorts.label("c-20") == "other"
    assert cohorts.label("c-3") == "c-3"


def test_where_cohorts_are_pinned_no_device_brings_another() -> None:
    metrics = Metrics(cohorts=["ios", "android"])
    assert metrics.registry.get_sample_value("headwater_cohort_updates_total", {"cohort": "ios"}) == 0.0
    assert [metrics.cohorts.label(name) for name in ("ios", "hostile")] == ["ios", "other"]


def test_every_served_series_names_its_task() -> None:
    lines = series(Metrics(task="watch"))
    assert len(lines) > 400
    assert all('task="watch"' in line for line in lines)


def test_two_registries_in_one_process_do_not_share_a_count() -> None:
    one, other = Metrics(), Metrics()
    one.updates_received_total.inc(3)
    assert other.registry.get_sample_value("headwater_updates_received_total") == 0.0


def test_names_follow_the_conventions_of_prometheus() -> None:
    for definition in Metrics.definitions():
        assert re.fullmatch(r"headwater_[a-z][a-z0-9_]*", definition.name)
        assert (definition.kind is Counter) == definition.name.endswith("_total"), definition.name
        assert definition.help.endswith(".")
        assert definition.label not in {"client", "client_id", "device"}
        if "timestamp" in definition.name:
            assert definition.unit == "unix seconds"
            assert definition.kind is Gauge


def test_buckets_rise() -> None:
    for definition in Metrics.definitions():
        if definition.kind is Histogram:
            assert list(definition.buckets) == sorted(set(definition.buckets)), definition.name


def test_every_counter_of_failures_names_the_counter_of_attempts() -> None:
    counters = {definition.name: definition for definition in Metrics.definitions() if definition.kind is Counter}
    failures = {name for name in counters if re.search("reject|refused|fail|lost|retries|unreadable|void", name)}
    assert len(failures) == 9
    for name in failures:
        assert f"headwater_{counters[name].failures_of}" in counters, name


def test_what_is_not_known_yet_is_not_a_number_and_not_zero() -> None:
    text = generate_latest(Metrics().registry).decode()
    assert "headwater_evaluation_accuracy NaN\n" in text
    assert "headwater_retention_headroom_seconds +Inf\n" in text


def test_a_stage_is_timed_also_when_it_fails() -> None:
    metrics = Metrics()
    with stage(metrics, "decode"):
        pass
    with pytest.raises(ValueError, match="broken"), stage(metrics, "decode"):
        raise ValueError("broken")
    count = metrics.registry.get_sample_value("headwater_stage_duration_seconds_count", {"stage": "decode"})
    assert count == 2.0


def test_a_stage_within_another_is_taken_out_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two calls of 3 and 5 seconds, one of them failing, in a pass of 20."""
    metrics, readings = Metrics(), iter([100.0, 101.0, 104.0, 110.0, 115.0, 120.0])
    monkeypatch.setattr("monitoring.stages.time.perf_counter", lambda: next(readings))

    def fails(text: str) -> int:
        raise ValueError(text)

    with stage_within(metrics, "gate", "decode") as watch:
        assert watch(int)("7") == 7
        with pytest.raises(ValueError, match="broken"):
            watch(fails)("broken")

    def seen(which: str, name: str) -> float | None:
        return metrics.registry.get_sample_value(f"headwater_stage_duration_seconds_{which}", {"stage": name})

    assert (seen("count", "decode"), seen("sum", "decode")) == (1.0, 8.0)
    assert (seen("count", "gate"), seen("sum", "gate")) == (1.0, 12.0)


def test_the_process_tells_its_memory_and_its_build() -> None:
    metrics = Metrics()
    memory = metrics.registry.get_sample_value("process_resident_memory_bytes")
    assert memory is not None
    assert memory > 1e6
    assert re.search(r'headwater_build_info\{python="3\.\d+\.\d+",version="[^"]+"\} 1\.0', "\n".join(series(metrics)))
