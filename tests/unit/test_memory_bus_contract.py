"""The memory bus keeps the contract."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from broker_topics.memory import MemoryBus
from broker_topics.memory_log import MemoryLog
from tests.contract.bus_contract import BusContract


class MemoryBackend:
    def __init__(self) -> None:
        self.log = MemoryLog()

    def new_bus(self, *, max_bytes_under_way: int = 8 * 1024 * 1024) -> MemoryBus:
        return MemoryBus(self.log, max_bytes_under_way=max_bytes_under_way)

    async def delete_before(self, topic: str, partition: int, offset: int) -> None:
        self.log.partition(topic, partition).delete_before(offset)

    @contextmanager
    def silence(self) -> Iterator[None]:
        self.log.down = True
        yield
        self.log.down = False


class TestMemoryBus(BusContract):
    @pytest.fixture
    def backend(self) -> MemoryBackend:
        return MemoryBackend()
