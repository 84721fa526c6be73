"""A drill, `make drill`: the most important ways to fail, provoked for real, each until its alert fires.

Real Kafka, real Prometheus, the rules that are shipped; a minute is half a second. Not collected by `make test`.
"""

from pathlib import Path

import pytest

from monitoring.alerts import Options
from tests.kafka.live import Live, watched_fleet
from tests.kafka.support import free_port
from tests.kafka.trouble import Rivals, poisoned, refuse_keyframes, throttled

FASTER = Options(speed=120)
FAST_DEVICES = ("w-0", "w-1", "w-2", "w-3", "w-4")


def fires(live: Live, name: str) -> None:
    """Wait for an alert, which must not have fired before; says how long it took."""
    live.prometheus.until(lambda: live.prometheus.fires(name), f"{name} fires")
    print(f"{name} fires")


@pytest.mark.timeout(600)
def test_each_way_to_fail_fires_its_alert(bootstrap: str, task_name: str, tmp_path: Path) -> None:
    second = free_port()
    with watched_fleet(
        tmp_path,
        bootstrap,
        task_name,
        devices=FAST_DEVICES,
        more_targets={"rival": [f"127.0.0.1:{second}"]},
        options=FASTER,
        keyframe_every=2,
    ) as live:
        watch = live.prometheus
        slow = live.fleet.worker("w-9", PACE_S="1.0")
        watch.until(lambda: watch.query("headwater_cohort_updates_total > 40"), "the fleet is under way")
        watch.until(lambda: len(slow.events("update_settled")) > 3, "the slow device is heard")
        quiet = {"SlowDevicesForgotten", "ChainRaceLost", "RejectRatioHigh", "KeyframeFailing", "LagGrowing"}
        assert not {name for name in quiet if watch.fires(name)}

        rivals = Rivals(live, second)
        watch.until(lambda: (rivals.keep_both(), watch.fires("ChainRaceLost"))[1], "ChainRaceLost fires")
        print(f"ChainRaceLost fires, {rivals.lost} processes ended with 75")
        rivals.end_one()

        slow.kill()
        fires(live, "SlowDevicesForgotten")

        with poisoned(bootstrap, task_name):
            fires(live, "RejectRatioHigh")

        with poisoned(bootstrap, task_name, at_once=20), throttled(live.aggregator, share=0.1):
            fires(live, "LagGrowing")

        assert not watch.fires("KeyframeFailing")
        refuse_keyframes(bootstrap, task_name)
        fires(live, "KeyframeFailing")

        assert not watch.fires("AggregatorDown")
        live.aggregator.kill()
        fires(live, "AggregatorDown")
        fires(live, "ModelStale")
        assert not watch.fires("ReconcileGap")
