"""Keeps the names of our packages ours: a user's own worker.py in the working directory must not stand in for them."""

import importlib.machinery
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

PACKAGES = ("broker_topics", "monitoring", "worker", "aggregator")

_ROOT = Path(__file__).resolve().parent.parent


class _OurPackagesFirst:
    """A finder on `sys.meta_path` that knows four names and leaves every other to the next finder."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Look for our packages beside this one only; submodules follow their package."""
        if path is not None or name not in PACKAGES:
            return None
        return importlib.machinery.PathFinder.find_spec(name, [str(_ROOT)], target)


def claim() -> None:
    """Make the four names ours from now on.

    Raises:  ConfigError: a module of the user's already took one of the names.
    """
    if _OurPackagesFirst not in sys.meta_path:
        sys.meta_path.insert(0, _OurPackagesFirst)
    foreign = {name: module for name in PACKAGES if (module := sys.modules.get(name)) and not _is_ours(name, module)}
    if not foreign:
        return
    if "broker_topics" in foreign:
        del sys.modules["broker_topics"]
    from broker_topics.errors import ConfigError

    name, module = next(iter(foreign.items()))
    raise ConfigError(
        f"the module {name!r} ({getattr(module, '__file__', None)}) was imported before headwater and hides "
        f"Headwater's package of that name: call your own module something else, or import headwater first"
    )


def _is_ours(name: str, module: ModuleType) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and Path(file).resolve() == _ROOT / name / "__init__.py"
