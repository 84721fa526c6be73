"""What was checked of each invariant, how much of it, and what was found broken."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from broker_topics.errors import ExitCode

_EXAMPLES = 50
"""Violations of one invariant that are told in words; further ones are counted."""


class Invariant(StrEnum):
    """The promises, by the names under which they are known."""

    ONCE = "I1"
    CHAIN = "I2"
    REPLAY = "I3"
    SETTLED = "I4"
    STALENESS = "I5"
    ACCOUNT = "I6"
    STALL = "I7"
    MEMORY = "I8"
    FORWARD = "I9"

    @property
    def promise(self) -> str:
        """The promise in one line."""
        return _PROMISES[self]


_PROMISES: Mapping[Invariant, str] = {
    Invariant.ONCE: "every accepted update is in exactly one record",
    Invariant.CHAIN: "one gapless chain, each record naming its parent's hash",
    Invariant.REPLAY: "replay from every retained keyframe gives the same bytes",
    Invariant.SETTLED: "what was acknowledged is settled, and what devices hold as settled is in the chain",
    Invariant.STALENESS: "no update was applied beyond max_staleness",
    Invariant.ACCOUNT: "of every partition, received = applied + refused",
    Invariant.STALL: "no partition stalls more than 60 s after a fault ends",
    Invariant.MEMORY: "memory stays within its bound",
    Invariant.FORWARD: "a reader never sees a version and later a lower one",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One invariant: what was looked at and how often, what was broken; `examples` are the first of `violations`.

    needs: what is missing to check it, "" where it was checked.
    """

    invariant: Invariant
    checked: Mapping[str, int]
    violations: int
    examples: tuple[str, ...]
    needs: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The result for one task.

    height, version: of the newest official record; -1 where the chain has no beginning. head: its hash.
    partitions: of each input partition, control last: what it received and what became of that.
    exit_code: 0 if all holds; 76 if all that is broken is that acknowledged data is gone; else 70.
    """

    task: str
    height: int
    version: int
    head: str
    checks: tuple[Check, ...]
    partitions: tuple[Mapping[str, int], ...]
    notes: tuple[str, ...]
    exit_code: ExitCode

    @property
    def holds(self) -> bool:
        """Whether nothing is broken."""
        return self.exit_code is ExitCode.DONE

    @property
    def violations(self) -> list[str]:
        """Everything broken, in words that begin with the invariant."""
        return [f"{check.invariant}: {what}" for check in self.checks for what in check.examples]

    def as_row(self) -> dict[str, Any]:
        """The verdict for JSON."""
        return {
            "task": self.task,
            "holds": self.holds,
            "exit_code": int(self.exit_code),
            "height": self.height,
            "version": self.version,
            "chain_head": self.head,
            "checks": [
                {
                    "invariant": check.invariant.value,
                    "promise": check.invariant.promise,
                    "checked": dict(check.checked),
                    "violations": check.violations,
                    "examples": list(check.examples),
                    "needs": check.needs,
                }
                for check in self.checks
            ],
            "partitions": [dict(partition) for partition in self.partitions],
            "notes": list(self.notes),
        }


@dataclass(slots=True)
class Book:
    """Collects what the rules find; `gone` counts violations that say only that acknowledged data is not there."""

    checked: dict[Invariant, Counter[str]] = field(default_factory=lambda: {one: Counter() for one in Invariant})
    examples: dict[Invariant, list[str]] = field(default_factory=lambda: {one: [] for one in Invariant})
    found: Counter[Invariant] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    gone: int = 0

    def saw(self, invariant: Invariant, what: str, count: int = 1) -> None:
        """Count something that was looked at."""
        if count:
            self.checked[invariant][what] += count

    def broken(self, invariant: Invariant, what: str, *, gone: bool = False) -> None:
        """Note a violation."""
        self.found[invariant] += 1
        self.gone += gone
        if len(self.examples[invariant]) < _EXAMPLES:
            self.examples[invariant].append(what)

    def checks(self, needs: Mapping[Invariant, str]) -> tuple[Check, ...]:
        """The result of each invariant; `needs` names what was missing to check some at all."""
        return tuple(
            Check(
                invariant=one,
                checked=dict(self.checked[one]),
                violations=self.found[one],
                examples=tuple(self.examples[one]),
                needs=needs.get(one, ""),
            )
            for one in Invariant
        )

    @property
    def exit_code(self) -> ExitCode:
        """How a process that found this should end."""
        if not self.found.total():
            return ExitCode.DONE
        return ExitCode.INPUTS_LOST if self.gone == self.found.total() else ExitCode.INTERNAL
