"""What a training function returns, and how much pull on the model that amount of local work has."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Real

import numpy as np

from broker_topics.errors import ConfigError
from broker_topics.fields import COUNT

MAX_STEPS = 10**9
"""Local steps that one training may claim."""

_MAX_METRICS = 16
_MAX_NAME = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalResult:
    """What one local training did; the model itself is read after the function returns.

    num_examples: examples that this device holds, ≥ 1.
    num_steps: optimizer steps made, ≥ 0; with 0 the training counts as not made.
    metrics: named numbers for telemetry, such as the loss; at most 16.
    momentum: ρ of the local optimizer, 0 ≤ ρ < 1; plain SGD has 0. Adam and its kin count as plain SGD.
    proximal: μ of a proximal term that the function computed by itself; `context.proximal_term` notes its own.

    Raises:  ConfigError: a value out of range.
    """

    num_examples: int
    num_steps: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    momentum: float = 0.0
    proximal: float = 0.0

    def __post_init__(self) -> None:
        if not _is_count(self.num_examples) or not 1 <= self.num_examples <= COUNT:
            raise ConfigError(f"num_examples is {self.num_examples!r}: give the number of examples, at least 1")
        if not _is_count(self.num_steps) or not 0 <= self.num_steps <= MAX_STEPS:
            raise ConfigError(f"num_steps is {self.num_steps!r}: give the number of optimizer steps made")
        if not _is_number(self.momentum) or not 0 <= self.momentum < 1:
            raise ConfigError(f"momentum is {self.momentum!r}: give a number from 0 to below 1")
        if not _is_number(self.proximal) or not (math.isfinite(self.proximal) and self.proximal >= 0):
            raise ConfigError(f"proximal is {self.proximal!r}: give μ, a number from 0 on")
        if not _is_mapping(self.metrics):
            raise ConfigError(f"metrics is a {type(self.metrics).__name__}: give a dict, such as {{'loss': 0.5}}")
        if len(self.metrics) > _MAX_METRICS:
            raise ConfigError(f"{len(self.metrics)} metrics are too many: give at most {_MAX_METRICS}")
        for name, value in self.metrics.items():
            _check_metric(name, value)


def _check_metric(name: object, value: object) -> None:
    if not isinstance(name, str) or not 0 < len(name) <= _MAX_NAME or not name.isprintable():
        raise ConfigError(f"metric name {name!r}: give 1 to {_MAX_NAME} printable characters")
    if not _is_number(value):
        raise ConfigError(f"metric {name} is {type(value).__name__}: give a number, such as float(loss)")


def _is_count(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, Real)


def _is_mapping(value: object) -> bool:
    return isinstance(value, Mapping)


def pull_of(steps: int, *, momentum: float = 0.0, shrink: float = 0.0) -> float:
    """‖a‖₁: by how many plain gradient steps a local optimizer moves the model in `steps` steps.

    Args:    steps: m ≥ 0. momentum: ρ, 0 ≤ ρ < 1. shrink: η_l · μ of a proximal term, 0 ≤ shrink < 1.
    Returns: m for plain SGD; [m − ρ(1−ρ^m)/(1−ρ)]/(1−ρ) with momentum; (1 − (1−η_l μ)^m)/(η_l μ) with a proximal
             term; with both, the same sum carried out.
    Source:  Wang et al. 2020, arXiv:2007.07481 (FedNova).

    >>> pull_of(20), round(pull_of(3, momentum=0.5), 3), round(pull_of(2, shrink=0.1), 3)
    (20.0, 4.25, 1.9)
    """
    if not momentum and not shrink:
        return float(steps)
    if not shrink:
        return (steps - momentum * (1 - momentum**steps) / (1 - momentum)) / (1 - momentum)
    if not momentum:
        return (1 - (1 - shrink) ** steps) / shrink
    moved = velocity = 0.0
    for _ in range(steps):
        velocity = momentum * velocity + 1.0 - shrink * moved
        moved += velocity
    return moved
