"""Error feedback and the correction for unequal local work."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_topics.codecs import decode
from broker_topics.errors import ConfigError
from broker_topics.layout import Layout, Tensor
from broker_topics.messages import Update
from broker_topics.task import TaskSettings
from worker.residual import NonFiniteError, give_back, pack, total_of
from worker.result import LocalResult, pull_of
from worker.state import Base, DeviceState, Queued, Row

SIZE = 5000
LAYOUT = Layout(tensors=(Tensor(name="w", shape=(SIZE,)),))


def queued(delta: np.ndarray, *, work: int = 1, steps: int = 10, pull: float = 10.0) -> Queued:
    base = Base(version=3, hash=b"12345678", vector=np.zeros_like(delta))
    return Queued(base=base, local=delta, work=work, steps=steps, pull=pull, num_examples=8, since_s=0.0)


def packed(state: DeviceState, waiting: Queued, settings: TaskSettings) -> tuple[Row, np.ndarray]:
    after, row = pack(state, waiting, task="t", client_id="w-1", layout=LAYOUT, settings=settings)
    return row, after.residual


def noise(seed: int, size: int = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(size).astype(np.float32)


@pytest.mark.parametrize("codec", ["float32", "bfloat16", "int8", "sparse"])
def test_what_is_sent_and_what_is_kept_are_exactly_what_there_was(codec: str) -> None:
    state = DeviceState(residual=noise(1))
    settings = TaskSettings(codec=codec, reference_steps=0.0)
    row, residual = packed(state, queued(noise(2)), settings)
    sent = decode(Update.from_bytes(row.data).encoded).to_vector()
    assert np.array_equal(sent + residual, noise(2) + noise(1))


def test_a_refused_record_brings_the_residual_back_to_what_it_was() -> None:
    state = DeviceState(residual=noise(1))
    row, residual = packed(state, queued(noise(2)), TaskSettings(reference_steps=0.0))
    assert np.array_equal(give_back(residual, row), noise(2) + noise(1))


def test_an_update_at_one_percent_is_two_hundred_times_smaller_than_float32() -> None:
    row, _ = packed(DeviceState(residual=np.zeros(SIZE, np.float32)), queued(noise(2)), TaskSettings())
    assert len(row.data) < 4 * SIZE / 80  # header and all, on a vector of only 5,000 numbers


def test_the_header_says_what_is_in_the_record() -> None:
    state = DeviceState(residual=noise(1), incarnation=4, sequence=9, carry=2.0)
    row, _ = packed(state, queued(noise(2), work=3, steps=25), TaskSettings())
    update = Update.from_bytes(row.data)
    assert (update.task, update.client_id, update.layout) == ("t", "w-1", LAYOUT.fingerprint)
    assert (update.incarnation, update.sequence) == (4, 10)
    assert (update.base_version, update.base_hash) == (3, b"12345678")
    assert (update.num_examples, update.num_steps, update.work) == (8, 25, 5.0)


def test_small_tensors_travel_whole_where_the_task_says_so() -> None:
    layout = Layout(tensors=(Tensor(name="w", shape=(SIZE - 4,)), Tensor(name="b", shape=(4,))))
    delta = noise(2)
    delta[-4:] = 0.001
    settings = TaskSettings(reference_steps=0.0, dense_tensors_up_to=4)
    state = DeviceState(residual=np.zeros(SIZE, np.float32))
    after, row = pack(state, queued(delta), task="t", client_id="w-1", layout=layout, settings=settings)
    sent = decode(Update.from_bytes(row.data).encoded).to_vector()
    assert sent[-4:] == pytest.approx(0.001, rel=0.01)
    assert np.array_equal(sent + after.residual, delta)


def test_an_update_fits_into_the_task_s_limit_by_sending_fewer_values() -> None:
    settings = TaskSettings(reference_steps=0.0, density=0.2, max_update_bytes=1400)
    row, _ = packed(DeviceState(residual=np.zeros(SIZE, np.float32)), queued(noise(2)), settings)
    assert len(row.data) <= 1400


@pytest.mark.parametrize(("steps", "factor"), [(10, 2.0), (20, 1.0), (80, 0.25)])
def test_each_training_counts_as_the_reference_number_of_steps(steps: int, factor: float) -> None:
    delta, zeros = noise(2), np.zeros(SIZE, np.float32)
    total = total_of(queued(delta, steps=steps, pull=float(steps)), zeros, TaskSettings(reference_steps=20.0))
    assert np.array_equal(total, delta * np.float32(factor))


def test_four_merged_trainings_count_as_four() -> None:
    delta, zeros = noise(2), np.zeros(SIZE, np.float32)
    total = total_of(queued(delta, work=4, steps=40, pull=40.0), zeros, TaskSettings(reference_steps=20.0))
    assert np.array_equal(total, delta * np.float32(2.0))


def test_the_residual_is_not_scaled_a_second_time() -> None:
    total = total_of(queued(noise(2), pull=10.0), noise(1), TaskSettings(reference_steps=20.0))
    assert np.array_equal(total, noise(2) * np.float32(2) + noise(1))


def test_nothing_handed_in_is_changed() -> None:
    waiting, state = queued(noise(2)), DeviceState(residual=noise(1))
    packed(state, waiting, TaskSettings())
    assert np.array_equal(waiting.local, noise(2))
    assert np.array_equal(state.residual, noise(1))
    assert not waiting.base.vector.any()


def test_work_that_is_not_finite_is_refused_before_it_touches_the_residual() -> None:
    delta = noise(2)
    delta[7] = np.nan
    with pytest.raises(NonFiniteError):
        total_of(queued(delta), noise(1), TaskSettings())


def test_a_sum_beyond_float32_is_refused() -> None:
    huge = np.full(SIZE, 3e38, np.float32)
    with pytest.raises(NonFiniteError):
        total_of(queued(huge), huge, TaskSettings(reference_steps=0.0))


def moved_by(steps: int, momentum: float, shrink: float) -> float:
    """How far an optimizer moves a number whose gradient is always −1, at a learning rate of 1."""
    moved = velocity = 0.0
    for _ in range(steps):
        velocity = momentum * velocity + 1.0 - shrink * moved
        moved += velocity
    return moved


@given(
    steps=st.integers(0, 300),
    momentum=st.sampled_from([0.0, 0.5, 0.9]),
    shrink=st.sampled_from([0.0, 0.001, 0.1]),
)
def test_the_pull_of_local_steps_is_how_far_an_optimizer_moves(steps: int, momentum: float, shrink: float) -> None:
    assert pull_of(steps, momentum=momentum, shrink=shrink) == pytest.approx(moved_by(steps, momentum, shrink))


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"num_examples": 0}, "num_examples"),
        ({"num_examples": 3.0}, "num_examples"),
        ({"num_steps": -1}, "num_steps"),
        ({"momentum": 1.0}, "momentum"),
        ({"proximal": -0.1}, "proximal"),
        ({"metrics": {f"m{i}": 1.0 for i in range(17)}}, "metrics"),
        ({"metrics": {"": 1.0}}, "metric"),
        ({"metrics": {"loss": "low"}}, "loss"),
    ],
)
def test_a_result_out_of_range_names_the_field(fields: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        LocalResult(**{"num_examples": 1, "num_steps": 1, **fields})  # type: ignore[arg-type]
