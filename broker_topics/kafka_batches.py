"""Where record batches say that they lie. Kafka's CRC leaves the base offset out: a flipped bit moves a whole batch.

A broker then gives the moved batch to whoever asks for anything between its true place and the one that it names, and
a client that believes it goes past all in between. Here a fetch answer is read by what each batch covers instead.

Record batch: base offset i64 · length i32 · leader epoch i32 · magic i8 · CRC u32 over all that follows · attributes
i16 · last offset delta i32 · …
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka.record.memory_records import MemoryRecords

from broker_topics.bus import BusRecord
from broker_topics.kafka_errors import is_unreadable

_LEADING = struct.Struct(">qi")
_REST = struct.Struct(">hi")
_ATTRIBUTES = 21
_CONTROL = 0x20
_WHOLE = _ATTRIBUTES + _REST.size


@dataclass(frozen=True, slots=True)
class Batch:
    """The offsets `first` to `end` - 1, as one batch's header has them, and its bytes; `control` is Kafka's own."""

    first: int
    end: int
    control: bool = False
    data: bytes = b""


def batches_in(data: bytes) -> list[Batch]:
    """The whole batches of a fetch answer, in the order in which they lie."""
    found, start = list[Batch](), 0
    while start + _WHOLE <= len(data):
        first, length = _LEADING.unpack_from(data, start)
        attributes, delta = _REST.unpack_from(data, start + _ATTRIBUTES)
        stop = start + _LEADING.size + length
        if stop > len(data) or length < _WHOLE - _LEADING.size or delta < 0:
            break
        found.append(Batch(first, first + delta + 1, bool(attributes & _CONTROL), data[start:stop]))
        start = stop
    return found


def misplaced_until(batches: Sequence[Batch], position: int, log_end: int) -> int:
    """Up to where a log that keeps every offset holds at `position` what no batch says to be there; `position` if not.

    Each batch begins where the one before it ends. The length of the first, which the CRC covers, and the batch behind
    it tell whether it is the wrong one itself, or behind one that is not given because it says to lie further back.

    Args:    batches: what a fetch at `position` gave. log_end: the offset that the next record will get.
    """
    if not batches or any(batch.first <= position < batch.end for batch in batches):
        return position
    wrong = batches[0]
    behind = batches[1].first if len(batches) > 1 else log_end
    own_end = position + wrong.end - wrong.first
    moved = behind == own_end or not position < wrong.first < log_end
    return min(log_end, own_end if moved else wrong.first)


def read(batches: Sequence[Batch], position: int, log_end: int) -> tuple[list[tuple[int, Any]], int]:
    """The records from `position` on as (offset, record), and the position behind; None for what cannot be read."""
    at = misplaced_until(batches, position, log_end)
    found: list[tuple[int, Any]] = [(offset, None) for offset in range(position, at)]
    for batch in batches:
        if batch.first <= at < batch.end:
            if not batch.control:
                found += _records(batch, at)
            at = batch.end
    return found, at


def bus_record(topic: str, partition: int, offset: int, got: Any = None) -> BusRecord:
    """One of aiokafka's records as the protocol has it; without one, what stands for something that cannot be read."""
    return BusRecord(
        topic=topic,
        partition=partition,
        offset=offset,
        key=got.key if got is not None else None,
        value=got.value if got is not None else None,
        timestamp_ms=got.timestamp if got is not None else -1,
        readable=got is not None,
    )


def _records(batch: Batch, position: int) -> list[tuple[int, Any]]:
    try:
        opened = MemoryRecords(batch.data).next_batch()
        if opened is not None and opened.validate_crc():
            return [(record.offset, record) for record in opened if record.offset >= position]
    except Exception as error:
        if not is_unreadable(error):
            raise
    return [(offset, None) for offset in range(position, batch.end)]
