"""A stopped broker's log on disk: cut short as by a power cut, or with batches in it that no broker would take.

Kafka's record batch: base offset i64 · length i32 · leader epoch i32 · magic i8 · CRC-32C u32 over all that follows ·
attributes i16 · last offset delta i32 · two time stamps i64 · producer id i64 · epoch i16 · sequence i32 · count i32.
"""

import struct
import time
from collections.abc import Iterator
from pathlib import Path

from aiokafka.record.util import calc_crc32c

from broker_topics.local.cluster import LocalCluster

_LEADING = struct.Struct(">qi")
_CHECKPOINTS = (
    ".kafka_cleanshutdown",
    "recovery-point-offset-checkpoint",
    "replication-offset-checkpoint",
    "log-start-offset-checkpoint",
)


def log_folder(broker: LocalCluster, topic: str, partition: int = 0, *, node: int = 1) -> Path:
    """Where a node keeps one partition."""
    return Path(broker._data) / f"node-{node}" / "kafka" / f"{topic}-{partition}"


def batches(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(first offset, start, end) of each batch in a segment."""
    start = 0
    while start + _LEADING.size <= len(data):
        first, length = _LEADING.unpack_from(data, start)
        end = start + _LEADING.size + length
        yield first, start, end
        start = end


def cut(folder: Path, end_offset: int) -> None:
    """Make the partition end at `end_offset`, which begins a batch; the broker must be stopped."""
    segment = only_segment(folder)
    data = segment.read_bytes()
    size = next((start for first, start, _ in batches(data) if first >= end_offset), len(data))
    assert size < len(data), "nothing would be cut"
    segment.write_bytes(data[:size])
    forget(folder)


def append(folder: Path, *, payload: bytes, attributes: int, count: int = 1) -> int:
    """Put a batch of any bytes behind the end, with a sound CRC; its first offset."""
    segment = only_segment(folder)
    data = segment.read_bytes()
    first = 0
    for base, start, _ in batches(data):
        first = base + struct.unpack_from(">i", data, start + 23)[0] + 1
    now_ms = int(time.time() * 1000)  # older ones retention would take at the broker's start
    body = struct.pack(">hiqqqhii", attributes, count - 1, now_ms, now_ms, -1, -1, -1, count) + payload
    rest = struct.pack(">ibI", 0, 2, calc_crc32c(body)) + body
    segment.write_bytes(data + _LEADING.pack(first, len(rest)) + rest)
    forget(folder)
    return first


def move(folder: Path, offset: int, to: int) -> None:
    """Let the batch that begins at `offset` say that it begins at `to`, as a flipped bit does: no CRC covers that."""
    segment = only_segment(folder)
    data = bytearray(segment.read_bytes())
    (start,) = [start for first, start, _ in batches(bytes(data)) if first == offset]
    struct.pack_into(">q", data, start, to)
    segment.write_bytes(data)


def only_segment(folder: Path) -> Path:
    """The one segment of a small partition."""
    (segment,) = folder.glob("*.log")
    return segment


def forget(folder: Path) -> None:
    """Take away what the broker derived from the segment, so that it looks at the segment itself."""
    for pattern in ("*.index", "*.timeindex", "*.snapshot", "*.txnindex", "leader-epoch-checkpoint"):
        for path in folder.glob(pattern):
            path.unlink()
    for name in _CHECKPOINTS:
        (folder.parent / name).unlink(missing_ok=True)
