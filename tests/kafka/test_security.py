"""Secured listeners of a real broker: right settings pass, wrong ones are told the true cause."""

import asyncio
import time
from pathlib import Path

import pytest
import trustme

from broker_topics.bus import Position
from broker_topics.errors import BusError, ConfigError, HeadwaterError
from broker_topics.kafka import KafkaBus
from broker_topics.local.cluster import LocalCluster
from broker_topics.settings import ConnectionSettings
from broker_topics.topics import Topic, topic_name, topic_specs
from tests.contract.bus_contract import read
from tests.kafka.acls import allow
from tests.kafka.certificates import Authority, Identity


async def refused(settings: ConnectionSettings) -> HeadwaterError:
    """The error that starting with these settings ends in, within seconds."""
    began = time.monotonic()
    with pytest.raises(HeadwaterError) as caught:
        async with KafkaBus(settings):
            pass
    assert time.monotonic() - began < 10
    assert "bootstrap from" not in str(caught.value)
    return caught.value


async def round_trip(settings: ConnectionSettings, task: str) -> None:
    """Create, send and read."""
    commits = topic_name(task, Topic.COMMITS)
    async with KafkaBus(settings) as bus:
        await bus.create(topic_specs(task, replication=1))
        assert await bus.send(commits, key=None, value=b"hello") == Position(0, 0)
        assert (await read(bus.reader(commits, {0: 0}), 1))[0].value == b"hello"


@pytest.fixture
def scram(broker: LocalCluster, authority: Authority) -> ConnectionSettings:
    return ConnectionSettings(
        bootstrap=broker.address("SCRAM"),
        tls_ca=str(authority.ca),
        user="watch",
        password="right-password",
        timeout_s=8,
    )


async def test_tls_with_the_brokers_authority_works(broker: LocalCluster, authority: Authority, task_name: str) -> None:
    await round_trip(ConnectionSettings(bootstrap=broker.address("TLS"), tls_ca=str(authority.ca)), task_name)


async def test_mtls_with_a_device_certificate_works(
    broker: LocalCluster, authority: Authority, device_identity: Identity, task_name: str
) -> None:
    settings = ConnectionSettings(
        bootstrap=broker.address("MTLS"),
        tls_ca=str(authority.ca),
        tls_certificate=str(device_identity.certificate),
        tls_key=str(device_identity.key),
    )
    await round_trip(settings, task_name)


async def test_a_password_over_tls_works_also_from_a_settings_file(
    broker: LocalCluster, authority: Authority, tmp_path: Path, task_name: str
) -> None:
    secret, file = tmp_path / "password", tmp_path / "headwater.toml"
    secret.write_text("right-password\n")
    file.write_text(
        f'[connection]\nbootstrap = "{broker.address("SCRAM")}"\ntls_ca = "{authority.ca}"\nuser = "watch"\n'
    )
    environ = {"HEADWATER_CONFIG": str(file), "HEADWATER_PASSWORD_FILE": str(secret)}
    await round_trip(ConnectionSettings.load(environ), task_name)


async def test_a_wrong_password_is_named(scram: ConnectionSettings, authority: Authority) -> None:
    wrong = ConnectionSettings(
        bootstrap=scram.bootstrap, tls_ca=str(authority.ca), user="watch", password="wrong", timeout_s=8
    )
    error = await refused(wrong)
    assert isinstance(error, ConfigError)
    assert "wrong user or password for user 'watch'" in str(error)
    assert "wrong'" not in str(error).replace("'watch'", "")


async def test_a_missing_password_is_named(scram: ConnectionSettings, authority: Authority) -> None:
    error = await refused(ConnectionSettings(bootstrap=scram.bootstrap, tls_ca=str(authority.ca), timeout_s=8))
    assert isinstance(error, ConfigError)
    assert "a password (user, password)" in str(error)


async def test_a_password_for_a_listener_that_takes_none_is_named(broker: LocalCluster, authority: Authority) -> None:
    error = await refused(
        ConnectionSettings(
            bootstrap=broker.address("TLS"), tls_ca=str(authority.ca), user="watch", password="x", timeout_s=8
        )
    )
    assert isinstance(error, ConfigError)
    assert "takes no SCRAM-SHA-512 password" in str(error)


async def test_a_broker_whose_authority_we_do_not_trust_is_named(broker: LocalCluster, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(other)
    for settings in (
        ConnectionSettings(bootstrap=broker.address("TLS"), tls_ca=str(other), timeout_s=8),
        ConnectionSettings(bootstrap=broker.address("TLS"), tls=True, timeout_s=8),
    ):
        error = await refused(settings)
        assert isinstance(error, ConfigError)
        assert "the broker's certificate is not trusted" in str(error)
        assert "tls_ca" in str(error)


async def test_a_missing_client_certificate_is_named(broker: LocalCluster, authority: Authority) -> None:
    error = await refused(ConnectionSettings(bootstrap=broker.address("MTLS"), tls_ca=str(authority.ca), timeout_s=8))
    assert isinstance(error, ConfigError)
    assert "tls_certificate" in str(error)


async def test_a_client_certificate_of_another_authority_is_named(
    broker: LocalCluster, authority: Authority, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path).device("w-17")
    error = await refused(
        ConnectionSettings(
            bootstrap=broker.address("MTLS"),
            tls_ca=str(authority.ca),
            tls_certificate=str(stranger.certificate),
            tls_key=str(stranger.key),
            timeout_s=8,
        )
    )
    assert isinstance(error, ConfigError)
    assert "client" in str(error)
    assert "certificate" in str(error)


async def test_tls_to_a_plain_listener_is_named(broker: LocalCluster, authority: Authority) -> None:
    error = await refused(ConnectionSettings(bootstrap=broker.bootstrap, tls_ca=str(authority.ca), timeout_s=8))
    assert isinstance(error, ConfigError)
    assert "is it the TLS port?" in str(error)


async def test_no_tls_to_a_tls_listener_is_named(broker: LocalCluster) -> None:
    error = await refused(ConnectionSettings(bootstrap=broker.address("TLS"), timeout_s=8))
    assert isinstance(error, ConfigError)
    assert "TLS (tls, tls_ca)" in str(error)


async def test_a_port_where_nothing_listens_is_worth_another_try() -> None:
    error = await refused(ConnectionSettings(bootstrap="127.0.0.1:9", timeout_s=4))
    assert isinstance(error, BusError)
    assert "127.0.0.1:9: nothing listens there" in str(error)


async def ask_until_refused(bus: KafkaBus, topic: str) -> None:
    while True:
        await bus.end_offsets(topic)


async def test_a_topic_that_the_broker_forbids_is_named_and_hurts_nobody_else(
    broker: LocalCluster, scram: ConnectionSettings, task_name: str
) -> None:
    commits, updates = topic_name(task_name, Topic.COMMITS), topic_name(task_name, Topic.UPDATES)
    async with KafkaBus(ConnectionSettings(bootstrap=broker.bootstrap)) as operator:
        await operator.create(topic_specs(task_name, replication=1))
        await operator.send(commits, key=None, value=b"genesis")
    await allow(broker.bootstrap, [("watch", commits, "Read")])
    stranger = ConnectionSettings(
        bootstrap=scram.bootstrap, tls_ca=scram.tls_ca, user="reader", password="another-password", timeout_s=8
    )
    async with KafkaBus(stranger) as other:
        with pytest.raises(ConfigError, match="access rules forbid it"):
            await asyncio.wait_for(ask_until_refused(other, commits), 10)  # a new rule takes a moment to hold
        with pytest.raises(ConfigError, match="access rules forbid it"):
            await other.reader(commits, {0: 0}).fetch()
    async with KafkaBus(scram) as device:
        assert (await read(device.reader(commits, {0: 0}), 1))[0].value == b"genesis"
        with pytest.raises(ConfigError, match="access rules forbid it"):
            await device.send(commits, key=None, value=b"forged")
        assert await device.send(updates, key=b"w-17", value=b"update") == Position(0, 0)
