"""Storms, in small: devices that come back at once, and a backlog. `make soak` has them at full size."""

from pathlib import Path

import pytest

from broker_topics.kafka import KafkaBus
from broker_topics.local.cluster import LocalCluster
from broker_topics.settings import ConnectionSettings
from tests.chaos.storms import all_come_back, goes_in
from tests.kafka.support import fleet_in

pytestmark = pytest.mark.slow


@pytest.mark.timeout(300)
async def test_twenty_devices_that_come_back_at_once_are_all_heard_again(
    own_broker: LocalCluster, tmp_path: Path, task_name: str
) -> None:
    with fleet_in(tmp_path, own_broker.bootstrap, task_name) as fleet:
        async with KafkaBus(ConnectionSettings(bootstrap=own_broker.bootstrap)) as bus:
            await all_come_back(fleet, bus, own_broker, processes=2, each=10)


@pytest.mark.timeout(300)
async def test_a_backlog_of_ten_thousand_updates_makes_none_of_them_stale(bootstrap: str, tmp_path: Path) -> None:
    await goes_in(tmp_path, bootstrap, count=10_000)
