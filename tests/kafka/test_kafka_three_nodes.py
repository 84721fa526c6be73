"""The Kafka bus keeps the contract on three nodes too, and loses nothing when one of them dies."""

import asyncio

import pytest

from broker_topics.errors import BusError
from broker_topics.kafka import KafkaBus
from broker_topics.local.cluster import LocalCluster
from broker_topics.settings import ConnectionSettings
from broker_topics.topics import Topic, topic_name, topic_specs
from tests.contract.bus_contract import BusContract, read, send_all
from tests.kafka.support import leader_of
from tests.kafka.test_kafka_contract import KafkaBackend

pytestmark = pytest.mark.slow


class TestKafkaBusOnThreeNodes(BusContract):
    replication = 3

    @pytest.fixture
    def backend(self, three_nodes: LocalCluster) -> KafkaBackend:
        return KafkaBackend(three_nodes, nodes=3)


async def test_the_death_of_a_leader_loses_nothing_and_stops_nobody(three_nodes: LocalCluster, task_name: str) -> None:
    commits = topic_name(task_name, Topic.COMMITS)
    async with KafkaBus(ConnectionSettings(bootstrap=three_nodes.bootstrap, timeout_s=20)) as bus:
        await bus.create(topic_specs(task_name, replication=3))
        reader = bus.reader(commits, {0: 0})
        before = await send_all(bus, commits, [b"%d" % number for number in range(50)])
        leader = await leader_of(three_nodes.bootstrap, commits)
        await three_nodes.kill(leader)
        try:
            acknowledged = {position.offset: b"%d" % number for number, position in enumerate(before)}
            async with asyncio.timeout(40):
                number = 50
                while number < 100:
                    try:
                        position = await bus.send(commits, key=None, value=b"%d" % number)
                    except BusError:
                        continue  # also in doubt: the same record again, as an outbox does
                    acknowledged[position.offset] = b"%d" % number
                    number += 1
            end = (await bus.end_offsets(commits))[0]
            log = {record.offset: record.value for record in await read(reader, end)}
            assert {offset: log[offset] for offset in acknowledged} == acknowledged
            assert len(acknowledged) == 100
        finally:
            await three_nodes.restart(leader)
