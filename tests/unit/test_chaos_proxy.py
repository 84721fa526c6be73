"""The proxy that faults come from: it rewrites nothing, and does to a connection what it is told to do."""

import asyncio
import struct
from collections.abc import AsyncIterator

import numpy as np
import pytest

from tests.chaos.proxy import Line, Proxy

PRODUCE, FETCH = 0, 1


def request(api: int, body: bytes) -> bytes:
    return struct.pack(">ih", 2 + len(body), api) + body


class Broker:
    """Answers every request with its own bytes; `received` is all that came."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.closed = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 20):
            self.received += data
            writer.write(data)
        writer.close()
        self.closed.set()


@pytest.fixture
async def broker() -> Broker:
    return Broker()


@pytest.fixture
async def proxy(broker: Broker) -> AsyncIterator[Proxy]:
    server = await asyncio.start_server(broker.serve, "127.0.0.1", 0)
    async with Proxy(np.random.default_rng(3)) as proxy:
        proxy.target = server.sockets[0].getsockname()[1]
        yield proxy
    server.close()


async def connect(proxy: Proxy) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", proxy.port)


async def test_bytes_pass_unchanged_also_late_and_slowly(proxy: Proxy) -> None:
    proxy.line = Line(latency_s=0.01, bytes_per_s=10_000_000.0)
    reader, writer = await connect(proxy)
    sent = b"".join(request(api, bytes([api]) * 70_000) for api in (PRODUCE, FETCH, PRODUCE))
    writer.write(sent)
    assert await asyncio.wait_for(reader.readexactly(len(sent)), 10) == sent
    writer.close()


async def test_a_reset_takes_a_produce_request_by_half_or_its_answer_and_lets_others_pass(
    proxy: Proxy, broker: Broker
) -> None:
    proxy.line = Line(resets=1.0)
    fetch, produce = request(FETCH, b"f" * 10), request(PRODUCE, b"p" * 100)
    arrived = set()
    for _ in range(12):
        broker.received.clear()
        broker.closed.clear()
        reader, writer = await connect(proxy)
        writer.write(fetch)
        assert await asyncio.wait_for(reader.readexactly(len(fetch)), 10) == fetch
        writer.write(produce)
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(1), 10)
        await asyncio.wait_for(broker.closed.wait(), 10)
        arrived.add(bytes(broker.received).removeprefix(fetch))
    assert arrived == {produce, produce[: len(produce) // 2]}
    assert proxy.resets == 12


async def test_what_is_sent_into_silence_arrives_once_it_is_over(proxy: Proxy, broker: Broker) -> None:
    reader, writer = await connect(proxy)
    proxy.line = Line(silent=True)
    sent = request(PRODUCE, b"x")
    writer.write(sent)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.2)
    assert broker.received == b""
    proxy.line = Line()
    assert await asyncio.wait_for(reader.readexactly(len(sent)), 10) == sent
    writer.close()


async def test_a_client_of_a_half_open_connection_is_told_nothing(proxy: Proxy, broker: Broker) -> None:
    reader, writer = await connect(proxy)
    first = request(FETCH, b"1")
    writer.write(first)
    assert await asyncio.wait_for(reader.readexactly(len(first)), 10) == first
    proxy.half_open()
    await asyncio.wait_for(broker.closed.wait(), 10)
    writer.write(request(FETCH, b"2"))
    await writer.drain()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.2)
    assert broker.received == first
    writer.close()


async def test_connections_end_at_the_age_that_the_line_gives_them(proxy: Proxy) -> None:
    proxy.line = Line(lifetime_s=0.1)
    reader, _ = await connect(proxy)
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(reader.read(1), 10)
