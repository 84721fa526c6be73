"""How a buffer's total moves the model, in place and in float32."""

import numpy as np
import pytest

from aggregator.fold.server_optimizer import Momentum, Sgd, server_optimizer
from broker_topics.task import TaskSettings
from tests.folding import scrambled, vector

SIZE = 200_003


def test_plain_steps_carry_nothing() -> None:
    assert Sgd(learning_rate=1.0).init(5) is None


def test_momentum_starts_at_rest() -> None:
    velocity = Momentum(learning_rate=1.0, momentum=0.9).init(3)
    assert velocity is not None
    assert velocity.tolist() == [0, 0, 0]


def test_a_plain_step_is_the_float32_formula_for_every_coordinate() -> None:
    """x ← x + η_g / divisor · total, also where the vector is longer than a stretch and no multiple of it."""
    x, total = scrambled(SIZE, seed=1), scrambled(SIZE, seed=2)
    expected, kept = x + np.float32(0.3 / 7) * total, total.copy()
    Sgd(learning_rate=0.3).update(x, total, None, divisor=7)
    assert x.tobytes() == expected.tobytes()
    assert total.tobytes() == kept.tobytes()


def test_a_momentum_step_is_the_float32_formula_for_every_coordinate() -> None:
    x, total, velocity = scrambled(SIZE, seed=1), scrambled(SIZE, seed=2), scrambled(SIZE, seed=3)
    moved = velocity * np.float32(0.9) + np.float32(1 / 7) * total
    expected = x + np.float32(0.3) * moved
    Momentum(learning_rate=0.3, momentum=0.9).update(x, total, velocity, divisor=7)
    assert velocity.tobytes() == moved.tobytes()
    assert x.tobytes() == expected.tobytes()


@pytest.mark.parametrize(("name", "kind"), [("sgd", Sgd), ("momentum", Momentum)])
def test_the_settings_choose(name: str, kind: type) -> None:
    assert isinstance(server_optimizer(TaskSettings(server_optimizer=name)), kind)


def test_momentum_keeps_moving_where_updates_have_ended() -> None:
    x, velocity = vector(0), vector(8)
    Momentum(learning_rate=1.0, momentum=0.5).update(x, vector(0), velocity, divisor=1)
    assert (x.tolist(), velocity.tolist()) == ([4.0], [4.0])
