"""`python -m tests.chaos --seconds 600 --seed 7`: every scenario on a real Kafka, as `make soak` runs them."""

import argparse
import asyncio
import logging
import signal
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tests.chaos.ground import Ground
from tests.chaos.registry import Scenario, scenarios
from tests.simulation.plants import PLANTS


def main() -> int:
    """Hurt real fleets on a real Kafka and check the log after each time; 0 only if every rule held."""
    known = scenarios()
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=main.__doc__)
    parser.add_argument("--seconds", type=float, default=600.0, help="how long random kills go on")
    parser.add_argument("--seed", type=int, default=7, help="where all chance comes from")
    parser.add_argument("--only", nargs="*", metavar="NAME", help=f"some of: {', '.join(known)}")
    parser.add_argument("--list", action="store_true", help="name the scenarios and end")
    parser.add_argument("--plant", choices=sorted(PLANTS), help="a bug to put into every process, to see it found")
    chosen = parser.parse_args()
    if chosen.list:
        print("\n".join(f"{one.name:18} {one.about}" for one in known.values()))
        return 0
    unknown = set(chosen.only or ()) - known.keys()
    if unknown:
        parser.error(f"no scenario is called {', '.join(sorted(unknown))}; known are {', '.join(known)}")
    wanted = [one for name, one in known.items() if not chosen.only or name in chosen.only]
    with tempfile.TemporaryDirectory(prefix="headwater-soak-") as folder:
        say = partial(print, flush=True)
        ground = Ground(
            folder=Path(folder), seconds=chosen.seconds, seed=chosen.seed, say=say, plant=chosen.plant or ""
        )
        return asyncio.run(soak(wanted, ground))


async def soak(wanted: Sequence[Scenario], ground: Ground) -> int:
    """Run scenarios one after the other; Ctrl-C ends with what was found until then."""
    async with ground:
        task = asyncio.current_task()
        assert task is not None
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        ended = True
        try:
            for one in wanted:
                ground.again = f"make soak ONLY={one.name} SECONDS={ground.seconds:g} SEED={ground.seed}"
                ground.say(f"{one.name}: {one.about}")
                await one.play(ground)
        except asyncio.CancelledError:
            ended = False
            ground.say("interrupted")
    print(f"{ground.runs} runs, {len(ground.violations)} violations", flush=True)
    return 0 if ended and ground.runs and not ground.violations else 1


if __name__ == "__main__":
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # brokers are away on purpose
    sys.exit(main())
