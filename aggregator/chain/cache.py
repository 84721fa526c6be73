"""Keeps the vectors of the newest keyframes in a folder of this machine, so that a restart need not fetch them.

Nothing in the folder is believed: vectors count only if they lead to the very hashes that the chain names. Whatever
is wrong with it, the models topic has the same bytes.
"""

import asyncio
import hashlib
import mmap
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from aggregator.chain.read_ahead import SUFFIX, ReadAhead
from broker_topics.crash_points import Io, passing
from broker_topics.errors import BusError
from broker_topics.layout import Vector
from broker_topics.record import Body
from monitoring.logs import get_logger

_KEPT = 2
"""The newest may never become official, if its writer is killed in between: the one before is then still of use."""

_HALF = ".half-"
_LEFTOVER_S = 600.0

log = get_logger("aggregator")


class SpoiledCacheError(BusError):
    """What came from the cache does not lead to where the chain is; it is deleted, and whoever enters anew goes on."""


class KeyframeCache:
    """One task's part of a cache folder; every call blocks for as long as the disk takes, and none ever raises.

    ahead: what is reading the newest file of this folder already.
    on_trust: the keyframe whose vectors were given and not compared with any hash since.
    """

    def __init__(self, folder: Path, task: str, ahead: ReadAhead | None = None) -> None:
        self._folder, self._ahead = folder / task, ahead
        self.on_trust: Body | None = None

    def load(self, body: Body, names: Sequence[str], size: int) -> dict[str, Vector] | None:
        """The float32[size] vectors of a keyframe by name, not compared with any hash; None if they are not here.

        Whoever takes them sets `on_trust` to None once their hashes were compared, or calls `spoiled`.

        Args:    names: of the vectors, in alphabetical order.
        """
        with passing(Io.LOAD_CACHE):
            found = self._found(body, names, size)
        self.on_trust = body if found else None
        return found

    def spoiled(self, reason: str) -> SpoiledCacheError | None:
        """Delete what was given on trust; the error to raise, or None if nothing was."""
        body, self.on_trust = self.on_trust, None
        if body is None:
            return None
        self.ignore(body, reason)
        return SpoiledCacheError(f"the cached keyframe of version {body.version} is not the chain's")

    def _found(self, body: Body, names: Sequence[str], size: int) -> dict[str, Vector] | None:
        path = self._path(body)
        try:
            if not path.exists():
                return None
            if path.stat().st_size != len(names) * size * 4:
                self.ignore(body, "it is cut short or of another model")
                return None
            if (memory := self._read_already(path)) is not None and len(memory) == len(names) * size * 4:
                return {
                    name: np.frombuffer(memory, dtype="<f4", count=size, offset=index * size * 4)
                    for index, name in enumerate(names)
                }
            with path.open("rb") as file:
                return {name: np.fromfile(file, dtype="<f4", count=size) for name in names}
        except OSError as error:
            self.ignore(body, str(error))
            return None

    def _read_already(self, path: Path) -> mmap.mmap | None:
        ahead, self._ahead = self._ahead, None
        return ahead.take(path) if ahead is not None else None

    def ignore(self, body: Body, reason: str) -> None:
        """Say that what lies here is of no use, and delete it."""
        log.warning("keyframe_cache_ignored", version=body.version, reason=reason)
        with suppress(OSError):
            self._path(body).unlink(missing_ok=True)

    def store(self, body: Body, vectors: Mapping[str, Vector]) -> None:
        """Write the vectors of a keyframe, whole or not at all, and forget all but the newest two."""
        path = self._path(body)
        half = path.with_suffix(f"{_HALF}{os.getpid()}")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with half.open("wb") as file:
                for name in sorted(vectors):
                    file.write(np.ascontiguousarray(vectors[name], dtype="<f4").data)
            with passing(Io.CACHE_STORE):
                half.replace(path)
            for old in sorted(self._folder.glob(f"*{SUFFIX}"), key=lambda file: file.stat().st_mtime)[:-_KEPT]:
                old.unlink()
            self._sweep()
        except OSError as error:
            log.warning("keyframe_cache_failed", version=body.version, reason=str(error))
            with suppress(OSError):
                half.unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Delete what processes left half written that were killed; one that still writes is given its time."""
        for half in self._folder.glob(f"*{_HALF}*"):
            if time.time() - half.stat().st_mtime > _LEFTOVER_S:
                half.unlink(missing_ok=True)

    def _path(self, body: Body) -> Path:
        """Named after what is in it: two versions of equal vectors share a file."""
        name = hashlib.sha256(body.state_hash + body.hidden_hash + body.served_hash).hexdigest()
        return self._folder / f"{name[:32]}{SUFFIX}"


async def remember(cache: KeyframeCache | None, body: Body, vectors: Mapping[str, Vector] | None) -> None:
    """Keep a keyframe's vectors, which must not move meanwhile, at hand for the next process of this machine."""
    if cache is not None and vectors is not None:
        await asyncio.to_thread(cache.store, body, vectors)
