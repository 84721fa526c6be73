"""Takes part in the election over a Lease of the Kubernetes API, and says when this process leads and when no more."""

import asyncio
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from secrets import token_hex
from typing import TYPE_CHECKING, Protocol

from aggregator.leadership.election import (
    Conflict,
    Due,
    Elector,
    Event,
    Failed,
    Lease,
    Read,
    Seen,
    StepDown,
    Terms,
    Wait,
    Write,
    Written,
)
from broker_topics.errors import ConfigError, LostRaceError, ToolMissingError
from monitoring.logs import get_logger
from monitoring.metrics import Metrics

if TYPE_CHECKING:
    from lightkube import AsyncClient
    from lightkube.resources.coordination_v1 import Lease as LeaseResource

_RELEASE_S = 2.0

log = get_logger("election")


def clock_s() -> float:
    """Seconds that go on while the process is stopped and, where the system can tell, while the machine sleeps."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def utc_now() -> datetime:
    """What people read in the Lease; nothing is decided by it."""
    return datetime.now(UTC)


def own_identity() -> str:
    """The machine or pod, and a random word: never that of a process which was here before."""
    return f"{socket.gethostname()}_{token_hex(4)}"


class LeaseLostError(LostRaceError):
    """Whoever led by a Lease may not any more; the process must start again."""


class ConflictError(Exception):
    """The API server holds another version than the write named."""


class LeaseStore(Protocol):
    """One Lease, wherever it is kept; each call may raise anything when there is no answer that can be used."""

    async def read(self) -> Lease | None:
        """The Lease as it is; None if there is none."""

    async def write(self, lease: Lease) -> Lease:
        """Create or replace it; raises ConflictError where another version is there, or none."""

    async def close(self) -> None:
        """Give up the connection."""


class KubernetesLease:
    """A Lease of the cluster that this pod runs in, or that KUBECONFIG names.

    Raises:  ToolMissingError, ConfigError: there is no client or no cluster.
    """

    def __init__(self, name: str, namespace: str = "", now: Callable[[], datetime] = utc_now) -> None:
        self.name, self._now = name, now
        self._client = _client(namespace)
        self.namespace: str = self._client.namespace
        self._acquired: datetime | None = None
        self._transitions = -1

    async def read(self) -> Lease | None:
        """The Lease as it is; None if there is none."""
        from lightkube import ApiError
        from lightkube.resources.coordination_v1 import Lease as Resource

        try:
            return _from(await self._client.get(Resource, self.name))
        except ApiError as error:
            if error.response.status_code == HTTPStatus.NOT_FOUND:
                return None
            raise

    async def write(self, lease: Lease) -> Lease:
        """Create or replace it; raises ConflictError where another version is there, or none."""
        from lightkube import ApiError

        resource = self._resource(lease)
        try:
            if lease.version:
                return _from(await self._client.replace(resource))
            return _from(await self._client.create(resource))
        except ApiError as error:
            gone = lease.version and error.response.status_code == HTTPStatus.NOT_FOUND
            if gone or error.response.status_code == HTTPStatus.CONFLICT:
                raise ConflictError from error
            raise

    def _resource(self, lease: Lease) -> "LeaseResource":
        from lightkube.models.coordination_v1 import LeaseSpec
        from lightkube.models.meta_v1 import ObjectMeta
        from lightkube.resources.coordination_v1 import Lease as Resource

        # The API server takes six decimals and no fewer; on a whole second the client would write none.
        now = self._now()
        now = now.replace(microsecond=now.microsecond or 1)
        if self._acquired is None or lease.transitions != self._transitions:
            self._acquired, self._transitions = now, lease.transitions
        return Resource(
            metadata=ObjectMeta(name=self.name, namespace=self.namespace, resourceVersion=lease.version or None),
            spec=LeaseSpec(
                holderIdentity=lease.holder,
                leaseDurationSeconds=lease.duration_s,
                leaseTransitions=lease.transitions,
                acquireTime=self._acquired,
                renewTime=now,
            ),
        )

    async def close(self) -> None:
        """Give up the connection."""
        await self._client.close()


def _client(namespace: str) -> "AsyncClient":
    try:
        from lightkube import AsyncClient
        from lightkube.core.exceptions import ConfigError as NoClusterError
    except ImportError as error:
        raise ToolMissingError("election by a Lease needs: pip install 'headwater[kubernetes]'") from error
    try:
        return AsyncClient(namespace=namespace or None)
    except (NoClusterError, OSError, KeyError, ValueError) as error:
        raise ConfigError(
            f"HEADWATER_LEASE_NAME is set, but there is no Kubernetes cluster to ask: {error}. Run in a pod whose "
            "service account token is mounted, or set KUBECONFIG"
        ) from error


def _from(resource: "LeaseResource") -> Lease:
    spec, metadata = resource.spec, resource.metadata
    return Lease(
        holder=(spec.holderIdentity if spec else "") or "",
        duration_s=(spec.leaseDurationSeconds if spec else 0) or 0,
        transitions=(spec.leaseTransitions if spec else 0) or 0,
        version=(metadata.resourceVersion if metadata else "") or "",
    )


class Election(Protocol):
    """What decides that this process leads."""

    async def run(self, elected: asyncio.Event) -> None:
        """Set `elected` once this process leads; raises LostRaceError when it may no longer. Never returns."""

    async def release(self) -> None:
        """End in order: whoever led leads no more."""


@dataclass(slots=True)
class Told:
    """No election: this process leads as soon as somebody says so, and for ever."""

    word: asyncio.Event

    async def run(self, elected: asyncio.Event) -> None:
        """Wait for the word."""
        await self.word.wait()
        elected.set()
        await asyncio.Event().wait()

    async def release(self) -> None:
        """Nobody waits for it."""


def at_once() -> Told:
    """Lead without asking anybody; the chain keeps two of them harmless."""
    word = asyncio.Event()
    word.set()
    return Told(word)


@dataclass(slots=True)
class LeaseElection:
    """One contender's shell: performs what the elector asks for, each request within a time limit."""

    store: LeaseStore
    terms: Terms
    metrics: Metrics
    identity: str = field(default_factory=own_identity)
    clock_s: Callable[[], float] = clock_s
    _elector: Elector = field(init=False)
    _reasons: dict[type[Read | Write], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._elector = Elector(self.identity, self.terms)

    async def run(self, elected: asyncio.Event) -> None:
        """Contend, set `elected` once this process leads, and hold on to the Lease; never returns.

        Raises:  LeaseLostError: this process led and may not any more.
        """
        event: Event = Due()
        while True:
            effect = self._elector.step(event, self.clock_s())
            if self._elector.leading and not elected.is_set():
                log.info("lease_acquired", identity=self.identity)
                elected.set()
            match effect:
                case StepDown(reason):
                    log.error("lease_lost", identity=self.identity, reason=reason)
                    raise LeaseLostError(
                        f"this aggregator gave up the Lease: {reason}; nothing is lost. Another one takes over, and "
                        "this one may start again as its standby"
                    )
                case Wait(until_s):
                    await asyncio.sleep(max(0.0, until_s - self.clock_s()))
                    event = Due()
                case Read() | Write():
                    event = await self._ask(effect)

    async def release(self) -> None:
        """Say that this process leads no more, if it does, so that a standby need not wait; then hang up."""
        lease = self._elector.release()
        if lease is not None:
            with suppress(Exception):
                async with asyncio.timeout(_RELEASE_S):
                    await self.store.write(lease)
                    log.info("lease_released", identity=self.identity)
        with suppress(Exception):
            await self.store.close()

    async def _ask(self, effect: Read | Write) -> Event:
        """One request, over at the latest when a leader that hears nothing must step down."""
        limit_s = self.terms.request_s
        if self._elector.leading:
            limit_s = min(limit_s, self._elector.deadline_s - self.clock_s())
        self.metrics.lease_requests_total.inc()
        try:
            async with asyncio.timeout(limit_s):
                answer = await self._answer(effect)
        except ConflictError:
            return Conflict()
        except Exception as error:  # whatever a client raises: only an answer counts
            self._failed(effect, error)
            return Failed()
        self._reasons.pop(type(effect), None)
        return answer

    async def _answer(self, effect: Read | Write) -> Event:
        if isinstance(effect, Write):
            return Written(await self.store.write(effect.lease))
        return Seen(await self.store.read())

    def _failed(self, effect: Read | Write, error: Exception) -> None:
        """Count it; say it once for each reason: it may stay so for long, of writes alone where a right is missing."""
        self.metrics.lease_failures_total.inc()
        reason = f"{type(error).__name__}: {error}".rstrip(": ")
        if reason != self._reasons.get(type(effect)):
            self._reasons[type(effect)] = reason
            log.warning("lease_unreachable", reason=reason)
