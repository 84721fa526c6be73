"""How many threads torch trains with. Its own choice is one a core: beside other work they wait for each other."""

import os
import sys
from collections.abc import Callable
from functools import cache

from monitoring.logs import get_logger

log = get_logger("worker")


def limit(threads: int) -> None:
    """Let torch, which must not be imported yet, start with so many threads; 0 leaves it its own choice.

    OMP_NUM_THREADS of the environment beats this, and so does `torch.set_num_threads` later.
    """
    if threads:
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))


def look(load: Callable[[], float] | None = None) -> None:
    """Warn, once a process, if torch trains with several threads where more work is under way than there are cores.

    Args:    load: how many threads want a core, on average; default: the system's own figure, where it has one.
    """
    torch = sys.modules.get("torch")
    if torch is None or (load is None and not hasattr(os, "getloadavg")):
        return
    threads, cores = torch.get_num_threads(), os.cpu_count() or 1
    if threads > 1 and (load() if load else os.getloadavg()[0]) > cores:
        _warn(threads, cores)


@cache
def _warn(threads: int, cores: int) -> None:
    log.warning(
        "torch_threads_crowded",
        threads=threads,
        cores=cores,
        mend="call torch.set_num_threads(1), or set OMP_NUM_THREADS=1",
    )
