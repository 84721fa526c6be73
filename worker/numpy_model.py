"""Models that are a plain mapping of names to numpy arrays: for devices without a deep learning library."""

from collections.abc import Mapping, MutableMapping
from typing import Any

import numpy as np
import numpy.typing as npt

from broker_topics.errors import ConfigError
from broker_topics.layout import Layout, Vector

Arrays = Mapping[str, npt.NDArray[np.float32]]


class NumpyModel:
    """Adapts a mapping of names to float32 arrays, in the mapping's own order.

    Training may change the arrays in place or put new ones under the same names.

    Raises:  ConfigError: a value that is no float32 array, or cannot be written to.
    """

    def __init__(self, model: Mapping[str, Any]) -> None:
        for name, array in model.items():
            if not isinstance(array, np.ndarray) or array.dtype != np.float32:
                kind = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
                raise ConfigError(f"tensor {name!r} is {kind}, not float32: use array.astype(np.float32)")
            if not array.flags.writeable and not isinstance(model, MutableMapping):
                raise ConfigError(f"tensor {name!r} cannot be written to: give a copy of the array")
        self._model: Arrays = model
        self._layout = Layout.of(model)

    @property
    def layout(self) -> Layout:
        """Names, shapes and order."""
        return self._layout

    def read(self) -> Vector:
        """A new float32[P]; raises ConfigError where training left other names, shapes or types behind."""
        for name, array in self._model.items():
            kind = str(getattr(array, "dtype", type(array).__name__))
            if kind != "float32":
                raise ConfigError(f"tensor {name!r} became {kind}: keep it a float32 array")
        return self._layout.flatten(self._model)

    def load(self, vector: Vector) -> None:
        """Write the numbers into the arrays; an array that was replaced by an odd one gets a fresh one."""
        for name, view in self._layout.unflatten(vector).items():
            array = self._model.get(name)
            if isinstance(array, np.ndarray) and array.shape == view.shape and array.flags.writeable:
                array[...] = view
            elif isinstance(self._model, MutableMapping):
                self._model[name] = view.copy()
            else:
                raise ConfigError(f"tensor {name!r} cannot be written to: give a dict of arrays")

    def copy_with(self, vector: Vector) -> dict[str, npt.NDArray[np.float32]]:
        """A new dict of new arrays."""
        return {name: view.copy() for name, view in self._layout.unflatten(vector).items()}
