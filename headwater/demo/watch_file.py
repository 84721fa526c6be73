"""Reads seglearn's recordings without running code from the file: a NumPy object file is a pickle in disguise."""

import importlib.util
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from broker_topics.errors import ConfigError, ToolMissingError

AXES = ("ax", "ay", "az", "wx", "wy", "wz")
WRISTS = ("left", "right")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """One person doing one exercise, as one wrist felt it."""

    wearer: int
    wrist: str
    exercise: int
    samples: npt.NDArray[np.float64]
    """float64[T, 6]: acceleration in g, then rotation in rad/s, on three axes at 50 Hz."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchFile:
    """All recordings, and the names of the exercises that they are numbered by."""

    recordings: tuple[Recording, ...]
    exercises: tuple[str, ...]


def find_watch_file() -> Path:
    """Where the installed seglearn package keeps its recordings; seglearn itself is not imported."""
    spec = importlib.util.find_spec("seglearn")
    if spec is None or spec.origin is None:
        raise ToolMissingError("the demo's recordings come with seglearn, not installed; pip install 'headwater[demo]'")
    path = Path(spec.origin).parent / "data" / "watch_dataset.npy"
    if not path.is_file():
        raise ToolMissingError(
            f"seglearn is installed without {path.name}; reinstall it: pip install 'headwater[demo]'"
        )
    return path


def read_watch_file(path: Path) -> WatchFile:
    """Read the recordings, admitting numbers, texts, lists, mappings and numeric arrays only.

    Raises:  ConfigError: if the file holds anything else, or not what the demo expects.
    """
    with path.open("rb") as file:
        try:
            content = _read_object(file)
            return _watch_file(content)
        except (ValueError, KeyError, TypeError, IndexError, EOFError, AttributeError, pickle.UnpicklingError) as error:
            raise ConfigError(f"{path.name} is not the recordings of seglearn 1.2 ({error}); reinstall it") from error


def _read_object(file: BinaryIO) -> object:
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("unknown version of the NumPy file format")
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    if shape != () or dtype != np.dtype(object):
        raise ValueError("not a single object")
    array = _ArraysOnly(file).load()
    # The object is wrapped in an array of no dimensions and one element.
    return array.item() if isinstance(array, np.ndarray) and array.shape == () else array


class _ArraysOnly(pickle.Unpickler):
    """Admits the four names that a pickled array needs, each replaced by a function that can do nothing else."""

    def find_class(self, module: str, name: str) -> Callable[..., object]:
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} is not admitted") from None


class _ArrayType:
    """Stands for `numpy.ndarray`, as an argument only."""


def _empty_array(kind: object, shape: object, typecode: object) -> npt.NDArray[Any]:
    """An array of no elements; the pickle's next instruction fills it."""
    if kind is not _ArrayType or shape != (0,) or typecode != b"b":
        raise pickle.UnpicklingError("an array is not built as NumPy builds it")
    return np.ndarray((0,), dtype=np.int8)


def _dtype(code: object, *flags: object) -> np.dtype[Any]:
    if code not in ("f8", "i8", "O8"):
        raise pickle.UnpicklingError(f"arrays of {code!r} are not admitted")
    return np.dtype(str(code), False, True)  # a copy: the next instruction sets its byte order in place


def _latin1(text: object, encoding: object) -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError("bytes are not written as NumPy writes them")
    return text.encode("latin1")


_ADMITTED: dict[tuple[str, str], Callable[..., object]] = {
    ("numpy", "ndarray"): _ArrayType,
    ("numpy", "dtype"): _dtype,
    ("numpy.core.multiarray", "_reconstruct"): _empty_array,
    ("_codecs", "encode"): _latin1,
}


def _watch_file(content: object) -> WatchFile:
    """Check every shape before anything is used."""
    if not isinstance(content, dict):
        raise ValueError("not a mapping")
    if tuple(content["X_labels"]) != AXES:
        raise ValueError("the axes differ")
    exercises = tuple(str(name) for name in content["y_labels"])
    columns = (content["X"], content["y"], content["subject"], content["side"])
    recordings = tuple(_recording(*row, exercises=len(exercises)) for row in zip(*columns, strict=True))
    if not recordings:
        raise ValueError("no recordings")
    return WatchFile(recordings=recordings, exercises=exercises)


def _recording(samples: Any, exercise: Any, wearer: Any, side: Any, *, exercises: int) -> Recording:
    if not isinstance(samples, np.ndarray) or samples.dtype != np.float64 or samples.shape[1:] != (len(AXES),):
        raise ValueError("a recording is not an array of six axes")
    if not np.isfinite(samples).all():
        raise ValueError("a recording holds numbers that are not finite")
    if not 0 <= int(exercise) < exercises or float(side) not in (0.0, 1.0):
        raise ValueError("a recording has an unknown exercise or wrist")
    return Recording(wearer=int(wearer), wrist=WRISTS[int(side)], exercise=int(exercise), samples=samples)
