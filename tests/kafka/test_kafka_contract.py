"""The Kafka bus keeps the contract on a real broker."""

import pytest
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.structs import TopicPartition

from broker_topics.kafka import KafkaBus
from broker_topics.settings import ConnectionSettings
from tests.contract.bus_contract import BusContract


class KafkaBackend:
    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap

    def new_bus(self, *, max_bytes_under_way: int = 8 * 1024 * 1024) -> KafkaBus:
        return KafkaBus(ConnectionSettings(bootstrap=self.bootstrap), max_bytes_under_way=max_bytes_under_way)

    async def delete_before(self, topic: str, partition: int, offset: int) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        try:
            await admin.delete_records({TopicPartition(topic, partition): RecordsToDelete(before_offset=offset)})
        finally:
            await admin.close()


class TestKafkaBus(BusContract):
    @pytest.fixture
    def backend(self, bootstrap: str) -> KafkaBackend:
        return KafkaBackend(bootstrap)
