"""What a training function is told, and the helpers that it may use."""

import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from broker_topics.errors import ConfigError
from broker_topics.layout import Layout, Vector
from broker_topics.task import TaskSettings

PROXIMAL_MU = 0.01
CLIP_NORM = 1.0


@dataclass(kw_only=True)
class TrainContext:
    """One local training: where it starts, what the task asks for, and when to stop.

    base_version: the model version that the work builds on.
    learning_rate, epochs: what the task tells its devices to use.
    deadline_s: seconds that this training may take, 0 for no limit.
    max_steps: steps after which this training should return; it is not cut off by force.
    seed: fresh for each training.
    stop: set when the device wants to end; return soon, with the work done so far.
    settings: all settings of the task; `settings.model` holds numbers of the task's own.
    """

    base_version: int
    learning_rate: float
    epochs: int
    deadline_s: float
    max_steps: int
    seed: int
    stop: threading.Event
    settings: TaskSettings
    base: Vector = field(repr=False)
    layout: Layout = field(repr=False)
    proximal_used: float = field(default=0.0, init=False)

    def proximal_term(self, model: Any, mu: float | None = None) -> Any:
        """FedProx: ½ μ ‖x − x_base‖², to be added to the loss; keeps a device from straying on its own data.

        Args:    model: the one that is being trained. mu: default the task's `model.proximal_mu`, else 0.01.
        Returns: a torch scalar with a gradient for a torch module; a float for a mapping of arrays, whose gradient is
                 `proximal_gradient`.
        Source:  Li et al. 2020, arXiv:1812.06127.
        """
        chosen = self._mu(mu)
        if isinstance(model, Mapping):
            return 0.5 * chosen * sum(float(np.square(model[n] - b).sum()) for n, b in self._bases().items())
        import torch

        bases = self._bases()
        total = sum(
            (p - torch.from_numpy(np.array(bases[n])).to(p.device)).square().sum() for n, p in model.named_parameters()
        )
        return 0.5 * chosen * total

    def proximal_gradient(
        self, model: Mapping[str, npt.NDArray[np.float32]], mu: float | None = None
    ) -> dict[str, npt.NDArray[np.float32]]:
        """Gradient of `proximal_term` for a mapping of arrays: μ (x − x_base), by name."""
        chosen = np.float32(self._mu(mu))
        return {name: chosen * (model[name] - base) for name, base in self._bases().items()}

    def clip(self, model: Any, max_norm: float | None = None) -> float:
        """Scale gradients down, in place, to an L2 norm of at most `max_norm` over all of them.

        Args:    model: a torch module after `backward`, or a mapping of names to gradient arrays.
                 max_norm: default the task's `model.clip_norm`, else 1.
        Returns: the norm before.
        """
        limit = self.settings.model.get("clip_norm", CLIP_NORM) if max_norm is None else max_norm
        if limit <= 0:
            raise ConfigError(f"clip norm is {limit}: give a number above 0")
        if not isinstance(model, Mapping):
            torch = sys.modules["torch"]
            return float(torch.nn.utils.clip_grad_norm_(model.parameters(), limit))
        norm = float(np.sqrt(sum(float(np.square(g, dtype=np.float64).sum()) for g in model.values())))
        if norm > limit:
            for gradient in model.values():
                np.multiply(gradient, np.float32(limit / norm), out=gradient)
        return norm

    def _mu(self, mu: float | None) -> float:
        chosen = self.settings.model.get("proximal_mu", PROXIMAL_MU) if mu is None else mu
        if not 0 <= chosen * self.learning_rate < 1:
            raise ConfigError(f"μ is {chosen}: it must be at least 0, and μ · learning rate below 1")
        self.proximal_used = chosen
        return chosen

    def _bases(self) -> dict[str, npt.NDArray[np.float32]]:
        return self.layout.unflatten(self.base)
