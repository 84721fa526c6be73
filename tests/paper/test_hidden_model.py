"""Every follower holds the server's x̂ and served model, bit for bit (conformance 6)."""

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker_topics.codecs import decode
from broker_topics.hidden import HiddenModel
from broker_topics.messages import Delta
from tests.folding import Bench, scrambled

SIZE = 3000
VERSIONS = 24
KEYFRAME_EVERY = 5
HORIZON = 30


@functools.cache
def history() -> tuple[list[HiddenModel], list[tuple[bytes, int]]]:
    """The server's hidden model at every version, and each version's Delta frame with its count of updates."""
    bench = Bench.of(scrambled(SIZE, seed=0), buffer_size=2, served_horizon=HORIZON, downlink_density=0.05)
    models, deltas = [kept(bench.state.model)], []
    for version in range(VERSIONS):
        count = 1 + version % 3
        for i in range(count):
            bench.send(f"w-{i}", scrambled(SIZE, seed=100 * version + i))
        draft = bench.step()
        assert draft.delta is not None
        assert draft.body.hidden_hash == bench.state.model.hidden_hash()
        deltas.append((draft.delta, count))
        models.append(kept(bench.state.model))
    return models, deltas


def test_the_served_average_moves_alike_along_a_model_of_any_length() -> None:
    """served ← served + γ (x̂ − served), also where the model is longer than a stretch and no multiple of it."""
    hidden, served = scrambled(200_003, seed=1), scrambled(200_003, seed=2)
    expected = served + np.float32(3 / 30) * (hidden - served)
    HiddenModel(version=20, hidden=hidden, served=served).advance(None, inputs=3, horizon=30)
    assert served.tobytes() == expected.tobytes()


def kept(model: HiddenModel) -> HiddenModel:
    return HiddenModel(version=model.version, hidden=model.hidden.copy(), served=model.served.copy())


@settings(deadline=None, max_examples=60)
@given(present=st.lists(st.booleans(), min_size=VERSIONS, max_size=VERSIONS))
def test_a_device_ends_bit_equal_whatever_versions_it_missed(present: list[bool]) -> None:
    """QAFeL, arXiv:2308.00263, algorithm 1: x̂ ← x̂ + q on both sides; missed versions come by deltas or keyframe."""
    models, deltas = history()
    device = kept(models[0])
    for version in range(1, VERSIONS + 1):
        if not present[version - 1] and version < VERSIONS:
            continue
        keyframe = version // KEYFRAME_EVERY * KEYFRAME_EVERY
        if keyframe > device.version and version - device.version > KEYFRAME_EVERY:
            device = kept(models[keyframe])
        for data, count in deltas[device.version : version]:
            device.advance(decode(Delta.from_bytes(data).encoded), inputs=count, horizon=HORIZON)
        assert device.hidden.tobytes() == models[version].hidden.tobytes()
        assert device.served.tobytes() == models[version].served.tobytes()


def test_a_delta_names_the_hidden_model_that_it_is_added_to() -> None:
    models, deltas = history()
    for version, (data, _) in enumerate(deltas):
        delta = Delta.from_bytes(data)
        assert delta.version == version + 1
        assert delta.base_hash == models[version].hidden_hash()[:8]


def test_the_hidden_model_catches_up_with_the_global_one() -> None:
    """QAFeL: what a delta leaves out stays in x − x̂ and goes out with the next ones."""
    bench = Bench.of(np.zeros(SIZE, np.float32), buffer_size=1, downlink_density=0.05)
    bench.send("a", scrambled(SIZE, seed=3))
    bench.step()
    distances = []
    for _ in range(60):
        distances.append(float(np.abs(bench.state.x - bench.state.model.hidden).max()))
        bench.send("a", np.zeros(SIZE, np.float32))
        bench.step()
    assert distances[0] > 0.1
    assert distances[-1] < 1e-3 * distances[0]


def test_the_served_model_is_the_average_over_versions() -> None:
    """served ← served + γ (x̂ − served), γ = max(1 / (t + 1), min(1, n / H))."""
    bench = Bench.of(np.zeros(1, np.float32), buffer_size=1, served_horizon=1000)
    for value in (3.0, 3.0, 6.0):
        bench.send("a", np.array([value - bench.state.x[0]], np.float32))
        bench.step()
    assert bench.state.model.hidden.tolist() == [6.0]
    assert bench.state.model.served[0] == pytest.approx(4.0)
