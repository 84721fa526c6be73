"""What a local cluster leaves in its folder so that other commands find it."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from broker_topics.local.plan import write_whole

RUNNING_FILE = "broker.json"
LOCK_FILE = "broker.lock"
"""Held by the process that supervises the cluster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """What `broker.json` says of a cluster that runs: who supervises it and where it answers.

    `bootstrap` is empty and `node_pids` too while it starts.
    """

    pid: int
    bootstrap: str
    nodes: int
    node_pids: tuple[int, ...]


def note_running(data: Path, running: Running) -> None:
    """Write down what runs on `data`."""
    write_whole(data / RUNNING_FILE, json.dumps(asdict(running)))


def find_running(data: Path) -> Running | None:
    """The cluster that runs on `data`; None when there is none, also where a killed one left its file."""
    path = data / RUNNING_FILE
    if not path.exists():
        return None
    try:
        with FileLock(data / LOCK_FILE, blocking=False):
            return None
    except Timeout:
        pass
    try:
        kept = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    return Running(**kept | {"node_pids": tuple(kept["node_pids"])})
