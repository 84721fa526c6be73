"""The secured listeners of the local broker let the right ones in and nobody else."""

import asyncio
import ssl

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError

from broker_topics.local.cluster import LocalCluster
from tests.kafka.certificates import Authority, Identity
from tests.kafka.conftest import SCRAM_USERS


def trusting(authority: Authority, identity: Identity | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.ca))
    if identity is not None:
        context.load_cert_chain(identity.certificate, identity.key)
    return context


async def connects(address: str, **settings: object) -> bool:
    producer = AIOKafkaProducer(bootstrap_servers=address, request_timeout_ms=5000, **settings)
    try:
        async with asyncio.timeout(20):
            await producer.start()
    except KafkaConnectionError:
        return False
    finally:
        await producer.stop()
    return True


def scram(user: str, password: str) -> dict[str, object]:
    return {
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": user,
        "sasl_plain_password": password,
    }


async def test_tls_needs_the_broker_s_authority(broker: LocalCluster, authority: Authority) -> None:
    address = broker.address("TLS")
    assert await connects(address, security_protocol="SSL", ssl_context=trusting(authority))
    assert not await connects(address, security_protocol="SSL", ssl_context=ssl.create_default_context())


async def test_mutual_tls_needs_a_certificate_of_the_device(
    broker: LocalCluster, authority: Authority, device_identity: Identity
) -> None:
    address = broker.address("MTLS")
    known = trusting(authority, device_identity)
    assert await connects(address, security_protocol="SSL", ssl_context=known)
    assert not await connects(address, security_protocol="SSL", ssl_context=trusting(authority))


@pytest.mark.parametrize("user", ["watch", "reader"])
async def test_scram_needs_the_right_password(broker: LocalCluster, authority: Authority, user: str) -> None:
    address, context = broker.address("SCRAM"), trusting(authority)
    assert await connects(address, ssl_context=context, **scram(user, SCRAM_USERS[user]))
    assert not await connects(address, ssl_context=context, **scram(user, "wrong"))
