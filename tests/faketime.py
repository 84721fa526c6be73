"""A wall clock that lies to a whole process, by Debian's faketime; the monotonic one is left alone."""

from pathlib import Path


def lying_clock() -> dict[str, str] | None:
    """The environment of a process whose wall clock lies, but for how it does; None where faketime is not installed."""
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    if library is None:
        return None
    return {"LD_PRELOAD": str(library), "FAKETIME_DONT_FAKE_MONOTONIC": "1", "FAKETIME_NO_CACHE": "1"}
