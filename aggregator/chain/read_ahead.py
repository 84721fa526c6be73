"""Reads a file into memory in a thread, from the very start of a process: what is to come is imported meanwhile.

The standard library only, and nothing of ours, so that it can begin before anything large is imported.
"""

import mmap
import threading
from contextlib import suppress
from pathlib import Path

SUFFIX = ".vectors"


class ReadAhead:
    """The newest file of a task's cache folder, read once; every fault of disk or folder counts as no file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path: Path | None = None
        self._memory: mmap.mmap | None = None
        self._thread = threading.Thread(target=self._read, name="read-ahead", daemon=True)
        self._thread.start()

    def take(self, path: Path) -> mmap.mmap | None:
        """The bytes of the file at `path`, the caller's own from now on; None where another one was read, or none.

        Waits until reading has ended; a second call finds nothing.
        """
        self._thread.join()
        memory, self._memory = self._memory, None
        return memory if path == self._path else None

    def _read(self) -> None:
        with suppress(OSError, ValueError):
            newest = max(self._folder.glob(f"*{SUFFIX}"), key=lambda path: path.stat().st_mtime_ns)
            with newest.open("rb", buffering=0) as file:
                memory = _memory(newest.stat().st_size)
                view, filled = memoryview(memory), 0
                while count := file.readinto(view[filled:]):
                    filled += count
                if filled == len(view):
                    self._path, self._memory = newest, memory


def _memory(size: int) -> mmap.mmap:
    """So many bytes, in the largest pages that the machine gives: finding them one by one takes longer than reading."""
    memory = mmap.mmap(-1, size)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):
            memory.madvise(mmap.MADV_HUGEPAGE)
    return memory
