"""The local broker: a real Kafka that starts when asked and is never left behind."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from broker_topics.errors import BusError, ConfigError
from broker_topics.local.cluster import LocalCluster
from broker_topics.local.plan import free_ports
from broker_topics.local.ready import listed_brokers
from broker_topics.local.running import Running, find_running

HEADWATER = [sys.executable, "-m", "headwater"]


def eventually(condition: Callable[[], bool], *, within_s: float = 30) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not become true in time"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or ") Z " not in stat.read_text()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Up:
    """`headwater broker up` as somebody would type it, ready to serve."""

    def __init__(self, data: Path) -> None:
        self.data = data
        (self.port,) = free_ports(1)
        command = [*HEADWATER, "broker", "up", "--data", str(data), "--port", str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        eventually(lambda: self.running() is not None or self.process.poll() is not None, within_s=60)
        running = self.running()
        assert running is not None, self.process.communicate()[0]
        self.node_pid = running.node_pids[0]

    def running(self) -> Running | None:
        found = find_running(self.data)
        return found if found is not None and found.pid == self.process.pid and found.node_pids else None


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    started = Up(tmp_path / "data")
    yield started
    started.process.kill()
    started.process.communicate()
    eventually(lambda: not alive(started.node_pid))


def headwater(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*HEADWATER, *arguments], capture_output=True, text=True, timeout=60, check=False)


async def produce(bootstrap: str, topic: str, count: int) -> None:
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all") as producer:
        for number in range(count):
            await producer.send_and_wait(topic, str(number).encode(), partition=0)


async def consume(bootstrap: str, topic: str, count: int) -> list[bytes]:
    values: list[bytes] = []
    async with AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest") as consumer:
        consumer.assign([TopicPartition(topic, 0)])
        while len(values) < count:
            for records in (await consumer.getmany(timeout_ms=500)).values():
                values += [record.value for record in records]
    return values


async def create(bootstrap: str, topic: str, replication: int) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 1, replication)])
    await admin.close()


async def test_a_record_that_was_acknowledged_survives_kill_9_of_the_broker(
    own_broker: LocalCluster, task_name: str
) -> None:
    await create(own_broker.bootstrap, task_name, 1)
    await produce(own_broker.bootstrap, task_name, 5)

    await own_broker.kill()
    assert own_broker.pids == {}
    await own_broker.restart()

    assert await consume(own_broker.bootstrap, task_name, 5) == [b"0", b"1", b"2", b"3", b"4"]


async def test_a_frozen_broker_answers_nothing_until_it_is_thawed(broker: LocalCluster) -> None:
    port = int(broker.bootstrap.split(":")[1])
    broker.freeze()
    assert await listed_brokers(port, timeout_s=0.5) == frozenset()
    broker.thaw()
    async with asyncio.timeout(20):
        await broker.wait_ready()


async def test_a_frozen_broker_is_stopped_too(tmp_path: Path) -> None:
    async with LocalCluster(data=tmp_path) as cluster:
        pid = cluster.pids[1]
        cluster.freeze()
    assert not alive(pid)


async def test_the_same_folder_is_the_same_cluster_again(tmp_path: Path, task_name: str) -> None:
    async with LocalCluster(data=tmp_path) as cluster:
        await create(cluster.bootstrap, task_name, 1)
        await produce(cluster.bootstrap, task_name, 2)
    async with LocalCluster(data=tmp_path) as cluster:
        assert await consume(cluster.bootstrap, task_name, 2) == [b"0", b"1"]


async def test_three_nodes_go_on_when_one_is_killed(three_nodes: LocalCluster, task_name: str) -> None:
    await create(three_nodes.bootstrap, task_name, 3)
    await three_nodes.kill(2)
    await produce(three_nodes.bootstrap, task_name, 3)
    await three_nodes.restart(2)

    assert set(three_nodes.pids) == {1, 2, 3}
    for address in three_nodes.bootstrap.split(","):
        assert await listed_brokers(int(address.split(":")[1])) == {1, 2, 3}


async def test_a_node_that_ends_on_its_own_is_reported_with_its_log(own_broker: LocalCluster) -> None:
    os.kill(own_broker.pids[1], signal.SIGKILL)
    with pytest.raises(BusError, match=r"node 1 ended with status 137: .*server\.log"):
        await asyncio.wait_for(own_broker.wait_ended(), 10)


async def test_settings_that_kafka_refuses_are_told_in_its_own_words(tmp_path: Path) -> None:
    cluster = LocalCluster(data=tmp_path, properties={"log.segment.bytes": "many"})
    with pytest.raises(ConfigError, match=r"log\.segment\.bytes"):
        await cluster.start()
    assert cluster.pids == {}


def test_kill_9_of_the_supervisor_ends_the_jvm(up: Up) -> None:
    assert alive(up.node_pid)
    up.process.kill()
    up.process.wait()
    eventually(lambda: not alive(up.node_pid))
    assert find_running(up.data) is None
    assert headwater("broker", "status", "--data", str(up.data)).returncode == 69


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can tie a process to its parent's death")
def test_kill_9_of_the_watchdog_ends_the_jvm(up: Up) -> None:
    parent = int(Path(f"/proc/{up.node_pid}/stat").read_text().rsplit(") ", 1)[1].split()[1])
    os.kill(parent, signal.SIGKILL)
    eventually(lambda: not alive(up.node_pid))
    assert up.process.wait(30) == 69


def test_after_kill_9_of_the_supervisor_the_same_folder_starts_again_at_once(up: Up) -> None:
    up.process.kill()
    up.process.wait()
    again = Up(up.data)
    assert headwater("broker", "down", "--data", str(up.data)).returncode == 0
    assert again.process.wait(30) == 0
    assert not alive(again.node_pid)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_broker_cleanly(up: Up, number: signal.Signals) -> None:
    up.process.send_signal(number)
    assert up.process.wait(30) == 0
    assert not alive(up.node_pid)
    assert not listens(up.port)
    assert (up.data / "node-1" / "kafka" / ".kafka_cleanshutdown").exists()
    assert "shut down completed" in (up.data / "node-1" / "server.log").read_text()


def test_status_and_down_find_the_broker_by_its_folder(up: Up) -> None:
    status = headwater("broker", "status", "--data", str(up.data))
    assert status.returncode == 0, status.stderr
    assert f"1 of 1 node(s) live at 127.0.0.1:{up.port}" in status.stdout

    down = headwater("broker", "down", "--data", str(up.data))
    assert (down.returncode, down.stderr) == (0, "")
    assert up.process.wait(30) == 0
    output = up.process.stdout.read() if up.process.stdout else ""
    assert f"{up.data}/node-1/server.log" in output
    assert "no broker runs on" in headwater("broker", "down", "--data", str(up.data)).stdout


def test_a_second_broker_on_the_same_folder_or_port_is_refused(up: Up, tmp_path: Path) -> None:
    same_folder = headwater("broker", "up", "--data", str(up.data), "--port", str(free_ports(1)[0]))
    assert (same_folder.returncode, same_folder.stdout) == (2, "")
    assert f"a broker already runs on {up.data}" in same_folder.stderr
    assert f"headwater broker down --data {up.data}" in same_folder.stderr

    same_port = headwater("broker", "up", "--data", str(tmp_path / "other"), "--port", str(up.port))
    assert same_port.returncode == 2
    assert f"port {up.port} is in use" in same_port.stderr
    assert "--port" in same_port.stderr
    assert "Traceback" not in same_port.stderr


def test_a_folder_keeps_its_number_of_nodes(tmp_path: Path) -> None:
    ids = ["x" * 22]
    plan = {"cluster_id": "y" * 22, "directory_ids": ids, "controller_ports": free_ports(1)}
    (tmp_path / "cluster.json").write_text(json.dumps(plan))
    refused = headwater("broker", "up", "--nodes", "3", "--data", str(tmp_path))
    assert refused.returncode == 2
    assert "holds a cluster of 1 node(s): start it with --nodes 1" in refused.stderr


def test_a_signal_during_the_start_leaves_nothing_behind(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    command = [*HEADWATER, "broker", "up", "--data", str(tmp_path), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    eventually(lambda: (tmp_path / "node-1" / "watchdog.lock").exists() or process.poll() is not None)
    assert "still starting" in headwater("broker", "status", "--data", str(tmp_path)).stderr
    assert headwater("broker", "down", "--data", str(tmp_path)).returncode == 0
    assert process.wait(30) == 0
    assert find_running(tmp_path) is None
    assert not listens(port)


async def test_a_node_that_dies_while_it_starts_is_told_in_its_own_words(tmp_path: Path) -> None:
    cluster = LocalCluster(data=tmp_path, properties={"authorizer.class.name": "no.such.Authorizer"})
    with pytest.raises(BusError, match=r"node 1 ended with status 1: .*no\.such\.Authorizer"):
        await cluster.start()
    assert cluster.pids == {}
    assert find_running(tmp_path) is None


def test_a_wrong_java_is_refused_before_anything_is_started(tmp_path: Path) -> None:
    refused = headwater("broker", "up", "--data", str(tmp_path), "--port", str(free_ports(1)[0]), "--java", "/nowhere")
    assert refused.returncode == 2
    assert refused.stderr.startswith("headwater: --java names /nowhere, where there is no Java: name a Java")
    assert not (tmp_path / "node-1").exists()
