"""What a log cannot tell by itself: what producers were told, what devices hold, what readers saw, who stalled.

A test writes it down while it goes on, one JSON object a line, and hands it to the checker at the end.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import TypeAlias

from broker_topics.errors import ConfigError

OUTCOMES = ("accepted", "given_back", "discarded")


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledged:
    """A broker said that it has an update, and where."""

    client_id: str
    incarnation: int
    sequence: int
    crc: int
    partition: int
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """A device holds the fate of an update as known: accepted, given_back (into its residual) or discarded."""

    client_id: str
    incarnation: int
    sequence: int
    crc: int
    outcome: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A reader took a record for official, hash as hex; the lines of one reader stand in the order of seeing."""

    reader: str
    height: int
    hash: str
    version: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stall:
    """Something made no progress for so long after a fault had ended, though it had something to do."""

    what: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """The most that a process took, and what it may take."""

    process: str
    peak_bytes: int
    limit_bytes: int


Item: TypeAlias = Acknowledged | Settled | Seen | Stall | Memory

_KINDS: dict[str, type[Item]] = {kind.__name__.lower(): kind for kind in (Acknowledged, Settled, Seen, Stall, Memory)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that was written down."""

    acknowledged: tuple[Acknowledged, ...] = ()
    settled: tuple[Settled, ...] = ()
    seen: tuple[Seen, ...] = ()
    stalls: tuple[Stall, ...] = ()
    memory: tuple[Memory, ...] = ()

    @classmethod
    def of(cls, items: Iterable[Item]) -> "Evidence":
        """Sort items by their kinds; the order within a kind stays."""
        found = list(items)
        return cls(
            acknowledged=tuple(item for item in found if isinstance(item, Acknowledged)),
            settled=tuple(item for item in found if isinstance(item, Settled)),
            seen=tuple(item for item in found if isinstance(item, Seen)),
            stalls=tuple(item for item in found if isinstance(item, Stall)),
            memory=tuple(item for item in found if isinstance(item, Memory)),
        )


def to_line(item: Item) -> str:
    """One item as a line of JSON, without its end.

    >>> to_line(Stall(what="partition 3", seconds=2.5))
    '{"kind": "stall", "what": "partition 3", "seconds": 2.5}'
    """
    return json.dumps({"kind": type(item).__name__.lower(), **asdict(item)})


def from_lines(lines: Iterable[str]) -> Iterator[Item]:
    """Read what `to_line` wrote; a last line without its end is one that a kill cut short, and is left out.

    Raises:  ConfigError: a line is no evidence.
    """
    for number, line in enumerate(lines, 1):
        if not line.endswith("\n"):
            return
        if line.strip():
            yield _item(number, line)


def _item(number: int, line: str) -> Item:
    try:
        row = json.loads(line)
        item = _KINDS[row.pop("kind")](**row)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        kinds = ", ".join(_KINDS)
        raise ConfigError(f"line {number} of the evidence is none of {kinds}: {error!r}") from error
    if isinstance(item, Settled) and item.outcome not in OUTCOMES:
        raise ConfigError(f"line {number} of the evidence: outcome {item.outcome!r} is none of {', '.join(OUTCOMES)}")
    return item
