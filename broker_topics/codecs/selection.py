"""Which coordinates of a vector are the largest: exact, in one pass, without a copy of the vector."""

from typing import Final

import numpy as np

from broker_topics.codecs.base import non_finite
from broker_topics.codecs.positions import Positions
from broker_topics.layout import Vector, stretch, stretches

_SAMPLE: Final = 8192
_SAMPLED_FROM: Final = 1 << 15


def largest(vector: Vector, k: int) -> Positions:
    """Where the k largest magnitudes lie; ties go to the lowest index, zeros are left out.

    Args:    vector: float32[n], not modified; k ≥ 1.
    Returns: int64[≤ k], rising; fewer than k only where fewer coordinates differ from zero.
    Raises:  WireError: non_finite if the vector holds an infinity or NaN.
    """
    floor = _likely_floor(vector, k)
    positions, complete = _search(vector, k, floor)
    if not complete and floor > 0:
        positions, _ = _search(vector, k, np.float32(0))
    return positions


def _search(vector: Vector, k: int, floor: np.float32) -> tuple[Positions, bool]:
    """The k largest of what exceeds `floor`, and whether there were as many."""
    size, length = len(vector), stretch(len(vector))
    scratch = np.empty(min(length, size), dtype=np.float32)
    places: list[Positions] = []
    magnitudes: list[Vector] = []
    held = 0
    for where in stretches(size):
        part = np.abs(vector[where], out=scratch[: where.stop - where.start])
        if not part.max() < np.inf:
            raise non_finite("the vector holds an infinity or NaN: lower the learning rate or clip the gradients")
        found = np.flatnonzero(part > floor)
        magnitudes.append(part[found])
        found += where.start
        places.append(found)
        held += len(found)
        if held >= 2 * k + length:
            _prune(places, magnitudes, k)
            held, floor = k, magnitudes[0].min()
    _prune(places, magnitudes, k)
    return places[0], held >= k


def _prune(all_places: list[Positions], all_magnitudes: list[Vector], k: int) -> None:
    """Join the lists' arrays into one each and keep the k largest; of those equal to the least of them, the first."""
    all_places[:] = [np.concatenate(all_places)]
    all_magnitudes[:] = [np.concatenate(all_magnitudes)]
    places, magnitudes = all_places.pop(), all_magnitudes.pop()
    if len(places) <= k:
        all_places.append(places)
        all_magnitudes.append(magnitudes)
        return
    least = np.partition(magnitudes, len(magnitudes) - k)[len(magnitudes) - k]
    keep = magnitudes > least
    ties = np.flatnonzero(magnitudes == least)
    keep[ties[: k - int(np.count_nonzero(keep))]] = True
    all_places.append(places[keep])
    all_magnitudes.append(magnitudes[keep])


def _likely_floor(vector: Vector, k: int) -> np.float32:
    """A magnitude that a few more than k coordinates exceed, guessed from an evenly spread sample."""
    size = len(vector)
    if size <= _SAMPLED_FROM:
        return np.float32(0)
    step = int(size * 0.6180339887) | 1
    sample = np.abs(vector[np.arange(_SAMPLE, dtype=np.int64) * step % size])
    expected = _SAMPLE * k / size
    rank = min(_SAMPLE - 1, int(expected + 4 * expected**0.5) + 4)
    guess = np.partition(sample, _SAMPLE - 1 - rank)[_SAMPLE - 1 - rank]
    return guess if guess < np.inf else np.float32(0)
