"""Every scenario by its name. A module adds its own with `scenario`, and its own name to `MODULES`."""

import importlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.chaos.ground import Ground

MODULES = ("crash_points", "kills", "zombies", "cuts", "network", "clocks", "storms")
"""Modules of this package that hold scenarios, in the order in which they run."""

Play = Callable[[Ground], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Scenario:
    """Something that is done to a fleet; `play` makes as many runs as it needs, each in `ground.run`."""

    name: str
    about: str
    play: Play


_SCENARIOS: dict[str, Scenario] = {}


def scenario(name: str, about: str) -> Callable[[Play], Play]:
    """Register a coroutine function of one `Ground` as a scenario."""

    def register(play: Play) -> Play:
        _SCENARIOS[name] = Scenario(name, about, play)
        return play

    return register


def scenarios() -> dict[str, Scenario]:
    """All of them, by name."""
    for module in MODULES:
        importlib.import_module(f"tests.chaos.{module}")
    return dict(_SCENARIOS)
