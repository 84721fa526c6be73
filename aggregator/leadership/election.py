"""Who leads, by the rules of a Kubernetes Lease: answers of the API server in, requests and verdicts out.

Pure: time is an argument. The Lease only makes two leaders rare; what keeps two of them harmless is the commit chain.

1. A standby takes a Lease that nobody holds, or whose version it has seen unchanged for the holder's duration. It
   measures that on its own clock, so clocks of machines need not agree.
2. A leader believes in itself until `renew_deadline_s` after it *sent* its last renewal that was accepted. That is less
   than others wait: whether it was cut off, frozen or its API server hangs, it has stepped down before another begins.
3. Every write names the version that it replaces; the API server refuses it if another was quicker.
4. A leader that is not sure whether its write arrived reads before it writes again.
5. Requests that hang, as when one of several API servers dies, leave a leader the time for others: three in all.
6. A Lease that somebody deleted is made again by its holder; others wait as if it were still there.
"""

from dataclasses import dataclass, replace
from typing import Self, assert_never

from broker_topics.errors import InvariantError


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """duration_s: whole seconds that others wait; renew_deadline_s < duration_s; retry_s: from one request to the next.

    request_s: how long one request may take; retry_s + request_s < renew_deadline_s.
    """

    duration_s: int
    renew_deadline_s: float
    retry_s: float
    request_s: float

    @classmethod
    def of(cls, duration_s: int) -> Self:
        """A renewal every sixth of the duration; a leader gives up after two thirds, others begin after the whole."""
        return cls(
            duration_s=duration_s,
            renew_deadline_s=duration_s * 2 / 3,
            retry_s=duration_s / 6,
            request_s=min(2.0, duration_s / 6),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """What the API server holds; `version` is its resourceVersion, empty for one that is to be created.

    holder: identity of the process that leads, empty if it was released. transitions: how often that changed.
    """

    holder: str
    duration_s: int
    transitions: int = 0
    version: str = ""


@dataclass(frozen=True, slots=True)
class Due:
    """The process begins, or the time that was to be waited for has come."""


@dataclass(frozen=True, slots=True)
class Seen:
    """The answer to `Read`; None where there is no such Lease."""

    lease: Lease | None


@dataclass(frozen=True, slots=True)
class Written:
    """The answer to `Write`: the Lease as it is now."""

    lease: Lease


@dataclass(frozen=True, slots=True)
class Conflict:
    """The answer to `Write`: another version is there, or none."""


@dataclass(frozen=True, slots=True)
class Failed:
    """No answer, or none that can be used; a write may have arrived nevertheless."""


Event = Due | Seen | Written | Conflict | Failed


@dataclass(frozen=True, slots=True)
class Read:
    """Ask for the Lease."""


@dataclass(frozen=True, slots=True)
class Write:
    """Create the Lease, or replace the version that it names."""

    lease: Lease


@dataclass(frozen=True, slots=True)
class Wait:
    """Give `Due` at this time, not before."""

    until_s: float


@dataclass(frozen=True, slots=True)
class StepDown:
    """Whoever led must not write any more."""

    reason: str


Effect = Read | Write | Wait | StepDown


class Elector:
    """One contender. Give it `Due`, perform the one effect that `step` returns, give it the answer, and so on.

    leading: whether this process leads; ask `deadline_s` for how long it may believe so without an answer.
    """

    def __init__(self, identity: str, terms: Terms) -> None:
        if not 0 < terms.retry_s < terms.renew_deadline_s < terms.duration_s:
            raise InvariantError("of a Lease's times, retry < renewal deadline < duration")
        if not 0 < terms.request_s < terms.renew_deadline_s - terms.retry_s:
            raise InvariantError("of a Lease's times, retry + request < renewal deadline")
        self.identity, self._terms = identity, terms
        self.leading = False
        self._seen: Lease | None = None
        self._seen_s = 0.0
        self._sure = False
        self._asked_s = 0.0
        self._renewed_s = 0.0

    @property
    def holder(self) -> str:
        """Who holds the Lease as far as is known; empty for nobody."""
        return self._seen.holder if self._seen else ""

    @property
    def deadline_s(self) -> float:
        """When a leader that hears nothing more steps down."""
        return self._renewed_s + self._terms.renew_deadline_s

    def step(self, event: Event, now_s: float) -> Effect:
        """Take in one event; what is to be done next."""
        if isinstance(event, Written):
            self._take(event.lease, now_s)
            self._renewed_s, self.leading, self._sure = self._asked_s, True, True
        if self.leading and now_s >= self.deadline_s:
            return self._down(f"it could not be renewed for {self._terms.renew_deadline_s:.3g} s")
        match event:
            case Due():
                return self._write(now_s) if self.leading and self._sure else self._read(now_s)
            case Seen(lease):
                return self._judge(lease, now_s)
            case Written():
                return Wait(min(self._asked_s + self._terms.retry_s, self.deadline_s))
            case Conflict() | Failed():
                self._sure = False
                return self._later(now_s)
            case _:
                assert_never(event)

    def release(self) -> Lease | None:
        """What a leader writes when it ends in order, so that others need not wait; None for any other."""
        if not self.leading or self._seen is None:
            return None
        self.leading = False
        return replace(self._seen, holder="", duration_s=1)

    def _judge(self, lease: Lease | None, now_s: float) -> Effect:
        if lease is None:
            return self._restore(now_s)
        self._take(lease, now_s)
        self._sure = True
        if lease.holder == self.identity:
            return self._write(now_s)
        if self.leading:
            return self._down(f"{lease.holder or 'nobody'} holds it")
        return self._wait_for(lease, now_s) or self._write(now_s)

    def _restore(self, now_s: float) -> Effect:
        """There is none: make it, unless somebody held it so lately that they may not have noticed."""
        seen = self._seen
        if seen is None:
            return self._write(now_s)
        waiting = None if seen.holder == self.identity else self._wait_for(seen, now_s)
        if waiting is None:
            self._seen = replace(seen, version="")
        return waiting or self._write(now_s)

    def _wait_for(self, lease: Lease, now_s: float) -> Wait | None:
        """Leave it to its holder for now; None once it is free."""
        expires_s = self._seen_s + lease.duration_s
        if not lease.holder or now_s >= expires_s:
            return None
        return Wait(min(now_s + self._terms.retry_s, expires_s))

    def _take(self, lease: Lease, now_s: float) -> None:
        if self._seen is None or self._seen.version != lease.version:
            self._seen, self._seen_s = lease, now_s

    def _read(self, now_s: float) -> Effect:
        self._asked_s = now_s
        return Read()

    def _write(self, now_s: float) -> Effect:
        self._asked_s = now_s
        seen = self._seen or Lease(holder="", duration_s=0)
        new = 0 if seen.holder == self.identity or self._seen is None else 1
        ours = replace(
            seen,
            holder=self.identity,
            duration_s=self._terms.duration_s,
            transitions=seen.transitions + new,
        )
        return Write(ours)

    def _later(self, now_s: float) -> Effect:
        until_s = max(now_s, self._asked_s + self._terms.retry_s)
        return Wait(min(until_s, self.deadline_s) if self.leading else until_s)

    def _down(self, reason: str) -> Effect:
        self.leading = False
        return StepDown(reason)
