"""Models that are PyTorch modules: their parameters, in the module's own order, on the module's own device."""

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from broker_topics.errors import ConfigError
from broker_topics.layout import Layout, Tensor, Vector

if TYPE_CHECKING:
    from torch import nn


class TorchModel:
    """Adapts a `torch.nn.Module`: every parameter, frozen ones too; tied parameters are one entry.

    Raises:  ConfigError: a parameter that is not float32, or statistics that are kept beside the parameters (batch
             norm): they describe one device's data and do not survive averaging.
    """

    def __init__(self, module: "nn.Module") -> None:
        _check_buffers(module)
        self._module = module
        self._layout = Layout(
            tensors=tuple(
                Tensor(name=name, shape=tuple(p.shape), dtype=str(p.dtype).removeprefix("torch."))
                for name, p in _parameters(module)
            )
        )

    @property
    def layout(self) -> Layout:
        """Names, shapes and order, as in `named_parameters`."""
        return self._layout

    def read(self) -> Vector:
        """The parameters as a new float32[P] on the CPU; raises ConfigError where the module has changed."""
        return self._layout.flatten({name: p.detach().cpu().numpy() for name, p in _parameters(self._module)})

    def load(self, vector: Vector) -> None:
        """Write float32[P] into the parameters, wherever they live; gradients are dropped."""
        _load(self._module, self._layout, vector)

    def copy_with(self, vector: Vector) -> "nn.Module":
        """A new module, in evaluation mode, that holds float32[P]."""
        module = copy.deepcopy(self._module)
        _load(module, self._layout, vector)
        return module.eval()


def _parameters(module: "nn.Module") -> "Iterator[tuple[str, nn.Parameter]]":
    return module.named_parameters(remove_duplicate=True)


def _load(module: "nn.Module", layout: Layout, vector: Vector) -> None:
    import torch

    views = layout.unflatten(vector)
    with torch.no_grad():
        for name, parameter in _parameters(module):
            # A copy, as torch refuses to look at memory that numpy has marked read-only without a warning.
            parameter.copy_(torch.from_numpy(np.array(views[name])))
            parameter.grad = None


def _check_buffers(module: "nn.Module") -> None:
    kept = module.state_dict(keep_vars=True).keys()
    for name, buffer in module.named_buffers():
        if name in kept and buffer.is_floating_point():
            raise ConfigError(
                f"the model keeps {name} beside its parameters, as batch norm does with statistics of one device's "
                "data: use torch.nn.GroupNorm in its place; register a constant with persistent=False"
            )
