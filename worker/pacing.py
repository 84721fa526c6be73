"""When a device trains and sends next: jittered back-off, patience with the chain, shorter work if it is stale."""

from dataclasses import dataclass

import numpy as np

from broker_topics.task import TaskSettings
from worker.events import Train
from worker.state import DeviceState

_PATIENCE_S = 60.0
_LONGEST_PATIENCE_S = 3600.0
_LONGEST_SKIP_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Pauses after failures, from `backoff_initial_s` doubling to `backoff_max_s`; and how long a record may wait."""

    backoff_initial_s: float = 1.0
    backoff_max_s: float = 300.0
    max_age_s: float = 7 * 86_400.0

    def pause_s(self, failures: int, rng: np.random.Generator, longest_s: float = float("inf")) -> float:
        """The pause after `failures` ≥ 1 failed attempts in a row; jittered down to half."""
        pause_s: float = self.backoff_initial_s * 2.0 ** min(failures - 1, 60)
        return min(longest_s, self.backoff_max_s, pause_s) * float(rng.uniform(0.5, 1.0))


@dataclass(slots=True)
class TrainingPace:
    """One training at a time; the next at once after a success, after a growing pause otherwise."""

    limits: Limits
    rng: np.random.Generator
    running: bool = False
    at_s: float = 0.0
    _failures: int = 0
    _skips: int = 0
    _full_s: float = 0.0

    def ended(self, now_s: float, seconds: float) -> None:
        """A training brought work."""
        self.running, self.at_s, self._failures, self._skips = False, now_s, 0, 0
        self._full_s = max(self._full_s, seconds)

    def failed(self, now_s: float) -> None:
        """A training raised, or ended in nonsense."""
        self.running = False
        self._failures += 1
        self.at_s = now_s + self.limits.pause_s(self._failures, self.rng)

    def skipped(self, now_s: float) -> None:
        """The device may not train now; it is asked again within a minute."""
        self.running = False
        self._skips += 1
        self.at_s = now_s + self.limits.pause_s(self._skips, self.rng, _LONGEST_SKIP_S)

    def plan(self, state: DeviceState, settings: TaskSettings) -> Train | None:
        """The next training; None while as much work waits as may."""
        queued = state.queued
        limit = max(1, int(settings.max_local_steps * state.share))
        done = queued.steps if queued else 0
        if done >= limit:
            return None
        deadline_s = settings.local_deadline_s
        if state.share < 1 and self._full_s:
            deadline_s = min(deadline_s or float("inf"), self._full_s * state.share)
        return Train(
            base=queued.base if queued else None,
            start=queued.local if queued else None,
            settings=settings,
            epochs=max(1, round(settings.local_epochs * state.share)),
            deadline_s=deadline_s,
            max_steps=limit - done,
            seed=int(self.rng.integers(2**31)),
        )


@dataclass(slots=True)
class SendingPace:
    """One send at a time; a growing pause after each that failed, and growing patience while the chain is silent."""

    limits: Limits
    rng: np.random.Generator
    running: bool = False
    at_s: float = 0.0
    attempts: int = 0
    retries: int = 0
    _sent_s: float = 0.0
    _failures: int = 0
    _silences: int = 0

    def begin(self) -> None:
        """The bytes go to a producer."""
        self.running = True
        self.attempts += 1
        self.retries += self._failures > 0 or self._silences > 0

    def failed(self, now_s: float) -> None:
        """It is not known whether the log has the bytes."""
        self.running = False
        self._failures += 1
        self.at_s = now_s + self.limits.pause_s(self._failures, self.rng)

    def answered(self, now_s: float) -> None:
        """The log has the bytes; now the chain has its turn."""
        self.running, self._failures, self._sent_s = False, 0, now_s

    def again(self, now_s: float) -> None:
        """Nothing stands in the way of the next send."""
        self.at_s, self._failures = now_s, 0

    def wait_anew(self, now_s: float) -> None:
        """The chain was out of reach, so its silence until now says nothing."""
        self._sent_s = now_s

    def silent(self) -> None:
        """The chain said nothing of a sent update within the device's patience."""
        self._silences += 1

    def settled(self) -> None:
        """The chain has decided."""
        self._silences = 0

    def patient_until_s(self, settings: TaskSettings | None) -> float:
        """When the chain's silence about a sent update becomes a doubt; later each time, to keep the log small."""
        first_s = max(_PATIENCE_S, 6 * settings.flush_deadline_s) if settings else _PATIENCE_S
        patience_s: float = first_s * 2.0 ** min(self._silences, 30)
        return self._sent_s + min(max(first_s, _LONGEST_PATIENCE_S), patience_s)
