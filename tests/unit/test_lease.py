"""The election over HTTP, against a stand-in API server that can hang, die, be slow and lie."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from aggregator.leadership.election import Lease, Terms
from aggregator.leadership.lease import KubernetesLease, LeaseElection, LeaseLostError
from broker_topics.errors import ConfigError, ExitCode
from headwater.cli import run
from monitoring.metrics import Metrics
from tests.fleet import until
from tests.lease_server import PREFIX, LeaseServer, lease_server

TERMS = Terms.of(2)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LeaseServer]:
    with lease_server() as server:
        monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path)))
        yield server


@dataclass
class Contender:
    """One election under way; `ended` once it is over, by an error or not."""

    election: LeaseElection
    elected: asyncio.Event = field(default_factory=asyncio.Event)

    def begin(self) -> None:
        self.run = asyncio.create_task(self.election.run(self.elected))

    def failures(self) -> float:
        return self.election.metrics.registry.get_sample_value("headwater_lease_failures_total") or 0.0


@asynccontextmanager
async def contender(identity: str, terms: Terms = TERMS) -> AsyncIterator[Contender]:
    """Contends while the block runs, then releases what it holds."""
    metrics = Metrics()
    election = LeaseElection(store=KubernetesLease("t"), terms=terms, metrics=metrics, identity=identity)
    one = Contender(election)
    one.begin()
    try:
        yield one
    finally:
        one.run.cancel()
        await asyncio.gather(one.run, return_exceptions=True)
        await election.release()


async def test_one_leads_and_the_next_follows_at_once_when_it_ends_in_order(server: LeaseServer) -> None:
    async with contender("b") as second:
        async with contender("a") as first:
            await until(lambda: first.elected.is_set() or second.elected.is_set())
            assert first.elected.is_set() != second.elected.is_set()
            assert server.holder() == ("a" if first.elected.is_set() else "b")
        await until(second.elected.is_set)
        assert server.holder() == "b"
    assert server.holder() == ""
    assert server.leases["fleet", "t"]["spec"]["leaseDurationSeconds"] == 1


async def test_the_lease_says_what_kubectl_shows(server: LeaseServer) -> None:
    async with contender("a") as first:
        await until(first.elected.is_set)
        await until(lambda: len(server.history) >= 3)
        spec = server.leases["fleet", "t"]["spec"]
        assert spec["holderIdentity"] == "a"
        assert spec["leaseTransitions"] == 0
        assert spec["acquireTime"] < spec["renewTime"]
        assert spec["renewTime"].endswith("Z")
    assert [method for method, _ in server.requests[:3]] == ["GET", "POST", "PUT"]


async def test_a_lease_taken_on_a_whole_second_is_no_time_that_the_api_server_refuses(server: LeaseServer) -> None:
    store = KubernetesLease("t", now=lambda: datetime(2026, 1, 1, 12, tzinfo=UTC))
    await store.write(Lease(holder="a", duration_s=2))
    await store.close()
    assert server.leases["fleet", "t"]["spec"]["acquireTime"] == "2026-01-01T12:00:00.000001Z"


@pytest.mark.parametrize("mode", ["hang", "nonsense", 500, 401, 403, 503])
async def test_a_leader_steps_down_by_itself_when_the_api_server_gives_no_usable_answer(
    server: LeaseServer, mode: str | int
) -> None:
    async with contender("a") as first:
        await until(first.elected.is_set)
        server.mode = mode
        with pytest.raises(LeaseLostError, match=r"it could not be renewed for 1\.33 s") as caught:
            await asyncio.wait_for(first.run, 5)
        assert caught.value.exit_code is ExitCode.LOST_RACE
        assert first.failures() >= 1


async def test_a_leader_steps_down_by_itself_when_the_api_server_dies(server: LeaseServer) -> None:
    async with contender("a") as first:
        await until(first.elected.is_set)
        await asyncio.to_thread(server.die)
        with pytest.raises(LeaseLostError, match="it could not be renewed"):
            await asyncio.wait_for(first.run, 5)


async def test_a_leader_has_stepped_down_before_the_next_begins_while_its_renewals_hang(server: LeaseServer) -> None:
    async with contender("a") as first, contender("b") as second:
        await until(lambda: first.elected.is_set() or second.elected.is_set())
        leader, standby = (first, second) if first.elected.is_set() else (second, first)
        server.mode = "hang"
        await asyncio.wait([leader.run], timeout=5)
        assert leader.run.done()
        assert not standby.elected.is_set()
        assert isinstance(leader.run.exception(), LeaseLostError)


async def test_a_standby_survives_every_failure_and_leads_when_the_api_server_is_back(server: LeaseServer) -> None:
    async with contender("a") as one:
        for mode in (500, "nonsense", 401):
            server.mode = mode
            seen = one.failures()
            await until(lambda seen=seen: one.failures() > seen)  # type: ignore[misc]
        assert not one.elected.is_set()
        server.mode = "ok"
        await until(one.elected.is_set)


async def test_a_standby_waits_on_while_the_api_server_is_dead_and_leads_once_it_is_back_and_the_lease_is_free(
    server: LeaseServer,
) -> None:
    store = KubernetesLease("t")
    await store.write(Lease(holder="other", duration_s=60))
    async with contender("a") as standby:
        await until(lambda: ("GET", f"{PREFIX}fleet/leases/t") in server.requests)
        await asyncio.to_thread(server.die)
        await until(lambda: standby.failures() >= 1)
        heard, seen = len(server.requests), standby.failures()
        await until(lambda: standby.failures() >= seen + 2)
        assert len(server.requests) == heard, "nobody listens"
        assert not standby.run.done()
        assert not standby.elected.is_set()
        server.come_back()
        await until(lambda: len(server.requests) >= heard + 2)
        assert not standby.elected.is_set()
        assert server.holder() == "other"
        held = await store.read()
        assert held is not None
        await store.write(replace(held, holder=""))
        await until(standby.elected.is_set)
        assert server.holder() == "a"
    await store.close()


async def test_a_right_that_is_missing_is_said_once_although_the_other_requests_are_answered(
    server: LeaseServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.read_only = True
    async with contender("a") as one:
        await until(lambda: one.failures() >= 3)
    assert {method for method, _ in server.requests} == {"GET", "POST"}
    assert caplog.text.count("lease_unreachable") == 1


async def test_a_write_whose_answer_is_lost_is_taken_up_again(server: LeaseServer) -> None:
    server.lost_answers = 1
    async with contender("a") as one:
        await until(one.elected.is_set)
        assert one.failures() == 1
        assert server.holder() == "a"


async def test_a_leader_that_somebody_else_overwrote_steps_down(server: LeaseServer) -> None:
    async with contender("a") as first:
        await until(first.elected.is_set)
        with server._lock:
            lease = server.leases["fleet", "t"]
            server._store(("fleet", "t"), {**lease, "spec": {**lease["spec"], "holderIdentity": "kubectl"}})
        with pytest.raises(LeaseLostError, match="kubectl holds it"):
            await asyncio.wait_for(first.run, 5)


async def test_two_requests_that_hang_cost_no_leader_its_place(server: LeaseServer) -> None:
    async with contender("a", Terms.of(4)) as one:
        await until(one.elected.is_set)
        server.hanging = 2
        await until(lambda: one.failures() == 2)
        seen = len(server.history)
        await until(lambda: len(server.history) > seen)
        assert not one.run.done()


async def test_a_lease_that_is_deleted_is_made_again_by_its_leader(server: LeaseServer) -> None:
    async with contender("a", Terms.of(4)) as first, contender("b", Terms.of(4)) as second:
        await until(lambda: first.elected.is_set() or second.elected.is_set())
        holder = server.holder()
        await until(lambda: sum(method == "GET" for method, _ in server.requests) >= 4)
        with server._lock:
            server.leases.clear()
        await until(lambda: server.holder() != "")
        assert server.holder() == holder
        assert first.elected.is_set() != second.elected.is_set()
        assert not first.run.done()
        assert not second.run.done()


async def test_a_slow_api_server_costs_no_leader_its_place(server: LeaseServer) -> None:
    server.delay_s = 0.2
    async with contender("a", Terms.of(4)) as one:
        await until(one.elected.is_set)
        await until(lambda: len(server.history) >= 5)
        assert not one.run.done()


def test_without_a_cluster_the_setting_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nothing"))
    with pytest.raises(ConfigError, match="HEADWATER_LEASE_NAME is set, but there is no Kubernetes cluster to ask"):
        KubernetesLease("t")


def test_a_lease_and_a_standby_by_hand_exclude_each_other(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HEADWATER_LEASE_NAME", "t")
    assert run(["aggregator", "--task", "t", "--standby"]) == ExitCode.CONFIG
    assert "drop --standby" in capsys.readouterr().err
