"""How a buffer's total moves the model: plain steps, or steps with momentum. A handful at a time, in place."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from broker_topics.layout import Vector, stretches
from broker_topics.task import TaskSettings


class ServerOptimizer(Protocol):
    """An init/update pair on the pseudo-gradient: the buffer's total over its divisor."""

    def init(self, size: int) -> Vector | None:
        """What the optimizer carries from step to step, float32[size] of zeros; None if nothing."""

    def update(self, x: Vector, total: Vector, velocity: Vector | None, *, divisor: int) -> None:
        """Move x (and velocity) in place; `total` is not modified."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sgd:
    """x ← x + η_g · total / divisor, element by element in float32."""

    learning_rate: float

    def init(self, size: int) -> Vector | None:
        """Nothing is carried."""
        return None

    def update(self, x: Vector, total: Vector, velocity: Vector | None, *, divisor: int) -> None:
        """Take one step."""
        rate = np.float32(self.learning_rate / divisor)
        for part in stretches(x.size):
            x[part] += rate * total[part]


@dataclass(frozen=True, slots=True, kw_only=True)
class Momentum:
    """v ← β v + total / divisor; x ← x + η_g v (FedAvgM).

    Source:  Hsu, Qi, Brown 2019, arXiv:1909.06335.
    """

    learning_rate: float
    momentum: float

    def init(self, size: int) -> Vector | None:
        """The velocity, at rest."""
        return np.zeros(size, dtype=np.float32)

    def update(self, x: Vector, total: Vector, velocity: Vector | None, *, divisor: int) -> None:
        """Take one step."""
        assert velocity is not None
        beta, share, rate = np.float32(self.momentum), np.float32(1.0 / divisor), np.float32(self.learning_rate)
        for part in stretches(x.size):
            velocity[part] *= beta
            velocity[part] += share * total[part]
            x[part] += rate * velocity[part]


def server_optimizer(settings: TaskSettings) -> ServerOptimizer:
    """The server optimizer that a task's settings choose."""
    if settings.server_optimizer == "momentum":
        return Momentum(learning_rate=settings.server_learning_rate, momentum=settings.server_momentum)
    return Sgd(learning_rate=settings.server_learning_rate)
