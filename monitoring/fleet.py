"""How fairly the fleet is heard: the gauges of participation, from what the aggregator knows of each device."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from monitoring.metrics import Metrics, Speed

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fairness:
    """Shares lie in 0..1; `participation` and `data` each add up to 1 over the three speeds."""

    participation: dict[Speed, float]
    data: dict[Speed, float]
    bias: float
    weight_gini: float


def fairness(*, updates: Floats, weights: Floats, shares: Floats, gaps: Floats) -> Fairness:
    """Compare how the fleet is heard with how it should count.

    Args:    updates: float64[N], applied updates of each device. weights: float64[N], its total contribution weight.
             shares: float64[N], its share in the objective (need not add up to 1). gaps: float64[N], its usual
             distance between two updates; the largest tenth is the slowest. None is changed. N may be 0.
    Returns: all zero where there is nothing to compare.
    """
    slowest_first = np.argsort(-gaps, kind="stable")
    tenth = -(-len(gaps) // 10) if len(gaps) > 1 else 0
    speeds: dict[Speed, npt.NDArray[np.intp]] = {
        "fastest_tenth": slowest_first[len(gaps) - tenth :],
        "middle": slowest_first[tenth : len(gaps) - tenth],
        "slowest_tenth": slowest_first[:tenth],
    }
    heard, weighed, due = _normal(updates), _normal(weights), _normal(shares)
    return Fairness(
        participation={speed: float(heard[devices].sum()) for speed, devices in speeds.items()},
        data={speed: float(due[devices].sum()) for speed, devices in speeds.items()},
        bias=float(np.abs(weighed - due).sum() / 2),
        weight_gini=gini(weights),
    )


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
        metrics.data_share.labels(speed=speed).set(facts.data[speed])
    metrics.participation_bias.set(facts.bias)
    metrics.effective_weight_gini.set(facts.weight_gini)


def _normal(values: Floats) -> Floats:
    total = values.sum()
    return values / total if total > 0 else np.zeros_like(values)
