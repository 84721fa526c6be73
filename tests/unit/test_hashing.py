"""The hash of a vector does not depend on how the work was shared."""

import hashlib

import numpy as np
import pytest

from broker_topics.hashing import tree_hash

MIB = 1024 * 1024


@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, 3 * MIB, 4 * MIB, 7 * MIB + 5])
def test_a_vector_shared_by_threads_has_the_hash_of_its_pieces_in_order(size: int) -> None:
    data = np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8)
    expected = hashlib.sha256()
    for start in range(0, size, MIB):
        expected.update(hashlib.sha256(data[start : start + MIB].tobytes()).digest())
    expected.update(size.to_bytes(8, "big"))
    assert tree_hash(data) == expected.digest()


def test_one_changed_byte_in_any_piece_changes_the_hash() -> None:
    data = np.zeros(5 * MIB, dtype=np.uint8)
    seen = {tree_hash(data)}
    for piece in range(5):
        changed = data.copy()
        changed[piece * MIB + 7] = 1
        seen.add(tree_hash(changed))
    assert len(seen) == 6


def test_pieces_that_change_places_change_the_hash() -> None:
    data = np.repeat(np.arange(6, dtype=np.uint8), MIB)
    assert tree_hash(data) != tree_hash(np.roll(data, MIB))
