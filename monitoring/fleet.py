"""How fairly the fleet is heard: the gauges of participation, from what the aggregator knows of each device."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from monitoring.metrics import Metrics, Speed

Floats = npt.NDArray[np.float64]


SILENT = 5.0
"""A device is silent after so many times its usual distance between two updates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """How the devices of a fleet are heard, float64[N] each; N may be 0.

    updates: applied updates of each device. weights: its total contribution weight. shares: its share in the objective
    (need not add up to 1). gaps: its usual distance between two updates; the largest tenth is the slowest.
    """

    updates: Floats
    weights: Floats
    shares: Floats
    gaps: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Fairness:
    """Shares lie in 0..1; `participation`, `weight` and `data` each add up to 1 over the three speeds."""

    participation: dict[Speed, float]
    weight: dict[Speed, float]
    data: dict[Speed, float]
    bias: float
    weight_gini: float


def fairness(heard: Heard) -> Fairness:
    """Compare how the fleet is heard with how it should count; all zero where there is nothing to compare."""
    updates, weights, due = _normal(heard.updates), _normal(heard.weights), _normal(heard.shares)
    speeds = by_speed(heard.gaps)
    return Fairness(
        participation={speed: float(updates[devices].sum()) for speed, devices in speeds.items()},
        weight={speed: float(weights[devices].sum()) for speed, devices in speeds.items()},
        data={speed: float(due[devices].sum()) for speed, devices in speeds.items()},
        bias=float(np.abs(weights - due).sum() / 2),
        weight_gini=gini(heard.weights),
    )


def by_speed(gaps: Floats) -> dict[Speed, npt.NDArray[np.intp]]:
    """Which devices are fast and which slow; each belongs to one speed, and a tenth has one device at least."""
    slowest_first = np.argsort(-gaps, kind="stable")
    tenth = -(-len(gaps) // 10) if len(gaps) > 1 else 0
    return {
        "fastest_tenth": slowest_first[len(gaps) - tenth :],
        "middle": slowest_first[tenth : len(gaps) - tenth],
        "slowest_tenth": slowest_first[:tenth],
    }


def silent_shares(*, gaps: Floats, silence: Floats) -> dict[Speed, float]:
    """Of each speed the share of devices that were silent for longer than SILENT times their usual gap; 0 for none.

    >>> silent_shares(gaps=np.array([1.0] * 9 + [10.0]), silence=np.array([5.0] * 8 + [6.0, 49.0]))
    {'fastest_tenth': 1.0, 'middle': 0.0, 'slowest_tenth': 0.0}
    """
    late = silence > SILENT * gaps
    return {speed: float(late[devices].mean()) if len(devices) else 0.0 for speed, devices in by_speed(gaps).items()}


def gini(values: Floats) -> float:
    """Gini coefficient of float64[N] >= 0: 0 when all are equal, (N - 1)/N when one has all; 0 for none.

    >>> gini(np.array([1.0, 1.0, 1.0])), gini(np.array([0.0, 0.0, 0.0, 8.0]))
    (0.0, 0.75)
    """
    total = float(values.sum())
    if total <= 0.0:
        return 0.0
    ranks = np.arange(1, len(values) + 1)
    return float((2 * ranks - len(values) - 1) @ np.sort(values) / (len(values) * total))


def export(metrics: Metrics, facts: Fairness) -> None:
    """Set the gauges of fairness."""
    for speed in facts.participation:
        metrics.participation_share.labels(speed=speed).set(facts.participation[speed])
        metrics.weight_share.labels(speed=speed).set(facts.weight[speed])
        metrics.data_share.labels(speed=speed).set(facts.data[speed])
    metrics.participation_bias.set(facts.bias)
    metrics.effective_weight_gini.set(facts.weight_gini)


def _normal(values: Floats) -> Floats:
    total = values.sum()
    return values / total if total > 0 else np.zeros_like(values)
