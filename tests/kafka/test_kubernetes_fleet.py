"""The pods of the manifests train a model, on a real broker that allows each user what its KafkaUser says.

Without Kubernetes: its part is played by `pods.py`. Certificate, users and passwords are what Strimzi would make.
"""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from broker_topics.errors import ConfigError
from broker_topics.kafka import KafkaBus
from broker_topics.local.cluster import LocalCluster
from broker_topics.local.listeners import SecuredListener
from broker_topics.settings import ConnectionSettings
from broker_topics.topics import Topic, topic_name
from tests.k8s.manifests import Resource, pick, pod_templates, resources
from tests.kafka.acls import allow
from tests.kafka.certificates import Authority
from tests.kafka.pods import Command, command_of
from tests.kafka.support import DEADLINE_S, Role, free_port, get, until_accepted

PASSWORDS = {name: f"password-of-{name}" for name in ("aggregator", "device", "evaluator", "task-creator")}


@pytest.fixture
async def strict_broker(tmp_path: Path, authority: Authority) -> AsyncIterator[LocalCluster]:
    """A node that allows nothing without a rule; plain connections from this machine are its administrator's."""
    cluster = LocalCluster(
        data=tmp_path / "kafka",
        listeners=[
            SecuredListener(name="SCRAM", keystore=authority.server(), scram=True),
            SecuredListener(name="MTLS", keystore=authority.server(), client_ca=authority.ca),
        ],
        scram_users=PASSWORDS,
        properties={
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
        },
    )
    async with cluster:
        yield cluster


class Pods:
    """The manifests of an overlay, and what was started of them."""

    def __init__(self, folder: Path, broker: LocalCluster, authority: Authority, overlay: str, listener: str) -> None:
        self.found: list[Resource] = resources(overlay)
        self.templates = dict(pod_templates(self.found))
        self.folder, self.running, self.port = folder, list[Role](), free_port()
        self._secrets = {"kafka-cluster-ca-cert": {"ca.crt": authority.ca.read_text()}} | {
            name: secret_of(name, authority) for name in PASSWORDS
        }
        self._changed = {
            "HEADWATER_BOOTSTRAP": broker.address(listener),
            "HEADWATER_AGGREGATOR_LISTEN_HOST": "127.0.0.1",
            "HEADWATER_AGGREGATOR_LISTEN_PORT": str(self.port),
            "HEADWATER_LEASE_NAME": "",
        }

    def command(self, workload: str, pod: str) -> Command:
        return command_of(
            self.found,
            self.templates[workload],
            pod=pod,
            root=self.folder,
            secrets=self._secrets,
            changed=self._changed,
        )

    def run(self, workload: str, pod: str) -> str:
        """Run a pod that ends by itself, in order; what it printed."""
        command = self.command(workload, pod)
        done = subprocess.run(
            command.arguments,
            cwd=command.folder,
            env=command.variables,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self, workload: str, pod: str) -> Role:
        command = self.command(workload, pod)
        log = self.folder / f"{pod}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                command.arguments, cwd=command.folder, env=command.variables, stdout=out, stderr=subprocess.STDOUT
            )
        self.running.append(Role(pod, process, log))
        return self.running[-1]


def secret_of(user: str, authority: Authority) -> dict[str, str]:
    """What Strimzi puts into the secret of a user, whichever way of logging in it has."""
    identity = authority.device(user)
    files = {"user.crt": identity.certificate, "user.key": identity.key}
    return {"password": PASSWORDS[user]} | {name: file.read_text() for name, file in files.items()}


@contextmanager
def pods_of(folder: Path, broker: LocalCluster, authority: Authority) -> Iterator[Pods]:
    pods = Pods(folder, broker, authority, "dev", "SCRAM")
    try:
        yield pods
    finally:
        for role in pods.running:
            role.kill()


def rules(found: list[Resource]) -> Iterator[tuple[str, str, str]]:
    for user in pick(found, "KafkaUser"):
        for rule in user["spec"]["authorization"]["acls"]:
            for operation in rule["operations"]:
                yield user["metadata"]["name"], rule["resource"]["name"], operation


async def until_learned(pods: Pods, evaluator: Role) -> None:
    """Wait for an accuracy that no gateway could reach alone: each knows three of the five conditions."""
    async with asyncio.timeout(DEADLINE_S):
        while max((line["accuracy"] for line in evaluator.events("version_evaluated")), default=0.0) < 0.8:
            for role in pods.running:
                assert role.process.poll() is None, f"{role.name} ended by itself\n{role.text[-2000:]}"
            await asyncio.sleep(0.1)


async def test_the_pods_train_with_the_rights_of_their_users(
    strict_broker: LocalCluster, authority: Authority, tmp_path: Path
) -> None:
    with pods_of(tmp_path / "pods", strict_broker, authority) as pods:
        await allow(strict_broker.bootstrap, rules(pods.found))
        production = Pods(tmp_path / "production", strict_broker, authority, "production", "MTLS")
        printed = await asyncio.to_thread(production.run, "task-create", "task-create-x")
        assert "task watch: 125 parameters" in printed
        again = await asyncio.to_thread(pods.run, "task-create", "task-create-y")
        assert "task watch exists already and stays as it is" in again
        aggregator = pods.start("aggregator", "aggregator-x")
        evaluator = pods.start("evaluator", "evaluator-x")
        for number in range(3):
            pods.start("gateway", f"gateway-{number}")
        await until_learned(pods, evaluator)
        async with KafkaBus(ConnectionSettings(bootstrap=strict_broker.bootstrap)) as operator:
            await until_accepted(operator, "watch", 11)
        assert [get(pods.port, f"/{probe}")[0] for probe in ("startupz", "livez", "readyz")] == [200, 200, 200]
        assert await device_is_shut_out(strict_broker, authority) == ["commits", "models", "control", "rejects"]
        grace_s = pods.templates["aggregator"]["spec"]["terminationGracePeriodSeconds"]
        assert await asyncio.wait_for(aggregator.stop(), grace_s) == 0
        for role in pods.running[1:]:
            assert await asyncio.wait_for(role.stop(), 60) == 0, role.text[-2000:]
        assert {entry.name for entry in (tmp_path / "pods" / "gateway-0" / "state").iterdir()} == {"gateway-0"}


async def device_is_shut_out(broker: LocalCluster, authority: Authority) -> list[str]:
    """The topics into which a device's user cannot write."""
    settings = ConnectionSettings(
        bootstrap=broker.address("SCRAM"), tls_ca=str(authority.ca), user="device", password=PASSWORDS["device"]
    )
    shut = []
    async with KafkaBus(settings) as bus:
        for topic in (Topic.COMMITS, Topic.MODELS, Topic.CONTROL, Topic.REJECTS):
            with pytest.raises(ConfigError, match="access rules forbid it"):
                await bus.send(topic_name("watch", topic), key=b"k", value=b"forged", partition=0)
            shut.append(topic.value)
    return shut
