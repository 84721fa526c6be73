"""Asks a broker which brokers live, with one Metadata request on the wire: an open port is not yet a broker."""

import asyncio
import struct
from collections.abc import Collection

_METADATA, _VERSION = 3, 4
_REQUEST = struct.pack(">hhih", _METADATA, _VERSION, 1, -1) + struct.pack(">i?", 0, False)
"""Header (api, version, correlation, no client id), then: no topics, create none."""

_POLL_S = 0.1


async def listed_brokers(port: int, *, host: str = "127.0.0.1", timeout_s: float = 2.0) -> frozenset[int]:
    """Node ids of the live brokers that the one at `port` (a plain listener) lists; empty when it does not answer."""
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(struct.pack(">i", len(_REQUEST)) + _REQUEST)
                (size,) = struct.unpack(">i", await reader.readexactly(4))
                return _node_ids(await reader.readexactly(size))
            finally:
                writer.close()
    except (OSError, EOFError, TimeoutError, struct.error):
        return frozenset()


async def wait_listed(ports: Collection[int], nodes: Collection[int]) -> None:
    """Return once the broker at every port lists all nodes; polls for ever, so put it under a deadline."""
    for port in ports:
        while not frozenset(nodes) <= await listed_brokers(port):  # noqa: ASYNC110 - nobody can wake us
            await asyncio.sleep(_POLL_S)


def _node_ids(response: bytes) -> frozenset[int]:
    """Read node id, host, port and rack of each broker after correlation id and throttle time."""
    (count,) = struct.unpack_from(">i", response, 8)
    at, found = 12, set()
    for _ in range(count):
        node, host = struct.unpack_from(">ih", response, at)
        at += 6 + host + 4
        (rack,) = struct.unpack_from(">h", response, at)
        at += 2 + max(rack, 0)
        found.add(node)
    return frozenset(found)
