"""Bounds the cohorts that have series of their own: devices name them, and a device may say anything."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from broker_topics.messages import is_cohort
from monitoring.definitions import Family

OTHER: Final = "other"
"""Cohort of devices that state none, or one that has no series of its own."""

MAX_COHORTS: Final = 20
"""Cohorts that have series of their own, beside `other`."""


class Cohorts:
    """The label values that `families` share.

    Args:    pinned: the only cohorts that are counted by name; with none, the first MAX_COHORTS that are stated.
    """

    def __init__(self, families: Iterable[Family[Any]], pinned: Sequence[str] = ()) -> None:
        self._families = tuple(families)
        self._known = {OTHER}
        self._room = MAX_COHORTS
        for name in pinned:
            self.label(name)
        if pinned:
            self._room = 0

    def label(self, stated: str) -> str:
        """The label value for what a device stated: itself while there is room for another one, else `other`.

        A new one has all its series at once, at 0.
        """
        if stated and stated not in self._known and self._room and is_cohort(stated):
            self._known.add(stated)
            self._room -= 1
            for family in self._families:
                family.admit(stated)
        return stated if stated in self._known else OTHER
