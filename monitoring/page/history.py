"""What the fleet page remembers: curves over a whole run, the chain's newest records, each device's habit; all bounded.

No second truth: the observer tells what became official, everything else is sampled from the metrics.
"""

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from broker_topics.errors import InvariantError

_LINKS = 12
_RECENT = 500
_GAP_RATE = 0.3
_PATIENCE = 4.0
_FORGOTTEN_S = 86_400.0

Row = tuple[float | None, ...]


class Series:
    """Rows over a whole run in bounded memory: when the places are taken, every second row is given up.

    A row's first number is its time; rows closer together than the present spacing are not kept.

    >>> curve = Series(places=4)
    >>> kept = [curve.add((float(second), 10.0 * second)) for second in range(7)]
    >>> [row[0] for row in curve.rows]
    [0.0, 2.0, 4.0, 6.0]
    """

    def __init__(self, *, places: int) -> None:
        if places < 2:
            raise InvariantError(f"places {places}: a curve needs at least two")
        self._places = places
        self._spacing_s = 0.0
        self.rows: list[Row] = []

    def add(self, row: Row) -> bool:
        """Append a row with the newest time; whether it was kept."""
        at_s = row[0] or 0.0
        if self.rows and at_s - (self.rows[-1][0] or 0.0) < self._spacing_s:
            return False
        if len(self.rows) == self._places:
            first, last = self.rows[0][0] or 0.0, self.rows[-1][0] or 0.0
            self._spacing_s = 2 * (last - first) / (self._places - 1)
            del self.rows[1::2]
            if at_s - (self.rows[-1][0] or 0.0) < self._spacing_s:
                return False
        self.rows.append(row)
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One official record as a visitor sees it; hashes are hexadecimal, `at_s` is unix seconds.

    passed: inputs that the chain has decided on or passed since the task began.
    """

    height: int
    version: int
    hash: str
    parent: str
    cause: str
    accepted: int
    refused: int
    keyframe: bool
    passed: int
    at_s: float


@dataclass(slots=True)
class Device:
    """One device since this process started; `gap_s` is the running mean between two of its updates, 0 before."""

    updates: int = 0
    refused: int = 0
    gap_s: float = 0.0
    staleness: float = 0.0
    last_s: float = 0.0

    def slowness_s(self, now_s: float) -> float:
        """Its usual gap; a silence counts once it is much longer, or whoever is offline would hide who is slow."""
        return max(self.gap_s, (now_s - self.last_s) / _PATIENCE)


@dataclass(slots=True)
class History:
    """Told by the observer on the event loop, read by server threads.

    places: devices that are kept; where there are more, the slowest stay. parameters: numbers in the model.
    """

    places: int = 1_000
    parameters: int = 0
    _links: "deque[Link]" = field(default_factory=lambda: deque(maxlen=_LINKS))
    _staleness: "deque[int]" = field(default_factory=lambda: deque(maxlen=_RECENT))
    _devices: dict[str, Device] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def official(self, link: Link) -> None:
        """Remember a record that became official."""
        with self._lock:
            self._links.append(link)

    def update(self, client_id: str, *, staleness: int | None, at_s: float) -> None:
        """Count one decided update of a device; a staleness of None was refused. "" is nobody known."""
        if not client_id:
            return
        with self._lock:
            device = self._devices.get(client_id)
            if device is None:
                self._make_room(at_s)
                device = self._devices[client_id] = Device()
            elif staleness is not None and device.updates:
                gap_s = at_s - device.last_s
                device.gap_s += (gap_s - device.gap_s) * (_GAP_RATE if device.gap_s else 1.0)
            device.last_s = at_s
            if staleness is None:
                device.refused += 1
                return
            device.staleness += (staleness - device.staleness) * (_GAP_RATE if device.updates else 1.0)
            device.updates += 1
            self._staleness.append(staleness)

    def _make_room(self, now_s: float) -> None:
        """Keep the slowest `places` of twice as many; whoever was silent for a day has left."""
        if len(self._devices) < 2 * self.places:
            return
        stay = sorted(self._devices.items(), key=lambda item: -item[1].slowness_s(now_s))
        self._devices = dict(stay[: self.places])
        for name in [name for name, device in self._devices.items() if now_s - device.last_s > _FORGOTTEN_S]:
            del self._devices[name]

    def links(self) -> list[dict[str, object]]:
        """The newest records, newest first."""
        with self._lock:
            return [asdict(link) for link in reversed(self._links)]

    def recent_staleness(self) -> tuple[int, int, int] | None:
        """Median, 95th percentile and largest of the newest accepted updates; None before the first."""
        with self._lock:
            values = sorted(self._staleness)
        return _quantiles(values) if values else None

    def slowest(self, k: int, now_s: float) -> list[tuple[str, Device]]:
        """The k devices with the longest gap, or a silence of several times as long; slowest first."""
        with self._lock:
            known = [
                (name, Device(d.updates, d.refused, d.gap_s, d.staleness, d.last_s))
                for name, d in self._devices.items()
                if now_s - d.last_s <= _FORGOTTEN_S
            ]
        return sorted(known, key=lambda item: (-item[1].slowness_s(now_s), item[0]))[:k]


def _quantiles(values: Sequence[int]) -> tuple[int, int, int]:
    last = len(values) - 1
    return values[last // 2], values[round(0.95 * last)], values[last]
