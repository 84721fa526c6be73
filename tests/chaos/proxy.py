"""A TCP proxy between clients and a broker that is slow, narrow, silent or rude on request; it rewrites nothing.

It looks at Kafka's frames only to know where a produce request begins and ends.
"""

import asyncio
import socket
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from broker_topics.local.plan import free_ports

_PRODUCE = 0
_CHUNK = 64 * 1024
_AHEAD = 64
_LOOK_S = 0.05


@dataclass(slots=True)
class Line:
    """What is wrong with the line now; may be changed while connections are open.

    latency_s: each way. bytes_per_s: of each connection, each way; 0 is no limit. resets: share of produce requests
    that end in a reset, half of them cut in the middle, half with only their answer lost. silent: nothing passes and
    nobody is told; what was sent arrives late, once it is over. lifetime_s: a
    connection is reset at this age; 0: never.
    """

    latency_s: float = 0.0
    bytes_per_s: float = 0.0
    resets: float = 0.0
    silent: bool = False
    lifetime_s: float = 0.0


@dataclass(slots=True, eq=False)
class _Connection:
    client: asyncio.StreamWriter
    broker: asyncio.StreamWriter
    half_open: bool = False

    def reset(self) -> None:
        """End both sides as a crash does, not as a goodbye; one that was closed already is let be."""
        for writer in (self.client, self.broker):
            if not writer.is_closing():
                _reset(writer)


class Proxy:
    """Listens on `port`, which is fixed before it starts; set `target` to the broker's own port.

    resets: how many connections were reset in a produce.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self.port = free_ports(1)[0]
        self.target = 0
        self.line = Line()
        self.resets = 0
        self._rng = rng
        self._open: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def address(self) -> str:
        """Where clients connect."""
        return f"127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        return self

    async def __aexit__(self, *error: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Reset every open connection."""
        for connection in list(self._open):
            connection.reset()

    def half_open(self) -> None:
        """Close every connection towards the broker; clients are not told and talk to nobody."""
        for connection in list(self._open):
            connection.half_open = True
            connection.broker.close()

    async def _serve(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._connect(reader, client)
        except OSError:
            _reset(client)
        finally:
            self._tasks.discard(task)

    async def _connect(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        answers, broker = await asyncio.open_connection("127.0.0.1", self.target)
        connection = _Connection(client, broker)
        self._open.add(connection)
        pumps = [
            asyncio.create_task(self._requests(reader, connection)),
            asyncio.create_task(self._answers(answers, connection)),
        ]
        try:
            await self._until_over(pumps)
            if connection.half_open:
                await asyncio.wait([pumps[0]])
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            self._open.discard(connection)
            connection.reset()

    async def _until_over(self, pumps: Sequence["asyncio.Task[None]"]) -> None:
        clock = asyncio.get_running_loop().time
        began = clock()
        while not self.line.lifetime_s or clock() - began < self.line.lifetime_s:
            done, _ = await asyncio.wait(pumps, timeout=_LOOK_S, return_when=asyncio.FIRST_COMPLETED)
            if done:
                return

    async def _requests(self, reader: asyncio.StreamReader, connection: _Connection) -> None:
        async with _Pipe(connection.broker, self._now) as pipe:
            with suppress(asyncio.IncompleteReadError, OSError):
                while True:
                    head = await reader.readexactly(6)
                    length, api = struct.unpack(">ih", head)
                    frame = head + await reader.readexactly(length - 2)
                    if connection.half_open:
                        continue
                    if api == _PRODUCE and self._rng.random() < self.line.resets:
                        await self._reset_in(frame, connection)
                        return
                    await pipe.put(frame)

    async def _reset_in(self, frame: bytes, connection: _Connection) -> None:
        """A produce request that arrives by half, or whole while its answer is lost."""
        whole = self._rng.random() < 0.5
        connection.broker.write(frame if whole else frame[: len(frame) // 2])
        await connection.broker.drain()
        connection.broker.close()  # with a goodbye: after a reset the broker would not read what has arrived
        self.resets += 1
        _reset(connection.client)

    async def _answers(self, reader: asyncio.StreamReader, connection: _Connection) -> None:
        async with _Pipe(connection.client, self._now) as pipe:
            with suppress(OSError):
                while data := await reader.read(_CHUNK):
                    await pipe.put(data)

    def _now(self) -> Line:
        return self.line


@dataclass(slots=True)
class _Pipe:
    """One direction of one connection: late, narrow, or silent; in order all the same."""

    to: asyncio.StreamWriter
    line: Callable[[], Line]
    _queue: "asyncio.Queue[tuple[float, bytes]]" = field(default_factory=lambda: asyncio.Queue(_AHEAD))
    _task: "asyncio.Task[None] | None" = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._deliver())
        return self

    async def __aexit__(self, *error: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def put(self, data: bytes) -> None:
        await self._queue.put((asyncio.get_running_loop().time() + self.line().latency_s, data))

    async def _deliver(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            due, data = await self._queue.get()
            await asyncio.sleep(max(0.0, due - clock()))
            while self.line().silent:
                await asyncio.sleep(_LOOK_S)
            with suppress(OSError):
                self.to.write(data)
                await self.to.drain()
            if self.line().bytes_per_s:
                await asyncio.sleep(len(data) / self.line().bytes_per_s)


def _reset(writer: asyncio.StreamWriter) -> None:
    plug = writer.get_extra_info("socket")
    if plug is not None and plug.fileno() >= 0:
        with suppress(OSError):
            plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
