"""A real Apache Kafka for these tests: one broker a test process, and rougher ones for those who hurt them."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from broker_topics.kafka import KafkaBus
from broker_topics.local.cluster import LocalCluster
from broker_topics.local.listeners import SecuredListener
from broker_topics.local.plan import free_ports
from broker_topics.settings import ConnectionSettings
from tests.kafka import quick_java
from tests.kafka.certificates import Authority, Identity
from tests.kafka.damage import Made
from tests.kafka.live import Live, watched_fleet
from tests.kafka.support import Fleet, fleet_in

SCRAM_USERS = {"watch": "right-password", "reader": "another-password"}
"""The users that the secured listeners know."""


@pytest.fixture(scope="session", autouse=True)
def _quick_java(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Every broker starts with Kafka's classes from a cache, in this process and in those that it starts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(quick_java.VARIABLE, asyncio.run(quick_java.options(tmp_path_factory.mktemp("java"))))
        yield


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Signs the broker's certificate and those of devices; `authority.ca` is what a client must trust."""
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def device_identity(authority: Authority) -> Identity:
    """The certificate of a device called w-17."""
    return authority.device("w-17")


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[LocalCluster]:
    """One node for all tests of this process; do not kill it.

    `broker.bootstrap` is plain; `broker.address(name)` with name TLS, MTLS, SCRAM is secured. ACLs hold for users of
    MTLS and SCRAM as soon as a topic has one; plain clients may do everything.
    """
    keystore = authority.server()
    cluster = LocalCluster(
        data=tmp_path_factory.mktemp("kafka"),
        metrics_port=free_ports(1)[0],
        listeners=[
            SecuredListener(name="TLS", keystore=keystore),
            SecuredListener(name="MTLS", keystore=keystore, client_ca=authority.ca),
            SecuredListener(name="SCRAM", keystore=keystore, scram=True),
        ],
        scram_users=SCRAM_USERS,
        properties={
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
            "allow.everyone.if.no.acl.found": "true",
        },
    )
    asyncio.run(cluster.start())
    yield cluster
    asyncio.run(cluster.stop())


@pytest.fixture
def bootstrap(request: pytest.FixtureRequest) -> str:
    """`host:port` of the broker that all tests of this process share; in a module with a `damage`, of the hurt one."""
    cluster: LocalCluster = request.getfixturevalue("cluster" if hasattr(request.module, "damage") else "broker")
    return cluster.bootstrap


@pytest.fixture(scope="module")
def damaged(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[LocalCluster, dict[str, Made]]]:
    """A broker of the module's own and the tasks on it, after the module's `damage` has hurt them."""
    cluster = LocalCluster(data=tmp_path_factory.mktemp("damaged"))
    tasks = asyncio.run(request.module.damage(cluster))
    yield cluster, tasks
    asyncio.run(cluster.stop())


@pytest.fixture
def cluster(damaged: tuple[LocalCluster, dict[str, Made]]) -> LocalCluster:
    """The broker that was hurt."""
    return damaged[0]


@pytest.fixture
def tasks(damaged: tuple[LocalCluster, dict[str, Made]]) -> dict[str, Made]:
    """The tasks on it, by name."""
    return damaged[1]


@pytest.fixture
async def bus(bootstrap: str) -> AsyncIterator[KafkaBus]:
    """A connection to that broker."""
    async with KafkaBus(ConnectionSettings(bootstrap=bootstrap)) as bus:
        yield bus


@pytest.fixture
def fleet(tmp_path: Path, bootstrap: str, task_name: str) -> Iterator[Fleet]:
    """Processes of the command on a task of this test's own; all gone at the end."""
    with fleet_in(tmp_path, bootstrap, task_name) as fleet:
        yield fleet


@pytest.fixture(scope="session")
def live(broker: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A fleet that trains, watched by a Prometheus that has seen all of it for a while; ask, and leave it alone."""
    folder, task = tmp_path_factory.mktemp("live"), f"t-{uuid.uuid4().hex[:12]}"
    kafka = {"kafka": [urlsplit(address).netloc for address in broker.metrics_addresses]}
    with watched_fleet(folder, broker.bootstrap, task, more_targets=kafka, keyframe_every=10) as live:
        watch = live.prometheus
        watch.until(lambda: watch.query("headwater_evaluation_accuracy > 0"), "a version was scored")
        watch.until(lambda: watch.query("rate(headwater_train_seconds_count[5s]) > 0"), "telemetry arrived twice")
        watch.until(lambda: watch.query("headwater_fetch_probes_total > 0"), "the model was fetched")
        watch.until(lambda: watch.query("rate(kafka_log_log_size[15s])"), "the broker was heard twice")
        yield live


@pytest.fixture
async def own_broker(tmp_path: Path) -> AsyncIterator[LocalCluster]:
    """One node of this test's own, to kill, freeze and restart."""
    async with LocalCluster(data=tmp_path / "kafka") as cluster:
        yield cluster


@pytest.fixture(scope="module")
def three_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Three nodes for the tests of one file; who kills one restarts it."""
    cluster = LocalCluster(data=tmp_path_factory.mktemp("kafka3"), nodes=3)
    asyncio.run(cluster.start())
    yield cluster
    asyncio.run(cluster.stop())
