"""`python -m tests.simulation --runs N --seed S`: seeds S to S + N - 1, each a whole life of a task."""

import argparse
import logging
import sys
import time
from collections import Counter

from tests.simulation.world import simulate


def main() -> int:
    """Run seeds and say which broke a rule; 0 only if none did."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    logging.getLogger("headwater").setLevel(logging.CRITICAL)
    counts, violations, began_s = Counter[str](), 0, time.monotonic()
    for seed in range(chosen.seed, chosen.seed + chosen.runs):
        outcome = simulate(seed)
        counts.update(outcome.counts)
        violations += bool(outcome.violations)
        for violation in outcome.violations[:5]:
            print(f"seed {seed}: {violation}", flush=True)
        if outcome.violations:
            print(f"  again: python -m tests.simulation --runs 1 --seed {seed}", flush=True)
        done = seed - chosen.seed + 1
        if done % 50 == 0:
            print(f"{done} runs, {done / (time.monotonic() - began_s):.1f} a second", flush=True)
    print(", ".join(f"{name} {count}" for name, count in sorted(counts.items())))
    print(f"{chosen.runs} runs, {violations} violations")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
