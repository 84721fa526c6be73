"""The points at which a test may end a process: all are passed in an ordinary life, and nothing is armed by itself."""

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from aggregator.chain.cache import KeyframeCache
from broker_topics import crash_points
from broker_topics.crash_points import POINTS, Io, heard, passing
from broker_topics.errors import ConfigError
from broker_topics.memory import MemoryBus
from broker_topics.memory_log import MemoryLog
from broker_topics.topics import Topic, topic_name
from tests.chaos.crash_points import CREATOR, DEVICE, IDLE, SERVING, STARTING, points_of
from tests.chaos.cuts import MENDING
from tests.fleet import LAYOUT, Device, make_task, running, until
from worker import Limits, LocalResult, TrainContext, Worker

TASK = "watch"


def test_a_point_is_told_before_and_after_and_not_after_a_failure() -> None:
    told: list[str] = []
    with heard(told.append):
        with passing(Io.APPEND):
            told.append("appended")
        with pytest.raises(OSError, match="gone"), passing(Io.HEAD):
            raise OSError("gone")
    with passing(Io.PART):
        pass
    assert told == ["append:before", "appended", "append:after", "head:before"]


def test_a_soak_goes_through_every_point() -> None:
    assert {*CREATOR, *STARTING, *SERVING, *IDLE, *MENDING, *DEVICE} == set(Io)


@pytest.mark.parametrize(
    "text", ["append", "append:after", "append:after:0", "append:later:1", "nothing:after:1", "::"]
)
def test_a_point_that_is_not_there_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="append:after:3"):
        crash_points.arm({"HEADWATER_CRASH_AT": text})


def test_nothing_is_armed_where_the_variable_is_not_set() -> None:
    assert crash_points.arm({}) is None
    assert crash_points.arm({"HEADWATER_CRASH_AT": ""}) is None


def test_an_armed_process_ends_by_sigkill_at_its_point_and_not_before() -> None:
    script = """
import os
from broker_topics.crash_points import Io, arm, passing
assert arm({"HEADWATER_CRASH_AT": "append:after:2"}) == "append:after:2"
for number in range(3):
    with passing(Io.APPEND):
        os.write(1, str(number).encode())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, b"01")


def worker(bus: MemoryBus, folder: Path, name: str, pace_s: float) -> Worker:
    def train(model: dict[str, np.ndarray], context: TrainContext) -> LocalResult:
        context.stop.wait(pace_s)
        model["b"] += np.float32(0.1)
        return LocalResult(num_examples=3, num_steps=20, metrics={"loss": 1.0})

    model = {tensor.name: np.zeros(tensor.shape, np.float32) for tensor in LAYOUT.tensors}
    limits = Limits(backoff_initial_s=0.01, backoff_max_s=0.05)
    return Worker(
        task=TASK, client_id=name, model=model, train=train, bus=bus, state_dir=folder / name, limits=limits, seed=1
    )


async def test_every_point_is_passed_in_a_short_life_of_a_task(tmp_path: Path) -> None:
    passed, commits = set[str](), topic_name(TASK, Topic.COMMITS)
    async with MemoryBus(MemoryLog()) as bus:
        with heard(passed.add):
            await make_task(bus, TASK, keyframe_every=2, max_staleness=1, buffer_size=1, flush_deadline_s=0.05)
            devices = [worker(bus, tmp_path, name, pace_s) for name, pace_s in (("a", 0.0), ("b", 0.2))]
            lives = [asyncio.create_task(device.serve()) for device in devices]
            by_hand = await Device(bus, TASK, "c").enter()
            await by_hand.send(b"no update at all")
            for last in ("tombstone:after", "store_given_back:after"):
                async with running(bus, TASK, keep_parts_s=0.0, cache=KeyframeCache(tmp_path, TASK)):
                    await until(lambda last=last: last in passed)  # type: ignore[misc]
            while "read_commits:after" not in passed:  # passed by who begins behind a keyframe, not right at one
                end = await bus.end_offsets(commits)
                async with running(bus, TASK):
                    while await bus.end_offsets(commits) == end:
                        await asyncio.sleep(0.01)
            for device in devices:
                device.stop()
            await asyncio.gather(*lives)
            async with running(bus, TASK):
                await until(lambda: "watch:after" in passed)
    assert set(POINTS) - passed == set(points_of(*MENDING))  # nothing was lost
