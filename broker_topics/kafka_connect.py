"""Connecting to Kafka, and the true cause when that fails: aiokafka itself only says "unable to bootstrap"."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any, Self

from aiokafka.client import AIOKafkaClient
from aiokafka.conn import create_conn
from aiokafka.protocol.metadata import MetadataRequest

from broker_topics.errors import BusError, ConfigError, HeadwaterError
from broker_topics.kafka_errors import LIBRARY_ERRORS, HungUpError, connection_error
from broker_topics.settings import ConnectionSettings

CLOSE_S = 3.0
"""How long closing one client may take."""

_PROBE_S = 10.0
_HUNG_UP_PAUSE_S = 0.5
_NOBODY_PAUSE_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """What every aiokafka client is made from; certificates and password are read once."""

    settings: ConnectionSettings
    security: dict[str, Any] = field(repr=False)

    @classmethod
    def of(cls, settings: ConnectionSettings) -> Self:
        """Read certificate and password files; raises ConfigError where one is wrong."""
        security: dict[str, Any] = {"security_protocol": settings.security_protocol}
        if context := settings.tls_context():
            security["ssl_context"] = context
        if settings.user:
            security |= {
                "sasl_mechanism": "SCRAM-SHA-512",
                "sasl_plain_username": settings.user,
                "sasl_plain_password": settings.secret(),
            }
        return cls(settings=settings, security=security)

    @property
    def timeout_s(self) -> float:
        """How long one operation may take."""
        return self.settings.timeout_s

    @property
    def options(self) -> dict[str, Any]:
        """Arguments that AIOKafkaClient, -Producer and -Consumer have in common."""
        return {
            "bootstrap_servers": self.settings.bootstrap_servers,
            "client_id": self.settings.client_id,
            # Two attempts fit into one operation.
            "request_timeout_ms": int(self.timeout_s * 500),
            **self.security,
        }

    async def open(self, starting: Awaitable[object]) -> None:
        """Await a client's own start within the time-out; a failure is raised with its true cause."""
        try:
            async with asyncio.timeout(self.timeout_s):
                await starting
        except LIBRARY_ERRORS as error:
            raise await self.true_cause(error) from error

    async def true_cause(self, error: BaseException) -> HeadwaterError:
        """Connect once more by hand, to every bootstrap address, and say what is wrong."""
        causes = await asyncio.gather(*(self._probe(address) for address in self.settings.bootstrap_servers))
        for cause in causes:
            if isinstance(cause, ConfigError):
                return cause
        return next((cause for cause in causes if cause), BusError(f"the connection failed: {error}; try again"))

    async def _probe(self, address: str) -> HeadwaterError | None:
        found = await self._probe_once(address)
        if isinstance(found, HungUpError):
            # A broker that is going down hangs up once and is gone; a listener that wants something else does it again.
            await asyncio.sleep(_HUNG_UP_PAUSE_S)
            again = await self._probe_once(address)
            return ConfigError(str(again)) if isinstance(again, HungUpError) else again
        return found

    async def _probe_once(self, address: str) -> HeadwaterError | None:
        settings, (host, _, port) = self.settings, address.rpartition(":")
        try:
            async with asyncio.timeout(min(self.timeout_s, _PROBE_S)):
                connection = await create_conn(
                    host.strip("[]"),
                    int(port),
                    client_id=settings.client_id,
                    request_timeout_ms=int(self.timeout_s * 500),
                    **self.security,
                )
                try:
                    await connection.send(MetadataRequest([]))
                finally:
                    connection.close()
        except LIBRARY_ERRORS as error:
            return connection_error(error, address, encrypted=settings.encrypted, user=settings.user)
        except ValueError as error:
            # Raised by aiokafka's SCRAM when the broker cannot prove that it knows the password.
            return ConfigError(f"{address}: the password exchange failed: {error}")
        return None


async def make_client(connection: Connection) -> AIOKafkaClient:
    """A plain client that has met the cluster; raises ConfigError or BusError with the true cause."""
    client = AIOKafkaClient(**connection.options)
    try:
        await connection.open(client.bootstrap())
        async with asyncio.timeout(connection.timeout_s):
            if not await client.ready(await first_node(client)):
                brokers = ", ".join(f"{b.host}:{b.port}" for b in client.cluster.brokers())
                raise BusError(f"the broker says it is at {brokers}, which cannot be reached; see advertised.listeners")
    except TimeoutError as error:
        await quietly(client.close())
        raise BusError(
            "the broker's advertised address does not answer, or the cluster lists no broker at the moment"
        ) from error
    except BaseException:
        await quietly(client.close())
        raise
    return client


async def first_node(client: AIOKafkaClient) -> int:
    """A node of the cluster; waits while it lists none, as one that was frozen or restarted does for a moment."""
    while (node := client.get_random_node()) is None:
        await asyncio.sleep(_NOBODY_PAUSE_S)
        await client.force_metadata_update()
    found: int = node
    return found


async def quietly(*closings: Awaitable[object], within_s: float = CLOSE_S) -> None:
    """Await the ends of a client that nobody needs any more, one after the other: in time, whatever they say.

    Each runs as a task of its own: with the broker down, a consumer's stop() ends in the CancelledError of one of its
    own fetches, which must not pass for ours.
    """
    for closing in closings:
        task = asyncio.ensure_future(closing)
        done, _ = await asyncio.wait({task}, timeout=within_s)
        if not done:
            task.cancel()
        elif not task.cancelled():
            task.exception()
