"""A poisoned topic and a killed aggregator are seen by a real Prometheus, by the rules that are shipped, times apart.

The other ways to fail take longer: `make drill` provokes them all.
"""

from pathlib import Path

import pytest

from monitoring.alerts import Options
from tests.kafka.live import watched_fleet
from tests.kafka.trouble import poisoned

MINUTES_ARE_HALF_SECONDS = Options(speed=120)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_poison_and_a_killed_aggregator_fire_their_alerts(bootstrap: str, task_name: str, tmp_path: Path) -> None:
    with watched_fleet(tmp_path, bootstrap, task_name, options=MINUTES_ARE_HALF_SECONDS) as live:
        watch = live.prometheus
        watch.until(lambda: watch.query("headwater_model_version > 5"), "the fleet is under way")
        expected = {"RejectRatioHigh", "AggregatorDown", "ModelStale"}
        watch.until(lambda: not expected & set(watch.alerts()), "all is well")  # it was down until it was scraped
        with poisoned(bootstrap, task_name):
            watch.until(lambda: watch.fires("RejectRatioHigh"), "RejectRatioHigh fires")
        assert not watch.fires("AggregatorDown")
        live.aggregator.kill()
        watch.until(lambda: watch.fires("AggregatorDown"), "AggregatorDown fires")
        watch.until(lambda: watch.fires("ModelStale"), "ModelStale fires")
