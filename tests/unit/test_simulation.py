"""Whole lives of a task under faults, in virtual time: no seed may break a rule, and every planted bug must show."""

import asyncio
import gc

import pytest

from tests.simulation.__main__ import GARBAGE, run
from tests.simulation.clock import run_virtually
from tests.simulation.plants import NEEDS, PLANTS, planted
from tests.simulation.world import simulate

SEEDS, CHUNK = 1000, 50


@pytest.fixture(autouse=True)
def rare_garbage_collection():
    """As the command sets it: a tenth faster."""
    before = gc.get_threshold()
    gc.set_threshold(GARBAGE)
    yield
    gc.set_threshold(*before)


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_nothing_is_lost_or_counted_twice_whatever_a_seed_breaks(first):
    broken = {seed: found for seed in range(first, first + CHUNK) if (found := simulate(seed).violations)}
    again = [f"python -m tests.simulation --runs 1 --seed {seed}" for seed in broken]
    assert not broken, again


def test_a_seed_does_the_same_again():
    first, second = simulate(4), simulate(4)
    assert first == second
    assert first.counts["accepted"] > 0
    assert first.head != simulate(5).head


@pytest.mark.parametrize("plant", sorted(PLANTS))
def test_a_planted_bug_is_found(plant):
    with planted(plant):
        assert any(simulate(seed, NEEDS.get(plant, "")).violations for seed in range(400))


def test_a_fleet_outlives_a_chain_that_is_cut_and_written_on_by_others_again_and_again():
    assert {seed: found for seed in range(60) if (found := simulate(seed, "supplant").violations)} == {}


def test_the_last_line_says_how_many_seeds_ran_and_how_many_broke_a_rule(capsys):
    assert run([0, 1], None, 1, first=False) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "2 runs, 0 violations"


def test_a_seed_that_breaks_a_rule_is_named_with_the_command_that_does_it_again(capsys):
    assert run(range(80), "dedupe_off_by_one", 1, first=True) == 1
    lines = capsys.readouterr().out.splitlines()
    seed = lines[0].split()[1].removesuffix(":")
    assert f"  again: python -m tests.simulation --runs 1 --seed {seed} --plant dedupe_off_by_one" in lines
    assert lines[-1].endswith(" runs, 1 violations")


def test_a_deadlock_and_a_busy_loop_end_the_run():
    async def wait_for_ever():
        await asyncio.Event().wait()

    async def never_rest():
        while True:
            await asyncio.sleep(0)

    with pytest.raises(RuntimeError, match="deadlock"):
        run_virtually(wait_for_ever())
    with pytest.raises(RuntimeError, match="busy loop"):
        run_virtually(never_rest())


def test_an_hour_passes_at_once():
    async def hour():
        await asyncio.sleep(3600)
        return asyncio.get_running_loop().time()

    assert run_virtually(hour()) == 3600
