"""Writes a model where other tools can read it: numpy's npz, or safetensors."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from broker_topics.errors import ConfigError, ToolMissingError

_ENDINGS = (".npz", ".safetensors")


def check_ending(path: Path) -> None:
    """Raise ConfigError unless the file's ending names a format that can be written."""
    if path.suffix not in _ENDINGS:
        raise ConfigError(f"{path.name}: end the file name in .npz or .safetensors")
    if not path.parent.is_dir():
        raise ConfigError(f"folder {path.parent} does not exist; make it first")


def write_model(path: Path, tensors: Mapping[str, npt.NDArray[np.float32]], facts: Mapping[str, str]) -> None:
    """Write named float32 tensors; a reader never sees half a file.

    Args:    facts: text about the model; safetensors carries it in its header, npz as arrays named `about.…`.
    """
    beside = path.with_name(f".{path.stem}.partial{path.suffix}")
    if path.suffix == ".npz":
        about = {f"about.{name}": np.array(text) for name, text in facts.items()}
        np.savez(beside, allow_pickle=False, **{**dict(tensors), **about})
    else:
        try:
            from safetensors.numpy import save_file
        except ModuleNotFoundError:
            raise ToolMissingError(
                "safetensors is not installed: pip install 'headwater[torch]', or write .npz"
            ) from None
        save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, beside, dict(facts))
    beside.replace(path)
