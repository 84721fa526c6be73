"""Between a user's own model and the flat float32 vector that all else speaks; one file for each kind of model."""

import sys
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from typing import Any, Protocol

from broker_topics.errors import ConfigError
from broker_topics.layout import Layout, Tensor, Vector

_SHOWN = 5


class Adapter(Protocol):
    """One model, seen as a flat float32[P] vector in the order of `layout`."""

    @property
    def layout(self) -> Layout:
        """Names, shapes and order; fixed for the adapter's life."""

    def read(self) -> Vector:
        """The model's numbers as a new float32[P]; raises ConfigError where the model has changed its shape."""

    def load(self, vector: Vector) -> None:
        """Write float32[P] into the model in place; the vector is not changed and not kept."""

    def copy_with(self, vector: Vector) -> Any:
        """A new model of the user's own kind that holds float32[P]; the adapter's own is left alone."""


def adapter_for(model: Any) -> Adapter:
    """The adapter for a PyTorch module or a mapping of names to numpy arrays.

    Raises:  ConfigError: another kind of model, or one whose numbers are not all float32.
    """
    if isinstance(model, Mapping):
        from worker.numpy_model import NumpyModel

        return NumpyModel(model)
    # Whoever made a torch module has imported torch; nobody else pays for the import.
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(model, torch.nn.Module):
        from worker.torch_model import TorchModel

        return TorchModel(model)
    raise ConfigError(
        f"a model of type {type(model).__name__} is not supported: give a PyTorch module or a dict of numpy arrays"
    )


def check_layout(mine: Layout, task: Layout) -> None:
    """Raise ConfigError with the first differing tensors unless both layouts are the same."""
    if mine.fingerprint == task.fingerprint:
        return
    different = list(_differences(mine, task))
    more = f" and {len(different) - _SHOWN} more" if len(different) > _SHOWN else ""
    raise ConfigError(
        "the model's tensors differ from the task's: "
        + "; ".join(different[:_SHOWN])
        + f"{more}. Build the model exactly as when the task was created"
    )


def _differences(mine: Layout, task: Layout) -> Iterator[str]:
    for number, (own, wanted) in enumerate(zip_longest(mine.tensors, task.tensors)):
        if own != wanted:
            yield f"tensor {number} is {_named(own)}, the task has {_named(wanted)}"


def _named(tensor: Tensor | None) -> str:
    return f"{tensor.name} {list(tensor.shape)}" if tensor is not None else "none"
