"""A fleet over the command line, from `task create` to the file with the model, as a user goes through it."""

import asyncio
import re
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from broker_topics.errors import ConfigError
from broker_topics.kafka import KafkaBus
from broker_topics.record import Cause
from broker_topics.settings import ConnectionSettings
from tests.fleet import chain_of
from tests.kafka.support import POLL_S, Fleet, Role, all_settled, fleet_in, free_port, get, settled_history
from worker import LocalResult, TrainContext, Worker

SHAPES = {"weight": (300, 10), "bias": (10,)}


def learned(evaluator: Role) -> bool:
    """Nobody knows more than four of the ten classes: above that, devices have learned from each other."""
    return any(line["accuracy"] > 0.7 for line in evaluator.events("version_evaluated"))


def never(model: Any, context: TrainContext) -> LocalResult:
    raise AssertionError("this device may not train")


async def served_to_a_device(fleet: Fleet, bus: KafkaBus) -> dict[str, np.ndarray]:
    """What `worker.model()` gives in the program of a device that only follows."""
    device = Worker(
        task=fleet.task,
        client_id="reader",
        model={name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()},
        train=never,
        can_train=lambda: False,
        bus=bus,
        state_dir=fleet.folder / "reader",
    )
    serving = asyncio.create_task(device.serve())
    model: dict[str, np.ndarray] | None = None
    async with asyncio.timeout(60):
        while model is None:
            await asyncio.sleep(0.05)
            with suppress(ConfigError):  # not reached the broker yet
                model = device.model()
    device.stop()
    await serving
    return model


def tensors(path: Path) -> dict[str, np.ndarray]:
    """The model in a file, whichever of the two formats it has."""
    if path.suffix == ".safetensors":
        return dict(load_file(path))
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files if not name.startswith("about.")}


def assert_equal(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert {name: array.shape for name, array in one.items()} == SHAPES
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name])


def assert_clean(role: Role) -> None:
    """Every line is an event, none of them a complaint; a loop that stood still may be the machine's other work."""
    bad = [line for line in role.lines() if line["level"] not in ("debug", "info")]
    complaints = [line for line in bad if line["event"] != "event_loop_blocked"]
    assert complaints == [], role.name


def number_of(metrics: str, name: str) -> float:
    """The value of a metric without labels."""
    found = re.search(rf"^{name}{{[^}}]*}} ([0-9.e+]+)$", metrics, re.MULTILINE)
    assert found is not None, name
    return float(found.group(1))


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_fleet_learns_is_paused_rolled_back_exported_and_replayed_by_commands_alone(
    bootstrap: str, task_name: str, tmp_path: Path
) -> None:
    async with KafkaBus(ConnectionSettings(bootstrap=bootstrap)) as bus:
        with fleet_in(tmp_path, bootstrap, task_name) as fleet:
            await fleet.create(local_learning_rate=0.1, keyframe_every=5)
            port = free_port()
            aggregator = fleet.start("aggregator", "--listen-port", str(port))
            workers = [fleet.worker("w-0", "w-3", "w-6"), fleet.worker("w-8")]
            evaluator = fleet.start("evaluator", "--module", "my_fleet:make_evaluator")
            await fleet.until(lambda: learned(evaluator), "the served model knew what no device knows")
            assert_it_answers(port)
            await pause_and_resume(fleet, bus)
            await roll_back(fleet, bus)
            for worker in workers:
                assert await worker.stop(signal.SIGTERM) == 0, worker.text
            history = await settled_history(bus, task_name)
            assert await evaluator.stop(signal.SIGINT) == 0, evaluator.text
            assert await aggregator.stop(signal.SIGINT) == 0, aggregator.text
            for role in fleet.roles:
                assert_clean(role)
            await assert_the_model_is_one(fleet, bus, history.chain[-1].hash.hex())


def assert_it_answers(port: int) -> None:
    """Probes and metrics of the aggregator while it works."""
    assert [get(port, path)[0] for path in ("/livez", "/readyz", "/startupz", "/metrics")] == [200, 200, 200, 200]
    metrics = get(port, "/metrics")[1]
    assert number_of(metrics, "headwater_model_version") > 0
    assert number_of(metrics, "headwater_leader") == 1


async def pause_and_resume(fleet: Fleet, bus: KafkaBus) -> None:
    """Paused, updates wait in the log; resumed, they are taken."""
    assert await fleet.run("control", "pause") == (0, "pause: done\n")
    paused = (await chain_of(bus, fleet.task))[-1]
    async with asyncio.timeout(60):
        while await all_settled(bus, fleet.task):
            await asyncio.sleep(POLL_S)
    assert (await chain_of(bus, fleet.task))[-1].hash == paused.hash
    assert await fleet.run("control", "resume") == (0, "resume: done\n")
    async with asyncio.timeout(60):
        while (await chain_of(bus, fleet.task))[-1].body.version <= paused.body.version:
            await asyncio.sleep(POLL_S)


async def roll_back(fleet: Fleet, bus: KafkaBus) -> None:
    """The model of an older keyframe becomes the next version, and devices go on from it."""
    status, listed = await fleet.run("task", "keyframes")
    versions = [int(version) for version in re.findall(r"^version (\d+)", listed, re.MULTILINE)]
    assert status == 0
    assert versions[0] == 0
    assert len(versions) > 1
    before = (await chain_of(bus, fleet.task))[-1].body.version
    assert await fleet.run("control", "roll-back", "--to", str(versions[-1])) == (0, "roll_back: done\n")
    chain = await chain_of(bus, fleet.task)
    made = next(record for record in chain if record.body.cause is Cause.ROLL_BACK)
    target = next(record for record in chain if record.body.keyframe and record.body.version == versions[-1])
    assert made.body.version > before
    assert made.body.hidden_hash == target.body.hidden_hash
    status, refused = await fleet.run("control", "roll-back", "--to", "1000000")
    assert status == 2
    assert "headwater task keyframes" in refused
    async with asyncio.timeout(60):
        while (await chain_of(bus, fleet.task))[-1].body.version <= made.body.version:
            await asyncio.sleep(POLL_S)


async def assert_the_model_is_one(fleet: Fleet, bus: KafkaBus, head: str) -> None:
    """Both files, a device's own model, replay and `task show` agree."""
    status, shown = await fleet.run("task", "show")
    assert status == 0
    assert head in shown
    done = await asyncio.gather(
        fleet.run("export", "--out", "model.npz"),
        fleet.run("export", "--out", "model.safetensors"),
        fleet.run("export", "--out", "first.npz", "--version", "0"),
        fleet.run("replay"),
    )
    assert [status for status, _ in done] == [0, 0, 0, 0], done
    exported = tensors(fleet.folder / "model.npz")
    assert_equal(exported, tensors(fleet.folder / "model.safetensors"))
    assert_equal(exported, await served_to_a_device(fleet, bus))
    assert not tensors(fleet.folder / "first.npz")["weight"].any()
    replayed = done[-1][1]
    assert "every hash agrees" in replayed
    with np.load(fleet.folder / "model.npz", allow_pickle=False) as file:
        assert f"served model {file['about.served_hash']}" in replayed
    assert f"chain head   {head}" in replayed
