"""Unequal local work is corrected on the device, before compression (conformance 10)."""

import numpy as np
import pytest

from broker_topics.layout import Vector
from broker_topics.task import TaskSettings
from tests.folding import Bench, scrambled
from worker.residual import total_of
from worker.result import pull_of
from worker.state import Base, Queued

SIZE = 300
COHORT = 8
NOTHING = np.zeros(SIZE, np.float32)


def sent(delta: Vector, steps: int, reference_steps: float, momentum: float = 0.0) -> Vector:
    """What a device puts into its update after `steps` local steps that moved it by `delta`."""
    base = Base(version=0, hash=bytes(8), vector=NOTHING)
    pull = pull_of(steps, momentum=momentum)
    queued = Queued(base=base, local=delta, work=1, steps=steps, pull=pull, num_examples=10, since_s=0.0)
    return total_of(queued, NOTHING, TaskSettings(reference_steps=reference_steps))


def test_with_equal_step_counts_normalised_averaging_is_federated_averaging() -> None:
    """Wang et al. 2020, arXiv:2007.07481, section 4: equal ‖a‖₁ = a_ref leave every delta as it is."""
    bench = Bench.of(scrambled(SIZE, seed=1), rule="fedbuff", buffer_size=COHORT)
    expected = np.zeros(SIZE, np.float32)
    for i in range(COHORT):
        delta = scrambled(SIZE, seed=10 + i)
        bench.send(f"w-{i}", sent(delta, steps=20, reference_steps=20.0))
        expected += np.float32(1 / COHORT) * delta
    bench.step()
    assert bench.state.x.tobytes() == (scrambled(SIZE, seed=1) + expected).tobytes()


def test_a_device_with_more_local_steps_does_not_pull_the_model_to_itself() -> None:
    """The same direction, four times the steps and four times as far: each device moves the model equally."""
    bench = Bench.of(NOTHING, buffer_size=2)
    direction = scrambled(SIZE, seed=3)
    short = sent(direction, steps=10, reference_steps=20.0)
    long = sent(np.float32(-4) * direction, steps=40, reference_steps=20.0)
    bench.send("short", short)
    bench.send("long", long)
    bench.step()
    assert short.tobytes() == (np.float32(2) * direction).tobytes()
    assert np.abs(bench.state.x).max() == 0.0


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_the_norm_of_the_steps_is_the_sum_of_what_each_gradient_came_to(momentum: float) -> None:
    """‖a‖₁ = [m − ρ(1 − ρ^m) / (1 − ρ)] / (1 − ρ), counted here step by step."""
    velocity = total = 0.0
    for _ in range(17):
        velocity = momentum * velocity + 1.0
        total += velocity
    assert pull_of(17, momentum=momentum) == pytest.approx(total)
