"""`python -m tests.simulation --runs N --seed S`: seeds S to S + N - 1, each a whole life of a task."""

import argparse
import gc
import multiprocessing
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from functools import partial

from tests.simulation.plants import NEEDS, PLANTS, planted
from tests.simulation.world import Outcome, simulate

TROUBLES = ("cut_commits", "send_again", "supplant")
_SHOWN = 5
_CHUNK = 10
_PROGRESS_S = 10.0
GARBAGE = 200_000
"""New objects between two looks for cycles of them; with Python's 700, looking takes a tenth of the time."""


def main() -> int:
    """Run seeds and say which broke a rule; 0 only if none did."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=main.__doc__)
    parser.add_argument("--runs", type=int, default=1000, help="how many seeds")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--plant", choices=sorted(PLANTS), help="a bug to put into the product, to see it found")
    parser.add_argument("--trouble", choices=TROUBLES, default="", help="what is to befall the log more often")
    parser.add_argument("--first", action="store_true", help="stop at the first seed that breaks a rule")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="how many run at once")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        seeds = range(chosen.seed, chosen.seed + chosen.runs)
        return run(seeds, chosen.plant, chosen.processes, first=chosen.first, trouble=chosen.trouble)
    except KeyboardInterrupt:
        return 130


def run(seeds: Sequence[int], plant: str | None, processes: int, *, first: bool, trouble: str = "") -> int:
    """Run seeds in several processes; the last line tells how many ran and how many broke a rule."""
    counts, done, violations, told_s = Counter[str](), 0, 0, time.monotonic()
    began_s = told_s
    trouble = trouble or NEEDS.get(plant or "", "")
    for outcome in outcomes(seeds, plant, processes, trouble):
        done += 1
        counts.update(outcome.counts)
        if outcome.violations:
            violations += 1
            tell(outcome, plant, trouble)
            if first:
                break
        if time.monotonic() - told_s > _PROGRESS_S:
            told_s = time.monotonic()
            rate = done / (told_s - began_s)
            print(f"{done} of {len(seeds)} runs, {rate:.1f} a second, {violations} violations so far", flush=True)
    print(", ".join(f"{name} {count}" for name, count in sorted(counts.items())))
    print(f"{done} runs, {violations} violations")
    return 1 if violations else 0


def tell(outcome: Outcome, plant: str | None, trouble: str) -> None:
    """What a seed broke, and the command that breaks it again."""
    for violation in outcome.violations[:_SHOWN]:
        print(f"seed {outcome.seed}: {violation}")
    put = (f" --plant {plant}" if plant else "") + (f" --trouble {trouble}" if trouble else "")
    print(f"  again: python -m tests.simulation --runs 1 --seed {outcome.seed}{put}", flush=True)


def outcomes(seeds: Sequence[int], plant: str | None, processes: int, trouble: str) -> Iterator[Outcome]:
    """The outcome of every seed; in order if one process is enough."""
    work = partial(one, plant=plant, trouble=trouble)
    if processes == 1 or len(seeds) <= _CHUNK:
        yield from map(work, seeds)
        return
    with multiprocessing.get_context("fork").Pool(processes, initializer=ignore_interrupts) as pool:
        yield from pool.imap_unordered(work, seeds, chunksize=_CHUNK)


def one(seed: int, plant: str | None, trouble: str) -> Outcome:
    """One seed, with a bug in the product if one is wanted."""
    gc.set_threshold(GARBAGE)
    with planted(plant) if plant else nullcontext():
        return simulate(seed, trouble)


def ignore_interrupts() -> None:
    """Ctrl-C is the business of the process that collects."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


if __name__ == "__main__":
    sys.exit(main())
