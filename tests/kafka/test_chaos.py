"""A sample of what `make soak` does: the same scenarios, a few runs of each, chance from a fixed seed."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker_topics.local.cluster import LocalCluster
from tests.chaos.crash_points import aggregators_die_at, create_dies_at, devices_die_at
from tests.chaos.cuts import filling_up_dies_at, putting_back_dies_at
from tests.chaos.ground import Ground
from tests.chaos.kills import storm
from tests.chaos.network import ROUGH, bad_line, behind_proxy
from tests.chaos.zombies import frozen, race

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
async def ground(tmp_path: Path, bootstrap: str) -> AsyncIterator[Ground]:
    async with Ground(folder=tmp_path, bootstrap=bootstrap, say=print) as ground:
        yield ground


async def test_a_task_is_made_also_where_its_first_maker_died_half_way(ground: Ground) -> None:
    await create_dies_at(ground, "part:after")
    assert (ground.runs, ground.violations) == (1, [])


async def test_an_aggregator_may_die_between_any_two_effects(ground: Ground) -> None:
    points = ["part:after", "append:before", "append:after", "read_back:after", "head:before", "read_inputs:after"]
    await aggregators_die_at(ground, points)
    assert (ground.runs, ground.violations) == (7, [])


async def test_a_device_may_die_around_every_store_and_send(ground: Ground) -> None:
    await devices_die_at(ground, ["store_before_send:after", "produce:after", "store_settled:before"])
    assert (ground.runs, ground.violations) == (4, [])


async def test_a_fleet_lives_through_random_kills_of_everybody_the_broker_included(
    ground: Ground, own_broker: LocalCluster
) -> None:
    await storm(ground, own_broker, 0, seconds=60.0)
    assert (ground.runs, ground.violations) == (1, [])


async def test_of_two_aggregators_that_compute_the_same_one_wins_and_the_other_ends(ground: Ground) -> None:
    for number in range(5):
        await race(ground, await ground.shared(), number)
    assert (ground.runs, ground.violations) == (5, [])


async def test_an_aggregator_that_wakes_up_after_another_took_its_place_ends_with_75(ground: Ground) -> None:
    await frozen(ground, await ground.shared(), seconds=0.0, compacts=False)
    assert (ground.runs, ground.violations) == (1, [])


async def test_who_mends_a_log_that_lost_its_end_may_die_in_the_midst(ground: Ground, own_broker: LocalCluster) -> None:
    await putting_back_dies_at(ground, own_broker, "put_back:before")
    await filling_up_dies_at(ground, own_broker, "fill_up:after")
    assert (ground.runs, ground.violations) == (2, [])


async def test_on_a_line_that_resets_and_is_late_nothing_is_lost(ground: Ground) -> None:
    async with behind_proxy(ground) as proxy:
        await bad_line(ground, proxy, "20 % resets and 300 ms", ROUGH, 6.0)
    assert (ground.runs, ground.violations) == (1, [])
    assert proxy.resets > 0
