"""The Kafka bus keeps the contract on a real broker."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.structs import TopicPartition

from broker_topics.kafka import KafkaBus
from broker_topics.local.cluster import LocalCluster
from broker_topics.settings import ConnectionSettings
from tests.contract.bus_contract import BusContract


class KafkaBackend:
    def __init__(self, broker: LocalCluster, *, nodes: int = 1) -> None:
        self.broker, self.nodes = broker, range(1, nodes + 1)
        self.bootstrap = broker.bootstrap

    def new_bus(self, *, max_bytes_under_way: int = 8 * 1024 * 1024) -> KafkaBus:
        return KafkaBus(ConnectionSettings(bootstrap=self.bootstrap), max_bytes_under_way=max_bytes_under_way)

    async def delete_before(self, topic: str, partition: int, offset: int) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        try:
            await admin.delete_records({TopicPartition(topic, partition): RecordsToDelete(before_offset=offset)})
        finally:
            await admin.close()

    @contextmanager
    def silence(self) -> Iterator[None]:
        for node in self.nodes:
            self.broker.freeze(node)
        try:
            yield
        finally:
            for node in self.nodes:
                self.broker.thaw(node)


class TestKafkaBus(BusContract):
    @pytest.fixture
    def backend(self, broker: LocalCluster) -> KafkaBackend:
        return KafkaBackend(broker)
