"""Devices and evaluators that a user got wrong, and disks that went wrong, over a real broker."""

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from broker_topics.errors import ExitCode
from broker_topics.kafka import KafkaBus
from tests.kafka.support import Fleet, Role, accepted, fleet_in, settled_history

NAUGHTY = """
from my_fleet import *

def make_smaller():
    return {"weight": np.zeros((300, 9), np.float32), "bias": np.zeros(9, np.float32)}

def smaller_worker():
    return Worker(task="t", client_id="w-0", model=make_smaller(), train=make_train(0))

def smaller_evaluator():
    return make_smaller(), lambda model: {"accuracy": 1.0}

def odd_evaluator():
    return make_model(), lambda model: "very good"

def diverged_evaluator():
    return make_model(), lambda model: {"accuracy": np.float32(0.5), "loss": float("nan")}

def with_numpy_numbers(model, context):
    result = make_train(0)(model, context)
    return LocalResult(num_examples=np.int64(result.num_examples), num_steps=np.int32(result.num_steps),
                       metrics={"loss": np.float32("nan"), "right": np.int64(3)})

def diverging(model, context):
    context.stop.wait(0.1)
    model["weight"] *= np.nan
    return LocalResult(num_examples=3, num_steps=1)

def raising(model, context):
    context.stop.wait(0.1)
    raise RuntimeError("the sensor is gone")

def forgetting(model, context):
    model["bias"] += 1

def endless(model, context):
    while True:
        context.stop.wait(0.1)

def worker(name, train, **more):
    return Worker(task="t", client_id=name, model=make_model(), train=train, **more)

def all_sorts():
    return [worker("w-0", make_train(0)), worker("numpy", with_numpy_numbers), worker("nan", diverging),
            worker("broken", raising)]

def forgetful():
    return worker("w-0", forgetting)

def deaf():
    return worker("w-0", endless, stop_grace_s=0.5)
"""


@pytest.fixture
def fleet(tmp_path: Path, bootstrap: str, task_name: str) -> Iterator[Fleet]:
    (tmp_path / "naughty.py").write_text(NAUGHTY)
    with fleet_in(tmp_path, bootstrap, task_name) as fleet:
        yield fleet


async def test_a_model_that_is_not_the_tasks_is_named_tensor_by_tensor(fleet: Fleet) -> None:
    await fleet.create()
    done = await asyncio.gather(
        fleet.run("worker", "--module", "naughty:smaller_worker", "--state-dir", "state"),
        fleet.run("evaluator", "--module", "naughty:smaller_evaluator"),
    )
    for status, printed in done:
        assert status == ExitCode.CONFIG
        assert "tensor 0 is weight [300, 9], the task has weight [300, 10]" in printed
        assert "Build the model exactly as when the task was created" in printed


@pytest.mark.slow
async def test_a_training_function_that_misbehaves_hurts_only_its_own_device(fleet: Fleet, bus: KafkaBus) -> None:
    await fleet.create()
    aggregator = fleet.aggregator()
    worker = fleet.start("worker", "--module", "naughty:all_sorts", "--state-dir", "state")
    await fleet.until(
        lambda: all(worker.of(device, "training_failed") for device in ("nan", "broken")), "both failures were told"
    )
    await fleet.until_accepted(bus, await accepted(bus, fleet.task) + 6)
    assert await worker.stop() == 0, worker.text
    history = await settled_history(bus, fleet.task)
    assert await aggregator.stop() == 0, aggregator.text
    assert {record.key for record in history.inputs.values()} == {b"w-0", b"numpy"}
    assert (
        "the trained model is not finite; lower the learning rate" in worker.of("nan", "training_failed")[0]["reason"]
    )
    assert worker.of("broken", "training_failed")[0]["reason"] == "RuntimeError: the sensor is gone"


@pytest.mark.slow
async def test_a_training_function_that_returns_nothing_ends_the_command_with_the_mend(fleet: Fleet) -> None:
    await fleet.create()
    status, printed = await fleet.run("worker", "--module", "naughty:forgetful", "--state-dir", "state")
    assert status == ExitCode.CONFIG
    assert "the training function returned NoneType: return a LocalResult" in printed
    assert "Traceback" not in printed


@pytest.mark.slow
async def test_a_training_that_never_returns_does_not_keep_the_command_from_ending(fleet: Fleet) -> None:
    await fleet.create()
    worker = fleet.start(
        "worker", "--module", "naughty:deaf", "--state-dir", "state", environment={"HEADWATER_LOG_LEVEL": "debug"}
    )
    await fleet.until(lambda: bool(worker.events("training_started")), "the training began")
    assert await worker.stop(signal.SIGINT) == 0, worker.text


@pytest.mark.slow
async def test_an_evaluation_that_returns_no_numbers_ends_and_one_that_diverged_goes_on(fleet: Fleet) -> None:
    await fleet.create()
    status, printed = await fleet.run("evaluator", "--module", "naughty:odd_evaluator")
    assert status == ExitCode.CONFIG
    assert 'the evaluation function returned str: return up to 16 named numbers, such as {"accuracy": 0.93}' in printed
    evaluator = fleet.start("evaluator", "--module", "naughty:diverged_evaluator")
    await fleet.until(lambda: bool(evaluator.events("version_evaluated")), "a version was scored")
    assert await evaluator.stop() == 0, evaluator.text
    assert evaluator.events("version_evaluated")[0]["accuracy"] == 0.5


DAMAGES = {"w-0": "overwritten", "w-3": "truncated", "w-6": "deleted"}


@pytest.mark.slow
async def test_devices_whose_outbox_was_lost_begin_anew_and_are_heard_again(fleet: Fleet, bus: KafkaBus) -> None:
    await fleet.create()
    aggregator = fleet.aggregator()
    worker = fleet.worker(*DAMAGES)
    await until_each_was_heard(fleet, worker)
    assert await worker.stop() == 0, worker.text
    for device, damage in DAMAGES.items():
        spoil(fleet.folder / "state" / device / "outbox.sqlite", damage)
    worker = fleet.worker(*DAMAGES)
    await until_each_was_heard(fleet, worker)
    assert await worker.stop() == 0, worker.text
    await settled_history(bus, fleet.task)
    assert await aggregator.stop() == 0, aggregator.text
    moved = {line["client_id"]: Path(line["moved_to"]) for line in worker.events("outbox_corrupt")}
    assert set(moved) == {"w-0", "w-3"}
    assert all(path.exists() for path in moved.values())
    for device in DAMAGES:
        assert [line["incarnation"] for line in worker.of(device, "incarnation_changed")] == [2], device


async def until_each_was_heard(fleet: Fleet, worker: Role) -> None:
    """Wait until of each device two updates were accepted."""

    def heard(device: str) -> bool:
        settled = worker.of(device, "update_settled")
        return len([line for line in settled if line["outcome"] == "accepted"]) >= 2

    await fleet.until(lambda: all(heard(device) for device in DAMAGES), "each device was heard")


def spoil(path: Path, damage: str) -> None:
    """What a bad flash chip, a full disk or a tidy user does to a file."""
    match damage:
        case "overwritten":
            path.write_bytes(np.random.default_rng(6).bytes(path.stat().st_size))
        case "truncated":
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        case "deleted":
            path.unlink()


@pytest.mark.slow
async def test_a_second_process_on_one_state_folder_is_refused_and_the_first_goes_on(
    fleet: Fleet, bus: KafkaBus
) -> None:
    await fleet.create()
    aggregator = fleet.aggregator()
    worker = fleet.worker("w-0")
    await fleet.until_accepted(bus, 1)
    status, printed = await fleet.run(
        "worker", "--module", "my_fleet:make_worker", "--state-dir", str(fleet.folder / "state"), DEVICES="w-0"
    )
    assert status == ExitCode.CONFIG
    assert "another process uses " in printed
    assert "stop it, or give this device a state_dir of its own" in printed
    await fleet.until_accepted(bus, await accepted(bus, fleet.task) + 2)
    assert await worker.stop() == 0, worker.text
    assert await aggregator.stop() == 0, aggregator.text
