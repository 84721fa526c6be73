"""How a model's named tensors lie in one flat float32 vector, and the fingerprint of that order."""

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import msgpack
import numpy as np
import numpy.typing as npt

from broker_topics.errors import ConfigError, RejectCode, WireError

Vector = npt.NDArray[np.float32]
"""float32[P]: a whole model, delta or residual, flat."""

_SHORTEST, _LONGEST = 1 << 16, 1 << 20
_PARTS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """One named tensor of a model; `shape` may be empty for a scalar."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Layout:
    """The ordered tensors of one model; devices and aggregator agree on it by fingerprint.

    >>> layout = Layout(tensors=(Tensor(name="w", shape=(2, 3)), Tensor(name="b", shape=(3,))))
    >>> layout.size
    9
    >>> [(t.name, s.start, s.stop) for t, s in layout.slices()]
    [('w', 0, 6), ('b', 6, 9)]
    """

    tensors: tuple[Tensor, ...] = field()

    def __post_init__(self) -> None:
        names = [tensor.name for tensor in self.tensors]
        if len(set(names)) != len(names):
            raise ConfigError("two tensors of the model share a name; give each its own")
        if not names or self.size == 0:
            raise ConfigError("the model has no trainable numbers")
        for tensor in self.tensors:
            if tensor.dtype != "float32":
                raise ConfigError(f"tensor {tensor.name} is {tensor.dtype}; only float32 models are supported")

    @cached_property
    def size(self) -> int:
        """P: how many float32 numbers the flat vector holds."""
        return sum(tensor.size for tensor in self.tensors)

    @cached_property
    def fingerprint(self) -> int:
        """A 64-bit hash of the ordered (name, shape, dtype) list; equal exactly when layouts agree."""
        return int.from_bytes(hashlib.sha256(self.to_bytes()).digest()[:8], "big")

    def slices(self) -> Iterator[tuple[Tensor, slice]]:
        """Each tensor with the part of the flat vector that it fills."""
        start = 0
        for tensor in self.tensors:
            yield tensor, slice(start, start + tensor.size)
            start += tensor.size

    def flatten(self, arrays: Mapping[str, npt.NDArray[np.float32]]) -> Vector:
        """Copy named arrays into one new float32[P] vector; raises ConfigError where they do not fit."""
        if set(arrays) != {tensor.name for tensor in self.tensors}:
            difference = sorted(set(arrays) ^ {tensor.name for tensor in self.tensors})
            raise ConfigError(f"the model's tensors differ from the task's: {', '.join(difference[:5])}")
        flat = np.empty(self.size, dtype=np.float32)
        for tensor, where in self.slices():
            array = arrays[tensor.name]
            if tuple(array.shape) != tensor.shape:
                raise ConfigError(f"tensor {tensor.name} has shape {tuple(array.shape)}, the task's is {tensor.shape}")
            flat[where] = np.asarray(array, dtype=np.float32).ravel()
        return flat

    def unflatten(self, flat: Vector) -> dict[str, npt.NDArray[np.float32]]:
        """Named views into float32[P]; nothing is copied."""
        return {tensor.name: flat[where].reshape(tensor.shape) for tensor, where in self.slices()}

    def to_bytes(self) -> bytes:
        """The ordered list as MessagePack; the same bytes on every machine."""
        packed: bytes = msgpack.packb([[t.name, list(t.shape), t.dtype] for t in self.tensors])
        return packed

    @classmethod
    def from_bytes(cls, data: bytes) -> "Layout":
        """Read what `to_bytes` wrote; raises WireError (malformed) on anything else."""
        try:
            rows: Sequence[Sequence[object]] = msgpack.unpackb(data)
            return cls(tensors=tuple(_tensor(row) for row in rows))
        except (ValueError, TypeError, ConfigError) as error:
            raise WireError(RejectCode.MALFORMED, f"layout cannot be read: {error}") from error

    @classmethod
    def of(cls, arrays: Mapping[str, npt.NDArray[np.float32]]) -> "Layout":
        """The layout of named arrays, in the mapping's own order."""
        return cls(tensors=tuple(Tensor(name=k, shape=tuple(a.shape), dtype=str(a.dtype)) for k, a in arrays.items()))


def _tensor(row: Sequence[object]) -> Tensor:
    name, shape, dtype = row
    if not isinstance(name, str) or not isinstance(shape, list) or not isinstance(dtype, str):
        raise ValueError("a tensor is a name, a shape and a dtype")
    if not all(isinstance(side, int) and 0 <= side <= 2**40 for side in shape):
        raise ValueError("a side of a tensor is out of range")
    return Tensor(name=name, shape=tuple(shape), dtype=dtype)


def stretch(size: int) -> int:
    """How many numbers of a vector to handle at a time where all of them are: a 32nd, within bounds.

    Scratch space stays small. But between two stretches another busy thread gets the interpreter for a millisecond, and
    65,536 numbers take a fiftieth of that: a large vector is not cut as finely as the processor's caches would like.

    >>> stretch(10_000), stretch(4_000_000), stretch(1_000_000_000)
    (65536, 125000, 1048576)
    """
    return max(_SHORTEST, min(_LONGEST, size // _PARTS))


def stretches(size: int) -> Iterator[slice]:
    """A vector of this size, cut into stretches."""
    length = stretch(size)
    for start in range(0, size, length):
        yield slice(start, min(start + length, size))
