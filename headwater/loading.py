"""Finds the user's own function by the name `module:function`, in the current folder or among installed packages."""

import importlib
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from broker_topics.errors import ConfigError, HeadwaterError


def load_function(name: str) -> Callable[..., Any]:
    """The function that `module:function` names; the current folder is looked at first, as `python -m` does.

    Raises:  ConfigError: nothing of that name, or the module itself fails to import; the cause is in the message.
    """
    module_name, separator, function_name = name.partition(":")
    if not separator or not module_name or not function_name:
        raise ConfigError(f"{name!r}: write module:function, for example my_fleet:make_model")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.partition(".")[0] == module_name.partition(".")[0]:
            raise ConfigError(_not_found(module_name, function_name, here)) from error
        raise ConfigError(f"module {module_name} cannot be imported: {_said(error)}") from error
    except Exception as error:
        raise ConfigError(f"module {module_name} cannot be imported: {_said(error)}") from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise ConfigError(f"module {module_name} has no function {function_name}; it is {module.__file__}")
    found: Callable[..., Any] = function
    return found


def made_by(name: str) -> Any:
    """What the function that `module:function` names returns; it is called without arguments.

    Raises:  ConfigError: as `load_function`, and whatever the function itself raises, with the line at fault.
    """
    function = load_function(name)
    try:
        return function()
    except HeadwaterError:
        raise
    except Exception as error:
        raise ConfigError(f"{name} failed: {_said(error)}") from error


def _not_found(module_name: str, function_name: str, here: str) -> str:
    package = module_name.partition(".")[0]
    if module_name.endswith(".py"):
        return (
            f"{module_name}:{function_name}: leave out .py and write {module_name.removesuffix('.py')}:{function_name}"
        )
    return (
        f"there is no module {module_name} in {here} or among the installed packages; "
        f"run this in the folder of {package}.py, or correct the name"
    )


def _said(error: Exception) -> str:
    """The error, and the user's own line that led to it: neither our stack nor a library's is theirs to read."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_theirs(frame)]
    where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{where}"


def _is_theirs(frame: traceback.FrameSummary) -> bool:
    return not (frame.filename in (__file__, importlib.__file__) or frame.filename.startswith("<")) and not any(
        part in ("site-packages", "dist-packages") for part in Path(frame.filename).parts
    )
