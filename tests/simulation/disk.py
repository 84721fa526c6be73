"""The product's own outbox on a real file, and power cuts in the middle of its writes."""

import shutil
from pathlib import Path
from random import Random

from worker.outbox import SqliteOutbox
from worker.outbox_format import Owner, blobs_of, write_facts
from worker.state import DeviceState

_FILES = ("outbox.sqlite", "outbox.sqlite-wal")


class Disk:
    """A device's folder from one life to the next. A new life finds what the last one had brought to the disk.

    Args:  home: an empty folder of its own.
    """

    def __init__(self, home: Path, rng: Random) -> None:
        self._home, self._rng = home, rng
        self._lives = 0
        self._outbox: SqliteOutbox | None = None
        self._owner: Owner | None = None

    def open(self, owner: Owner) -> DeviceState | None:
        """Begin a life: the files as they lie, without what a dead process still had in its hands."""
        self._owner = owner
        self._begin(self._folder if self._outbox else None)
        assert self._outbox is not None
        return self._outbox.open(owner)

    def save(self, state: DeviceState) -> None:
        """One transaction, whole."""
        assert self._outbox is not None
        self._outbox.save(state)

    def save_torn(self, state: DeviceState) -> None:
        """A power cut while the transaction is being written: of its last bytes some reached the disk."""
        assert self._outbox is not None
        log = self._folder / _FILES[1]
        before = log.stat().st_size if log.exists() else 0
        self._outbox.save(state)
        after = log.stat().st_size
        self._begin(self._folder, cut=self._rng.randint(before, after) if after > before else None)

    def put_back(self, state: DeviceState) -> None:
        """A backup takes the place of the file."""
        self._begin(None)
        if self._owner is not None and self._outbox is not None:
            self._outbox.open(self._owner)
            self._outbox.save(state)

    @property
    def _folder(self) -> Path:
        return self._home / str(self._lives)

    def _begin(self, source: Path | None, cut: int | None = None) -> None:
        """Copy the files, then let the last life go: closing it tidies up only behind the copy."""
        old, self._lives = self._outbox, self._lives + 1
        self._folder.mkdir()
        for name in _FILES if source else ():
            if source is not None and (source / name).exists():
                shutil.copyfile(source / name, self._folder / name)
        if cut is not None:
            with (self._folder / _FILES[1]).open("r+b") as log:
                log.truncate(cut)
        self._outbox = SqliteOutbox(self._folder)
        if old is not None:
            old.close()
            shutil.rmtree(old.folder, ignore_errors=True)

    def close(self) -> None:
        """The end."""
        if self._outbox is not None:
            self._outbox.close()


def same(one: DeviceState | None, other: DeviceState | None) -> bool:
    """Whether two states are equal in every byte that an outbox stores."""
    if one is None or other is None:
        return one is other
    owner = Owner(task="", client_id="", layout=0, size=0)
    left, right = blobs_of(one), blobs_of(other)
    return write_facts(owner, one) == write_facts(owner, other) and left == right
