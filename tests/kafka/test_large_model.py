"""A model of 200 MB through a real Kafka: parts, sparse updates, kill -9, and an aggregator of bounded memory."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks.backlog import forget_task, make_task
from benchmarks.process import AggregatorProcess
from broker_topics.codecs import CodecId, Encoded, encode
from broker_topics.follow import Follower
from broker_topics.kafka import KafkaBus
from broker_topics.settings import ConnectionSettings
from tests.fleet import Device, chain_of

MODEL_BYTES = 200_000_000
VECTORS = 4
"""x, x̂, served and the accumulator."""

BASE_BYTES = 100_000_000
"""Interpreter, libraries, and what sends and fetches may hold."""


@pytest.fixture
async def task(bootstrap: str, task_name: str) -> AsyncIterator[str]:
    """A task of this test's own, whose topics are deleted with all they hold."""
    yield task_name
    await forget_task(bootstrap, task_name)


def some(seed: int) -> Encoded:
    """A delta in which one number in a thousand moves, as it travels."""
    rng, delta = np.random.default_rng(seed), np.zeros(MODEL_BYTES // 4, np.float32)
    delta[seed::1_000] = rng.standard_normal(len(delta[seed::1_000]), dtype=np.float32)
    return encode(delta, CodecId.SPARSE, density=0.001)


async def both_send(devices: list[Device], deltas: list[Encoded], version: int) -> None:
    """A sparse update of each device; returns when the version that they make was followed to."""
    for device, encoded in zip(devices, deltas, strict=True):
        await device.send(device.update(0.0, encoded=encoded).to_bytes())
    await devices[0].until_version(version)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process's peak memory: run this test there")
async def test_a_model_of_200_mb_is_trained_and_survives_kill_9_in_bounded_memory(
    bootstrap: str, task: str, tmp_path: Path
) -> None:
    log = tmp_path / "aggregator.log"
    async with KafkaBus(ConnectionSettings(bootstrap=bootstrap)) as bus:
        await make_task(bus, task, MODEL_BYTES // 4, buffer_size=2, keyframe_every=2)
        devices = [Device(bus, task, "w-1"), Device(bus, task, "w-2")]
        devices[0].follower = devices[1].follower = follower = Follower(bus, task)
        await follower.enter()
        deltas = [some(seed) for seed in (1, 2)]
        async with AggregatorProcess(bootstrap, task, log) as aggregator:
            for version in (1, 2):
                await both_send(devices, deltas, version)
            peaks = [aggregator.peak_bytes()]
            await aggregator.kill()
        async with AggregatorProcess(bootstrap, task, log) as aggregator:
            await both_send(devices, deltas, 3)
            peaks.append(aggregator.peak_bytes())
        newcomer = Follower(bus, task)
        await newcomer.enter()
        chain = await chain_of(bus, task)
        await follower.close()
        await newcomer.close()
    assert [record.body.version for record in chain] == [0, 1, 2, 3]
    assert [record.body.keyframe for record in chain] == [True, False, True, False]
    assert all(decision.accepted for record in chain for decision in record.body.decisions)
    assert np.array_equal(follower.model.hidden, newcomer.model.hidden)
    assert np.array_equal(follower.model.served, newcomer.model.served)
    assert follower.model.hidden.nbytes == MODEL_BYTES
    assert max(peaks) <= BASE_BYTES + (VECTORS + 2) * MODEL_BYTES
