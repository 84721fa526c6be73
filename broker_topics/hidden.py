"""The hidden model that devices train from, and the served average over its versions; both sides advance it alike.

Source:  quantized asynchronous learning with a hidden state, arXiv:2308.00263.
"""

from dataclasses import dataclass

import numpy as np

from broker_topics.codecs import Decoded
from broker_topics.hashing import tree_hash
from broker_topics.layout import Vector, stretch, stretches


@dataclass(slots=True)
class HiddenModel:
    """x̂ and the served average at one model version; equal bytes on the server and on every device.

    hidden: float32[P], what devices train from; advanced in place.
    served: float32[P], what people use; advanced in place.
    """

    version: int
    hidden: Vector
    served: Vector

    def advance(self, delta: Decoded | None, *, inputs: int, horizon: int) -> None:
        """Apply one server step: x̂ += delta, served += γ (x̂ − served), version + 1.

        Args:  delta: what the step published; None when x̂ does not move.
               inputs: updates in the step, 0 where the step has none of its own.
               horizon: H, updates over which the served model averages.
        γ is max(1 / (version + 1), min(1, inputs / H)), in float32, element by element: the same bits on any CPU.
        """
        if delta is not None:
            delta.add_to(self.hidden)
        rate = np.float32(max(1 / (self.version + 1), min(1.0, inputs / horizon)))
        size = self.hidden.size
        scratch = np.empty(min(stretch(size), size), dtype=np.float32)
        for part in stretches(size):
            hidden, served = self.hidden[part], self.served[part]
            step = np.subtract(hidden, served, out=scratch[: hidden.size])
            step *= rate
            served += step
        self.version += 1

    def hidden_hash(self) -> bytes:
        """32 bytes naming x̂; the first 8 are the base hash that updates carry."""
        return tree_hash(self.hidden)

    def served_hash(self) -> bytes:
        """32 bytes naming the served model."""
        return tree_hash(self.served)
