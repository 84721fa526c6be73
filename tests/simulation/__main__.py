"""`python -m tests.simulation --runs N --seed S`: seeds S to S + N - 1, each a whole life of a task."""

import argparse
import sys
import time
from collections import Counter
from contextlib import nullcontext

from tests.simulation.plants import PLANTS, planted
from tests.simulation.world import simulate

_SHOWN = 5


def main() -> int:
    """Run seeds and say which broke a rule; 0 only if none did."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=main.__doc__)
    parser.add_argument("--runs", type=int, default=300, help="how many seeds")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--plant", choices=sorted(PLANTS), help="a bug to put into the product, to see it found")
    chosen = parser.parse_args()
    plant = f" --plant {chosen.plant}" if chosen.plant else ""
    counts, violations, began_s = Counter[str](), 0, time.monotonic()
    with planted(chosen.plant) if chosen.plant else nullcontext():
        for done, seed in enumerate(range(chosen.seed, chosen.seed + chosen.runs), 1):
            outcome = simulate(seed)
            counts.update(outcome.counts)
            for violation in outcome.violations[:_SHOWN]:
                print(f"seed {seed}: {violation}", flush=True)
            if outcome.violations:
                violations += 1
                print(f"  again: python -m tests.simulation --runs 1 --seed {seed}{plant}", flush=True)
            if done % 50 == 0:
                print(f"{done} runs, {done / (time.monotonic() - began_s):.1f} a second", flush=True)
    print(", ".join(f"{name} {count}" for name, count in sorted(counts.items())))
    print(f"{chosen.runs} runs, {violations} violations")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
