"""The outbox: a device's state in SQLite, one transaction an event, so that a power cut loses nothing that was stored.

WAL with synchronous=FULL: with NORMAL a power cut forgets a row that was sent, and its sequence is used again for other
bytes. A damaged file is moved aside whole, never read in half.
"""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock, Timeout

from broker_topics.crash_points import Io, passing
from broker_topics.errors import ConfigError
from worker.outbox_format import (
    FORMAT,
    PIECE_BYTES,
    DamagedError,
    Owner,
    blobs_of,
    pieces_of,
    read_facts,
    read_state,
    write_facts,
)
from worker.state import DeviceState

_FILE = "outbox.sqlite"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (id INTEGER PRIMARY KEY CHECK (id = 1), data BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS piece (
    blob TEXT NOT NULL, piece INTEGER NOT NULL, crc INTEGER NOT NULL, data BLOB NOT NULL,
    PRIMARY KEY (blob, piece)
) WITHOUT ROWID;
"""


class OutboxFullError(ConfigError):
    """The state cannot be written: the disk is full, or its limit is reached. What was stored before is whole."""


class Outbox(Protocol):
    """Where a device's state outlives the process."""

    def open(self, owner: Owner) -> DeviceState | None:
        """What was stored last; None for a new installation, or where the old state was damaged and moved aside.

        Raises:  ConfigError: another process uses it, or it belongs to another device, task or model.
        """

    def save(self, state: DeviceState) -> None:
        """Make the state durable, all of it or nothing; raises OutboxFullError."""

    def close(self) -> None:
        """Let go; may be opened again."""

    @property
    def moved_aside(self) -> Path | None:
        """Where `open` put a damaged outbox, if it met one."""

    @property
    def stored_bytes(self) -> int:
        """Bytes of the state as it was last saved or loaded."""


class SqliteOutbox:
    """The outbox in one folder, locked against a second process.

    Args:  max_bytes: what the state may take; 0 leaves it to the model's size (three vectors and one record).
    """

    def __init__(self, folder: Path, *, max_bytes: int = 0) -> None:
        self.folder = folder
        self.path = folder / _FILE
        self.moved_aside: Path | None = None
        self.stored_bytes = 0
        self._max_bytes = max_bytes
        self._lock = FileLock(folder / "lock", thread_local=False)
        self._owner: Owner | None = None
        self._database: sqlite3.Connection | None = None
        self._saved: dict[str, object] = {}

    def open(self, owner: Owner) -> DeviceState | None:
        """See `Outbox.open`."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise ConfigError(
                f"another process uses {self.folder}: stop it, or give this device a state_dir of its own"
            ) from None
        except OSError as error:
            raise ConfigError(f"state_dir {self.folder} cannot be used: {error}") from error
        try:
            return self._open(owner)
        except BaseException:
            self.close()
            raise

    def _open(self, owner: Owner) -> DeviceState | None:
        self._owner = owner
        try:
            return self._load(owner)
        except (DamagedError, sqlite3.DatabaseError) as error:
            if isinstance(error, sqlite3.OperationalError) and not _is_damage(error):
                raise ConfigError(f"the outbox {self.path} cannot be opened: {error}; {_mend(error)}") from error
            self._move_aside()
            self._database = self._connect()
            return None

    def _load(self, owner: Owner) -> DeviceState | None:
        self._database = self._connect()
        report = self._database.execute("PRAGMA quick_check(1)").fetchone()[0]
        if report != "ok":
            raise DamagedError(report)
        row = self._database.execute("SELECT data FROM facts").fetchone()
        if row is None:
            return None
        facts = read_facts(row[0])
        if facts.get("format") != FORMAT:
            raise ConfigError(f"the outbox {self.path} was written by another release: update Headwater")
        self._check_owner(facts["owner"], owner)
        blobs = {name: self._read_blob(name, length) for name, length in facts["blobs"].items()}
        state = read_state(facts, blobs)
        self._remember(state)
        return state

    def _check_owner(self, stored: dict[str, Any], owner: Owner) -> None:
        for name in ("task", "client_id", "layout", "size"):
            if stored.get(name) != getattr(owner, name):
                what = {"client_id": "device", "task": "task"}.get(name, "model")
                raise ConfigError(
                    f"the outbox in {self.folder} belongs to another {what}: give this one a state_dir of its own, "
                    "or delete the folder if its unsent work may go"
                )

    def save(self, state: DeviceState) -> None:
        """See `Outbox.save`; only what changed since the last time is written."""
        if self._database is None or self._owner is None:
            raise ConfigError("the outbox is closed; open it first")
        blobs = blobs_of(state)
        size = sum(map(len, blobs.values()))
        if self._max_bytes and size > self._max_bytes:
            raise OutboxFullError(
                f"the outbox {self.path} needs {size} bytes, {self._max_bytes} are allowed: raise outbox_max_bytes"
            )
        values = _large_values(state)
        try:
            with self._database:
                self._database.execute("BEGIN IMMEDIATE")
                with passing(Io.OUTBOX_WRITE):
                    for name, blob in blobs.items():
                        if self._saved.get(name) is not values[name]:
                            self._write_blob(name, blob)
                    for name in self._saved.keys() - values.keys():
                        self._database.execute("DELETE FROM piece WHERE blob = ?", [name])
                    facts = write_facts(self._owner, state)
                    self._database.execute("INSERT OR REPLACE INTO facts VALUES (1, ?)", [facts])
        except sqlite3.OperationalError as error:
            raise OutboxFullError(
                f"the outbox {self.path} cannot be written: {error}; {_mend(error)}. Nothing stored is lost"
            ) from error
        self._remember(state)

    def close(self) -> None:
        """Close the database and let another process have it."""
        if self._database is not None:
            self._database.close()
            self._database = None
        self._saved = {}
        self._lock.release()

    def _connect(self) -> sqlite3.Connection:
        # Used by one thread at a time, though not always the same one.
        database = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=5)
        try:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=FULL")
            database.execute("PRAGMA fullfsync=1")
            database.execute("PRAGMA checkpoint_fullfsync=1")
            database.execute(f"PRAGMA journal_size_limit={16 * PIECE_BYTES}")
            database.executescript(_SCHEMA)
        except BaseException:
            database.close()
            raise
        return database

    def _write_blob(self, name: str, blob: memoryview) -> None:
        assert self._database is not None
        self._database.execute("DELETE FROM piece WHERE blob = ?", [name])
        self._database.executemany(
            "INSERT INTO piece VALUES (?, ?, ?, ?)", ((name, p.index, p.crc, p.data) for p in pieces_of(blob))
        )

    def _read_blob(self, name: str, length: int) -> bytearray:
        assert self._database is not None
        blob = bytearray(length)
        into, filled = memoryview(blob), 0
        query = "SELECT data, crc FROM piece WHERE blob = ? ORDER BY piece"
        for data, crc in self._database.execute(query, [name]):
            if filled + len(data) > length:
                raise DamagedError(f"{name} is longer than it was")
            into[filled : filled + len(data)] = data
            piece = next(pieces_of(into[filled : filled + len(data)]))
            if piece.crc != crc:
                raise DamagedError(f"the CRC of {name} differs")
            filled += len(data)
        if filled != length:
            raise DamagedError(f"{name} is not complete")
        return blob

    def _remember(self, state: DeviceState) -> None:
        self._saved = _large_values(state)
        self.stored_bytes = sum(map(len, blobs_of(state).values()))

    def _move_aside(self) -> None:
        if self._database is not None:
            with closing(self._database):
                self._database = None
        aside, number = self.path.with_name(f"{_FILE}.corrupt"), 1
        while aside.exists():
            number += 1
            aside = self.path.with_name(f"{_FILE}.corrupt-{number}")
        for suffix in ("", "-wal", "-shm"):
            part = self.path.with_name(_FILE + suffix)
            if part.exists():
                part.rename(aside.with_name(aside.name + suffix))
        self.moved_aside = aside


class MemoryOutbox:
    """An outbox that outlives a device but not the process: for simulations and tests."""

    moved_aside = None
    stored_bytes = 0

    def __init__(self) -> None:
        self.state: DeviceState | None = None
        self.saves = 0

    def open(self, owner: Owner) -> DeviceState | None:
        """What was stored last."""
        return self.state

    def save(self, state: DeviceState) -> None:
        """Keep the state; states are never changed in place."""
        self.state = state
        self.saves += 1
        self.stored_bytes = sum(map(len, blobs_of(state).values()))

    def close(self) -> None:
        """Nothing to let go."""


def _large_values(state: DeviceState) -> dict[str, object]:
    values: dict[str, object] = {"residual": state.residual}
    if state.queued is not None:
        values["base"], values["local"] = state.queued.base.vector, state.queued.local
    if state.row is not None:
        values["row"] = state.row.data
    return values


def _is_damage(error: sqlite3.OperationalError) -> bool:
    return error.sqlite_errorname in {"SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_IOERR_SHORT_READ"}


def _mend(error: sqlite3.OperationalError) -> str:
    match error.sqlite_errorname.split("_")[1]:
        case "BUSY" | "LOCKED":
            return "close the program that has it open"
        case "READONLY" | "CANTOPEN" | "PERM" | "AUTH":
            return "let this user write to its folder"
        case _:
            return "free space on that disk, or see whether it is failing"
