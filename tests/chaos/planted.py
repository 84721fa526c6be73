"""`python -m tests.chaos.planted PLANT COMMAND…`: the command `headwater` with one bug in it, to see it found."""

import sys

from headwater.cli import main
from tests.simulation.plants import planted

if __name__ == "__main__":
    with planted(sys.argv.pop(1)):
        main()
