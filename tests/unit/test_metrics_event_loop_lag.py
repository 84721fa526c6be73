"""The event loop's lag is measured from inside, and its age can be read from outside."""

import asyncio
import gc
import sys
import threading
import time

import pytest

from headwater.process import be_punctual
from monitoring.loop_lag import EventLoopLag
from monitoring.metrics import Metrics


def busy(seconds: float) -> None:
    """Hold the event loop, as arithmetic in the wrong thread would."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


async def test_a_block_of_sixty_milliseconds_is_seen_as_at_least_fifty() -> None:
    metrics = Metrics()
    async with EventLoopLag(metrics, interval_s=0.005) as lag:
        await asyncio.sleep(0.02)
        busy(0.060)
        await asyncio.sleep(0.02)

    assert lag.max_s >= 0.050
    below = metrics.registry.get_sample_value("headwater_event_loop_lag_seconds_bucket", {"le": "0.05"})
    total = metrics.registry.get_sample_value("headwater_event_loop_lag_seconds_count")
    assert total is not None
    assert below is not None
    assert total > below


async def test_the_percentile_is_of_the_ticks_that_were_seen() -> None:
    lag = EventLoopLag(Metrics())
    assert lag.p99_s == 0.0
    lag._lags_s.extend(milli / 1000 for milli in range(100, 0, -1))
    assert lag.p99_s == pytest.approx(0.099)
    assert lag.quantile_s(0.5) == pytest.approx(0.050)
    assert lag.quantile_s(0.0) == pytest.approx(0.001)


async def test_another_thread_sees_the_heartbeat_grow_old_while_the_loop_is_blocked() -> None:
    ages: list[float] = []
    asked, blocked = threading.Event(), threading.Event()

    async with EventLoopLag(Metrics()) as lag:

        def watch() -> None:
            blocked.wait(5)
            deadline = time.monotonic() + 5
            while lag.age_s() < 0.2 and time.monotonic() < deadline:
                pass
            ages.append(lag.age_s())
            asked.set()

        watcher = threading.Thread(target=watch)
        watcher.start()
        blocked.set()
        # The loop stands still here until the other thread has seen it.
        asked.wait(10)
        watcher.join()

    assert ages[0] >= 0.2


def test_a_loop_that_is_often_late_warns_once_in_ten_seconds_with_the_longest(
    caplog: pytest.LogCaptureFixture,
) -> None:
    lag = EventLoopLag(Metrics())
    for now_s, lag_s in [(100.0, 0.014), (101.0, 0.020), (102.0, 0.090), (103.0, 0.030), (112.0, 0.001)]:
        lag._note(lag_s, now_s)
    warnings = [record.msg for record in caplog.records]
    assert [(w["event"], w["longest_s"]) for w in warnings if isinstance(w, dict)] == [
        ("event_loop_blocked", 0.020),
        ("event_loop_blocked", 0.090),
    ]


def test_a_process_that_serves_spares_the_collector_what_it_imported_and_makes_threads_give_way() -> None:
    interval = sys.getswitchinterval()
    try:
        be_punctual()
        assert gc.get_freeze_count() > 10_000
        assert sys.getswitchinterval() == pytest.approx(0.001)
    finally:
        gc.unfreeze()
        sys.setswitchinterval(interval)
