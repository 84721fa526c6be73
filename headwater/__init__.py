"""Headwater: asynchronous federated learning over Apache Kafka. `from headwater import Worker, LocalResult`.

Importing it makes sure that `worker`, `aggregator`, `broker_topics` and `monitoring` mean Headwater's packages, also
for somebody whose own script is called worker.py.
"""

import importlib
from typing import TYPE_CHECKING, Any

from headwater import _names

_names.claim()

if TYPE_CHECKING:
    from worker import LocalResult, Worker

__all__ = ["LocalResult", "Worker"]


def __getattr__(name: str) -> Any:
    """Load the public names of `worker` when they are first asked for, so that the command line starts fast."""
    if name not in __all__:
        raise AttributeError(f"module 'headwater' has no attribute {name!r}")
    return getattr(importlib.import_module("worker"), name)
