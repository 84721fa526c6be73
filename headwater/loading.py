"""Finds the user's own function by the name `module:function`, in the current folder or among installed packages."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from broker_topics.errors import ConfigError


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
    except Exception as error:
        raise ConfigError(f"module {module_name} cannot be imported: {type(error).__name__}: {error}") from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise ConfigError(f"module {module_name} has no function {function_name}")
    found: Callable[..., Any] = function
    return found
