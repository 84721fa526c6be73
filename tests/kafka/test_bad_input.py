"""What bad input gets on a real broker: a clear error with its status, or a reject code; everybody else goes on."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions

from broker_topics.codecs import CodecId, encode
from broker_topics.errors import ExitCode
from broker_topics.kafka import KafkaBus
from broker_topics.local.cluster import LocalCluster
from broker_topics.topics import Topic, TopicSpec, topic_name, topic_specs
from headwater.cli import run
from tests.fleet import Device, chain_of, make_task, running
from tests.kafka.certificates import Authority
from tests.kafka.support import Fleet, rejects_of, settled_history


@pytest.fixture
def told(
    tmp_path: Path, bootstrap: str, task_name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> "Told":
    (tmp_path / "my_modules.py").write_text(
        "import numpy as np\n"
        "def make(): return {'w': np.zeros(3, np.float32)}\n"
        "def evaluator(): return make(), lambda model: {'loss': 1.0}\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("HEADWATER_BOOTSTRAP", bootstrap)
    monkeypatch.setenv("HEADWATER_LOG_LEVEL", "error")
    monkeypatch.setenv("HEADWATER_CONNECT_PATIENCE_S", "0.1")
    return Told(task_name, capsys)


class Told:
    """Runs a command in this process, and keeps what it says."""

    def __init__(self, task: str, capsys: pytest.CaptureFixture[str]) -> None:
        self._task, self._capsys = task, capsys

    def __call__(self, *arguments: str, status: int = ExitCode.CONFIG) -> str:
        """What a command that must end with this status says on standard error."""
        self._capsys.readouterr()
        assert run([*arguments, "--task", self._task]) == status
        errors = self._capsys.readouterr().err
        assert "Traceback" not in errors
        return errors


COMMANDS = [
    ("task", "show"),
    ("task", "keyframes"),
    ("aggregator", "--listen-port", "0"),
    ("evaluator", "--module", "my_modules:evaluator"),
    ("control", "pause"),
    ("replay",),
    ("export", "--out", "model.npz"),
]


def test_an_unknown_task_is_told_with_the_command_that_makes_it(told: Told, task_name: str) -> None:
    for command in COMMANDS:
        errors = told(*command)
        assert f"task '{task_name}' is unknown to this broker; correct the name, or make it: " in errors, command
        assert f"headwater task create --task {task_name}" in errors, command


def test_a_task_without_a_first_record_is_told_with_the_command_that_makes_it(told: Told, task_name: str) -> None:
    told("topics", "apply", status=ExitCode.DONE)
    for command in COMMANDS:
        if command != ("task", "keyframes"):
            errors = told(*command)
            assert f"task '{task_name}' has no first record; make it with: " in errors, command
            assert f"headwater task create --task {task_name}" in errors, command


def test_an_unreachable_broker_is_told_by_its_address(told: Told) -> None:
    for command in COMMANDS:
        errors = told(*command, "--bootstrap", "127.0.0.1:9", status=ExitCode.BROKER_UNREACHABLE)
        assert "127.0.0.1:9: nothing listens there; is the broker running?" in errors, command


def test_a_wrong_password_is_not_waited_for(
    told: Told, broker: LocalCluster, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = {"USER": "watch", "PASSWORD": "wrong", "TLS_CA": str(authority.ca), "CONNECT_PATIENCE_S": "3600"}
    for name, value in wrong.items():
        monkeypatch.setenv(f"HEADWATER_{name}", value)
    for command in (("aggregator", "--listen-port", "0"), ("evaluator", "--module", "my_modules:evaluator")):
        errors = told(*command, "--bootstrap", broker.address("SCRAM"))
        assert "wrong user or password for user 'watch'" in errors, command


def test_what_a_task_does_not_have_is_told_with_what_it_has(told: Told, task_name: str) -> None:
    told("task", "create", "--module", "my_modules:make", status=ExitCode.DONE)
    assert f"task '{task_name}' exists already; choose another name" in told(
        "task", "create", "--module", "my_modules:make"
    )
    missing = f"version 77 of task '{task_name}' does not exist; it has versions 0 to 0"
    assert missing in told("export", "--out", "model.npz", "--version", "77")
    assert missing in told("replay", "--to", "77")
    nobody = told("control", "pause", "--wait-s", "0.5", status=ExitCode.BROKER_UNREACHABLE)
    assert f"no decision within 0.5 s; does the aggregator of task {task_name} run?" in nobody


async def test_a_dense_update_that_would_not_fit_is_refused_before_the_task_is_made(fleet: Fleet) -> None:
    limits = ("--set", "codec=float32", "--set", "max_update_bytes=4096")
    status, printed = await fleet.run("task", "create", "--module", "my_fleet:make_model", *limits)
    assert status == ExitCode.CONFIG
    assert "float32 takes 12040 bytes for 3010 numbers" in printed
    assert "choose codec=sparse, or raise max_update_bytes" in printed
    status, printed = await fleet.run("task", "show")
    assert status == ExitCode.CONFIG, printed


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (TopicSpec(name="updates", partitions=5, replication=1), "partitions is 5, should be 12"),
        (
            TopicSpec(name="commits", partitions=1, replication=1, settings={"retention.ms": "1000"}),
            "retention.ms is 1000, should be -1",
        ),
    ],
    ids=["partitions", "settings"],
)
async def test_a_topic_that_somebody_made_otherwise_stops_the_making_of_a_task(
    fleet: Fleet, bus: KafkaBus, changed: TopicSpec, said: str
) -> None:
    await bus.create([replace(changed, name=f"fl.{fleet.task}.{changed.name}")])
    status, printed = await fleet.run("task", "create", "--module", "my_fleet:make_model")
    assert status == ExitCode.CONFIG
    assert said in printed
    assert len(await bus.describe([spec.name for spec in topic_specs(fleet.task, replication=1)])) == 1


async def test_partitions_that_somebody_added_stop_the_aggregator(fleet: Fleet, bus: KafkaBus, bootstrap: str) -> None:
    await make_task(bus, fleet.task)
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_partitions({topic_name(fleet.task, Topic.UPDATES): NewPartitions(total_count=13)})
    finally:
        await admin.close()
    status, printed = await fleet.run("aggregator", "--listen-port", "0")
    assert status == ExitCode.CONFIG
    assert "the task was made with 12 partitions of updates, the topic has 13" in printed
    assert "make a new task" in printed


async def test_garbage_in_every_topic_stops_nobody_and_each_piece_gets_its_code(bus: KafkaBus, task_name: str) -> None:
    await make_task(bus, task_name, max_update_bytes=1024, flush_deadline_s=0.5)
    await spoil_the_topics(bus, task_name)
    async with running(bus, task_name):
        device = await Device(bus, task_name, "w-1").enter()
        sent = {(await device.send(data)).offset: code for data, code in spoiled(device)}
        good, other = await Device(bus, task_name, "w-2").enter(), await Device(bus, task_name, "w-3").enter()
        await good.send(good.update(1.0).to_bytes())
        await other.send(other.update(3.0).to_bytes())
        await good.until_version(1)
        await settled_history(bus, task_name)
        rejects = await rejects_of(bus, task_name, at_least=len(sent))
    partition = await bus.partition_for(topic_name(task_name, Topic.UPDATES), b"w-1")
    assert {reject.offset: reject.code for reject in rejects if reject.partition == partition} == sent
    async with running(bus, task_name):  # and after a restart
        newcomer = await Device(bus, task_name, "w-4").enter()
        await newcomer.send(newcomer.update(1.0).to_bytes())
        await good.send(good.update(1.0).to_bytes())
        await settled_history(bus, task_name)
    decisions = [decision for record in await chain_of(bus, task_name) for decision in record.body.decisions]
    assert sum(decision.accepted for decision in decisions) == 4
    assert len(decisions) == len(sent) + 5  # the garbage in `control` is the fifth


def spoiled(device: Device) -> Iterator[tuple[bytes, str]]:
    """What a broken or hostile device may send, and the code it gets; `device.sequence` counts what is well-formed."""
    whole = device.update(1.0).to_bytes()
    yield b"", "malformed"
    yield np.random.default_rng(3).bytes(700), "malformed"
    yield np.random.default_rng(4).bytes(1_000_000), "too_large"
    yield whole[:-1], "malformed"
    yield whole + b"\0", "malformed"
    yield whole[:40] + bytes([whole[40] ^ 1]) + whole[41:], "malformed"
    yield device.update(1.0, task="another").to_bytes(), "wrong_task"
    yield device.update(1.0, client_id="w-9").to_bytes(), "identity"
    device.sequence = 0
    yield device.update(1.0, layout=7).to_bytes(), "unknown_layout"
    yield device.update(1.0, base_version=5).to_bytes(), "future_version"
    yield device.update(1.0, base_hash=bytes(8)).to_bytes(), "unknown_base"
    large = encode(np.full(8, 1e38, np.float32), CodecId.FLOAT32)
    yield device.update(1.0, encoded=large).to_bytes(), "norm"
    nan = large._replace(sections=(np.full(8, np.nan, np.float32).tobytes(),))
    yield device.update(1.0, encoded=nan).to_bytes(), "non_finite"
    short = large._replace(sections=(bytes(31),))
    yield device.update(1.0, encoded=short).to_bytes(), "bad_payload"
    yield device.update(1.0, sequence=2_000_000).to_bytes(), "sequence_jump"
    yield device.update(1.0, sequence=1).to_bytes(), "passed"
    yield device.update(1.0, incarnation=2, layout=7).to_bytes(), "unknown_layout"
    yield device.update(1.0, incarnation=1).to_bytes(), "retired"
    yield device.update(1.0, incarnation=0).to_bytes(), "malformed"


async def spoil_the_topics(bus: KafkaBus, task: str) -> None:
    """Garbage where only the aggregator, or an operator, should write."""
    junk = np.random.default_rng(5).bytes(300)
    for topic in (Topic.CONTROL, Topic.COMMITS, Topic.MODELS, Topic.CLIENTS, Topic.TELEMETRY):
        await bus.send(topic_name(task, topic), key=b"junk", value=junk)
    for value in (junk, b"", None):
        await bus.send(topic_name(task, Topic.MODELS), key=b"head", value=value)
    genesis = (await chain_of(bus, task))[0].data
    for data in (genesis, genesis[:-1], genesis[:9] + bytes(40) + genesis[49:]):
        await bus.send(topic_name(task, Topic.COMMITS), key=None, value=data)
