"""kill -9 of every role in the middle of a run, over a real broker: nothing acknowledged is lost, nothing counts twice.

All roles are processes of the command. What is claimed is checked from the log alone.
"""

import asyncio
from pathlib import Path

import pytest

from broker_topics.bus import Bus
from broker_topics.errors import ExitCode
from broker_topics.kafka import KafkaBus
from broker_topics.local.cluster import LocalCluster
from broker_topics.settings import ConnectionSettings
from tests.chaos.diary import assert_sequences_continue
from tests.fleet import chain_of
from tests.kafka.support import Fleet, accepted, fleet_in, hashes, settled_history


async def assert_replay_agrees(fleet: Fleet, bus: Bus) -> None:
    status, printed = await fleet.run("replay")
    assert status == 0, printed
    assert f"chain head   {(await chain_of(bus, fleet.task))[-1].hash.hex()}" in printed


async def assert_every_promise_holds(fleet: Fleet) -> None:
    """As an operator asks for it, also without the processor's newer instructions."""
    status, printed = await fleet.run("verify", "--settled", "--portable")
    assert status == 0, printed
    assert "everything holds" in printed
    assert "every hash again" in printed


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_broker_that_is_killed_and_comes_back_is_waited_for_by_everybody(
    own_broker: LocalCluster, tmp_path: Path, task_name: str
) -> None:
    with fleet_in(tmp_path, own_broker.bootstrap, task_name) as fleet:
        async with KafkaBus(ConnectionSettings(bootstrap=own_broker.bootstrap)) as bus:
            await fleet.create()
            aggregator = fleet.aggregator()
            workers = [fleet.worker("w-0", "w-3"), fleet.worker("w-6")]
            evaluator = fleet.start("evaluator", "--module", "my_fleet:make_evaluator")
            await fleet.until(lambda: bool(evaluator.events("version_evaluated")), "a version was scored")
            await fleet.until_accepted(bus, 6)
            seen = await hashes(bus, task_name)
            await own_broker.kill()
            trained = len(workers[0].events("training_finished"))
            await fleet.until(
                lambda: len(workers[0].events("training_finished")) >= trained + 5,
                "devices trained on without a broker",
            )
            await own_broker.restart()
            scored = len(evaluator.events("version_evaluated"))
            await fleet.until_accepted(bus, await accepted(bus, task_name) + 6)
            await fleet.until(lambda: len(evaluator.events("version_evaluated")) > scored, "scores went on")
            for role in workers:
                assert await role.stop() == 0, role.text
            history = await settled_history(bus, task_name)
            for role in (aggregator, evaluator):
                assert await role.stop() == 0, role.text
            assert [record.hash for record in history.chain[: len(seen)]] == seen
            assert len({record.writer for record in history.chain}) == 2
            assert_sequences_continue(history, "w-0", "w-3", "w-6")
            assert not any(role.events("update_discarded") for role in workers)
            await assert_replay_agrees(fleet, bus)
            await assert_every_promise_holds(fleet)


@pytest.mark.slow
async def test_of_two_who_make_one_task_at_once_one_wins_and_the_other_is_told(fleet: Fleet, bus: KafkaBus) -> None:
    create = ("task", "create", "--module", "my_fleet:make_model")
    done = await asyncio.gather(*(fleet.run(*create) for _ in range(3)))
    won = [printed for status, printed in done if status == ExitCode.DONE]
    lost = [printed for status, printed in done if status == ExitCode.CONFIG]
    assert (len(won), len(lost)) == (1, 2), done
    for printed in lost:
        assert "exists already" in printed or "was made by somebody else at this moment" in printed
    assert (await chain_of(bus, fleet.task))[0].hash.hex()[:16] in won[0]
    status, printed = await fleet.run("task", "show")
    assert status == 0, printed
    assert "version 0, height 0, 3010 numbers" in printed
