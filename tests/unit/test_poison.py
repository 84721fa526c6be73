"""The corpus of hostile updates, one after the other through the fold: each gets the code that stands beside it."""

from collections import Counter

import numpy as np
import pytest

from aggregator.fold.core import Fold
from aggregator.fold.outcome import Admission
from aggregator.fold.state import FoldState
from broker_topics.errors import RejectCode
from broker_topics.record import Cause
from broker_topics.task import TaskSettings
from tests.poison import ACCEPTED, LAYOUT, MAX_UPDATE_BYTES, SIZE, Corpus, Poison


@pytest.fixture
def fold() -> Fold:
    settings = TaskSettings(max_update_bytes=MAX_UPDATE_BYTES)
    state = FoldState.genesis(settings=settings, layout=LAYOUT, first=np.zeros(SIZE, np.float32), vector=[0] * 13)
    return Fold(task="watch", state=state)


def offer(fold: Fold, poison: Poison) -> Admission:
    offset = fold.state.vector[poison.partition]
    return fold.offer(partition=poison.partition, offset=offset, key=poison.key, data=poison.value or b"")


def test_each_of_six_hundred_hostile_updates_gets_its_code(fold: Fold) -> None:
    corpus = list(Corpus("watch", fold.state.bases[0]).records())
    assert len(corpus) >= 600
    got = [(poison.name, offer(fold, poison).decision.code or ACCEPTED) for poison in corpus]
    assert got == [(poison.name, poison.code) for poison in corpus]


def test_the_corpus_has_every_code_that_the_first_contact_of_a_device_can_get() -> None:
    codes = Counter(poison.code for poison in Corpus("watch", bytes(8)).records())
    elsewhere = {"stale", "too_soon", "signature", "revoked", "unreadable", "gone"}
    assert set(codes) == {code.value for code in RejectCode} - elsewhere | {ACCEPTED}


def test_hostile_updates_leave_no_trace_in_the_model(fold: Fold) -> None:
    clean = Fold(task="watch", state=FoldState.restore(fold.state.meta(), copies(fold.state)))
    for poison in Corpus("watch", fold.state.bases[0]).records():
        offer(fold, poison)
        if poison.code == ACCEPTED:
            offer(clean, poison)
    ours, theirs = step(fold), step(clean)
    assert ours == theirs


def copies(state: FoldState) -> dict[str, np.ndarray]:
    return {name: vector.copy() for name, vector in state.vectors().items()}


def step(fold: Fold) -> tuple[bytes, bytes, bytes]:
    fold.step(Cause.FULL)
    return fold.state.state_hash(), fold.state.model.hidden_hash(), fold.state.model.served_hash()
