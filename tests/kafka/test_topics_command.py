"""`headwater topics` against a real broker."""

import asyncio

import pytest

from broker_topics.kafka import KafkaBus
from broker_topics.settings import ConnectionSettings
from broker_topics.topics import TopicSpec
from headwater.cli import run


def test_topics_are_planned_created_verified_and_compared(
    capsys: pytest.CaptureFixture[str], bootstrap: str, task_name: str
) -> None:
    where = ["--task", task_name, "--bootstrap", bootstrap]
    assert run(["topics", "apply", *where, "--dry-run"]) == 0
    assert capsys.readouterr().out.count("would be created") == 7
    assert run(["topics", "diff", *where]) == 2
    output = capsys.readouterr()
    assert output.out.count("missing") == 7
    assert "7 topics" in output.err
    assert run(["topics", "apply", *where]) == 0
    created = capsys.readouterr().out
    assert created.count("created (") == 7
    assert f"fl.{task_name}.updates: created (12 partitions, 1 copies)" in created
    assert run(["topics", "apply", *where]) == 0
    assert capsys.readouterr().out.count("as it should be") == 7
    assert run(["topics", "diff", *where]) == 0
    assert capsys.readouterr().out == f"all topics of task {task_name} are as they should be\n"


def test_a_topic_with_other_partitions_is_refused(
    capsys: pytest.CaptureFixture[str], bootstrap: str, task_name: str
) -> None:
    async def create_by_hand() -> None:
        async with KafkaBus(ConnectionSettings(bootstrap=bootstrap)) as bus:
            await bus.create([TopicSpec(name=f"fl.{task_name}.updates", partitions=5, replication=1)])

    asyncio.run(create_by_hand())
    assert run(["topics", "apply", "--task", task_name, "--bootstrap", bootstrap]) == 2
    message = capsys.readouterr().err
    assert "partitions is 5, should be 12" in message
    assert "fixed for life" in message


def test_more_copies_than_brokers_are_refused_by_name(
    capsys: pytest.CaptureFixture[str], bootstrap: str, task_name: str
) -> None:
    assert run(["topics", "apply", "--task", task_name, "--bootstrap", bootstrap, "--replication", "3"]) == 2
    assert f"topic fl.{task_name}.updates cannot be created" in capsys.readouterr().err


def test_without_a_broker_the_command_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["topics", "diff", "--task", "watch", "--bootstrap", "127.0.0.1:9"]) == 69
    assert "127.0.0.1:9: nothing listens there" in capsys.readouterr().err
