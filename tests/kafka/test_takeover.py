"""Two aggregators of one task under a Lease, on a real broker: kill, stop and continue, an API server that hangs.

All roles are processes of the command; the API server is a stand-in that keeps Leases honestly.
"""

import asyncio
import signal
import time
from collections.abc import Iterator

import pytest

from broker_topics.errors import ExitCode
from broker_topics.kafka import KafkaBus
from tests.fleet import chain_of
from tests.kafka.support import Fleet, Role, settled_history
from tests.lease_server import LeaseServer, lease_server

DURATION_S = 3


@pytest.fixture
def server() -> Iterator[LeaseServer]:
    with lease_server() as server:
        yield server


def contender(fleet: Fleet, server: LeaseServer, identity: str) -> Role:
    return fleet.aggregator(
        KUBECONFIG=str(server.kubeconfig(fleet.folder)),
        HEADWATER_LEASE_NAME="t",
        HEADWATER_LEASE_IDENTITY=identity,
        HEADWATER_LEASE_DURATION_S=str(DURATION_S),
    )


async def leading_and_warm(fleet: Fleet, server: LeaseServer) -> tuple[Role, Role]:
    """One that leads, one that stands by."""
    leader = contender(fleet, server, "a")
    await fleet.until_told(leader, "lease_acquired")
    standby = contender(fleet, server, "b")
    await fleet.until_told(standby, "standby_warm")
    return leader, standby


async def went_on(fleet: Fleet, bus: KafkaBus, role: Role) -> float:
    """Wait until a role commits records of its own; when it saw the first of them, on the monotonic clock."""
    await fleet.until_told(role, "restored")
    height = (await chain_of(bus, fleet.task))[-1].height
    while (await chain_of(bus, fleet.task))[-1].height == height:
        assert role.process.poll() is None, role.text[-1500:]
        await asyncio.sleep(0.1)
    return time.monotonic()


async def test_the_standby_takes_over_when_the_leader_is_killed_and_at_once_when_it_ends_in_order(
    fleet: Fleet, bus: KafkaBus, server: LeaseServer
) -> None:
    await fleet.create()
    worker = fleet.worker("w-0", "w-3")
    leader, standby = await leading_and_warm(fleet, server)
    await fleet.until_accepted(bus, 6)
    begin = time.monotonic()
    leader.kill()
    print(f"kill -9 → next commit, Lease of {DURATION_S} s: {await went_on(fleet, bus, standby) - begin:.1f} s")
    assert server.holder() == "b"

    third = contender(fleet, server, "c")
    await fleet.until_told(third, "standby_warm")
    begin = time.monotonic()
    assert await standby.stop() == 0
    print(f"SIGTERM → next commit: {await went_on(fleet, bus, third) - begin:.1f} s")
    assert standby.events("lease_released")
    assert server.holder() == "c"
    await worker.stop()
    assert len({record.writer for record in (await settled_history(bus, fleet.task)).chain}) == 4  # and who made it


async def test_a_leader_that_was_stopped_and_continued_ends_by_itself_and_the_chain_is_one(
    fleet: Fleet, bus: KafkaBus, server: LeaseServer
) -> None:
    await fleet.create()
    worker = fleet.worker("w-0", "w-3")
    leader, standby = await leading_and_warm(fleet, server)
    await fleet.until_accepted(bus, 6)
    leader.send(signal.SIGSTOP)
    await went_on(fleet, bus, standby)
    leader.send(signal.SIGCONT)
    assert await leader.ended() == ExitCode.LOST_RACE
    assert server.holder() == "b"
    await worker.stop()
    writers = [record.writer for record in (await settled_history(bus, fleet.task)).chain]
    assert len(set(writers)) == 3
    assert writers == sorted(writers, key=writers.index)  # nobody came back


async def test_while_the_api_server_hangs_the_leader_ends_and_when_it_is_back_the_standby_leads(
    fleet: Fleet, bus: KafkaBus, server: LeaseServer
) -> None:
    await fleet.create()
    worker = fleet.worker("w-0", "w-3")
    leader, standby = await leading_and_warm(fleet, server)
    await fleet.until_accepted(bus, 6)
    server.mode = "hang"
    assert await leader.ended() == ExitCode.LOST_RACE
    assert "could not be renewed" in leader.text
    assert not standby.events("lease_acquired")
    server.mode = "ok"
    await went_on(fleet, bus, standby)
    assert server.holder() == "b"
    await worker.stop()
    await settled_history(bus, fleet.task)
