"""A fixed log, folded live and replayed in this process, and what it comes to: `python -m tests.unit.fold_fixture`."""

import hashlib

from aggregator.fold.core import Fold
from broker_topics.codecs import CodecId, encode
from broker_topics.hashing import tree_hash
from tests.folding import TASK, Bench, genesis, replayed, scrambled, snapshot

SIZE = 70_001
SETTINGS = {"buffer_size": 4, "server_optimizer": "momentum", "counting": "examples", "staleness_exponent": 0.625}


def run() -> tuple[str, str]:
    """Hash of the vectors, and of the fleet's figures with every weight, after 20 versions."""
    bench = Bench(Fold(task=TASK, state=genesis(scrambled(SIZE, seed=0), **SETTINGS)))
    codecs = list(CodecId)
    for turn in range(80):
        encoded = encode(scrambled(SIZE, seed=turn, scale=0.1), codecs[turn % 4], density=0.03)
        base = max(0, bench.version - turn * 7 % 4)
        bench.send(f"w-{turn * turn % 11}", encoded, base=base, num_examples=1 + turn * 13 % 40, work=1 + turn % 3)
        bench.when_full()
    again = replayed(genesis(scrambled(SIZE, seed=0), **SETTINGS), bench.bodies, bench.frames)
    assert snapshot(again.state) == snapshot(bench.state)
    figures = [bench.state.fairness.to_row(), [a.decision.weight.hex() for a in bench.admissions]]
    return tree_hash(*bench.state.vectors().values()).hex(), hashlib.sha256(repr(figures).encode()).hexdigest()


if __name__ == "__main__":
    print(*run())
