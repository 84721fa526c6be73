"""Kafka's own metrics, shown to Prometheus by an agent in the broker's JVM."""

import asyncio
import re
import urllib.request
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from broker_topics.errors import ConfigError
from broker_topics.local.cluster import LocalCluster
from broker_topics.local.plan import free_ports

PANELS_AND_ALERTS_NEED = {
    "jvm_memory_used_bytes",
    "kafka_controller_kafkacontroller_activebrokercount",
    "kafka_controller_kafkacontroller_activecontrollercount",
    "kafka_controller_kafkacontroller_fencedbrokercount",
    "kafka_controller_kafkacontroller_offlinepartitionscount",
    "kafka_log_log_size",
    "kafka_network_requestmetrics_totaltimems",
    "kafka_server_brokertopicmetrics_bytesin_total",
    "kafka_server_brokertopicmetrics_bytesout_total",
    "kafka_server_brokertopicmetrics_messagesin_total",
    "kafka_server_kafkarequesthandlerpool_requesthandleravgidle_percent",
    "kafka_server_replicamanager_underminisrpartitioncount",
    "kafka_server_replicamanager_underreplicatedpartitions",
}


def metrics(address: str) -> str:
    with urllib.request.urlopen(address, timeout=30) as answer:
        return str(answer.read().decode())


async def test_a_broker_shows_what_panels_and_alerts_ask_of_it(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    async with LocalCluster(data=tmp_path / "kafka", metrics_port=port) as cluster:
        assert cluster.metrics_addresses == (f"http://127.0.0.1:{port}/metrics",)
        admin = AIOKafkaAdminClient(bootstrap_servers=cluster.bootstrap)
        await admin.start()
        await admin.create_topics([NewTopic("fl.watch.updates", 1, 1)])
        await admin.close()
        async with AIOKafkaProducer(bootstrap_servers=cluster.bootstrap) as producer:
            for _ in range(3):
                await producer.send_and_wait("fl.watch.updates", b"update")
        options = {"bootstrap_servers": cluster.bootstrap, "auto_offset_reset": "earliest"}
        async with AIOKafkaConsumer("fl.watch.updates", **options) as consumer:
            await consumer.getone()
        text = await asyncio.to_thread(metrics, cluster.metrics_addresses[0])

    assert set(re.findall(r"^(\w+)", text, re.MULTILINE)) >= PANELS_AND_ALERTS_NEED
    assert 'kafka_server_brokertopicmetrics_messagesin_total{topic="fl.watch.updates"} 3.0' in text
    assert "kafka_controller_kafkacontroller_activebrokercount 1.0" in text


async def test_a_metrics_port_in_use_is_named_before_anything_starts(tmp_path: Path) -> None:
    async with await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0) as taken:
        port = taken.sockets[0].getsockname()[1]
        cluster = LocalCluster(data=tmp_path / "kafka", metrics_port=port)
        with pytest.raises(ConfigError, match=f"port {port} is in use.*--metrics-port"):
            await cluster.start()
