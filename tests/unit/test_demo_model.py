import subprocess
import sys
import threading
from collections.abc import Iterator

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is missing; pip install 'headwater[torch]'")

from broker_topics.task import TaskSettings  # noqa: E402
from headwater.demo.data import DeviceData  # noqa: E402
from headwater.demo.model import as_tensors, evaluate, make_model, make_train, use_one_thread  # noqa: E402
from worker.context import TrainContext  # noqa: E402
from worker.torch_model import TorchModel  # noqa: E402


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    use_one_thread()
    yield
    torch.set_num_threads(threads)


def data_of(windows: int) -> DeviceData:
    """Windows whose class is the axis that moves: easy to learn."""
    generator = np.random.default_rng(0)
    y = np.arange(windows, dtype=np.int64) % 6
    x = generator.normal(0, 0.1, (windows, 6, 100)).astype(np.float32)
    x[np.arange(windows), y] += np.sin(np.arange(100, dtype=np.float32) / 5)
    return DeviceData(name="watch-01-left", x=x, y=y)


def context(model: object, **changes: object) -> TrainContext:
    adapter = TorchModel(model)
    values = {
        "base_version": 0,
        "learning_rate": 0.05,
        "epochs": 1,
        "deadline_s": 0.0,
        "max_steps": 2000,
        "seed": 7,
        "stop": threading.Event(),
        "settings": TaskSettings(),
        "base": adapter.read(),
        "layout": adapter.layout,
    }
    return TrainContext(**{**values, **changes})


def test_the_model_has_about_49_000_numbers_and_depends_on_its_seed_alone() -> None:
    first, again, other = (TorchModel(make_model(seed)) for seed in (1, 1, 2))

    assert 45_000 <= first.layout.size <= 52_000
    assert first.layout.fingerprint == other.layout.fingerprint
    np.testing.assert_array_equal(first.read(), again.read())
    assert not np.array_equal(first.read(), other.read())


def test_making_a_model_leaves_the_random_numbers_of_others_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)

    torch.manual_seed(3)
    make_model(0)

    assert torch.equal(torch.rand(4), expected)


def test_one_epoch_over_twenty_windows_is_three_steps_of_eight() -> None:
    model = make_model(0)

    result = make_train(data_of(20))(model, context(model))

    assert result.num_examples == 20
    assert result.num_steps == 3
    assert set(result.metrics) == {"loss"}


def test_equal_seeds_give_equal_trainings() -> None:
    vectors = []
    for seed in (7, 7, 8):
        model = make_model(0)
        make_train(data_of(40))(model, context(model, seed=seed))
        vectors.append(TorchModel(model).read())

    np.testing.assert_array_equal(vectors[0], vectors[1])
    assert not np.array_equal(vectors[0], vectors[2])


def test_training_learns_what_the_windows_show() -> None:
    model, data = make_model(0), data_of(96)
    x, y = as_tensors(data.x, data.y)
    before, loss_before = evaluate(model, x, y)

    make_train(data)(model, context(model, epochs=4))

    after, loss_after = evaluate(model, x, y)
    assert after > 0.95 > before
    assert loss_after < loss_before


def test_a_device_told_to_stop_returns_without_a_step() -> None:
    model, stop = make_model(0), threading.Event()
    stop.set()

    result = make_train(data_of(20))(model, context(model, stop=stop))

    assert result.num_steps == 0
    assert result.metrics == {}


def test_the_limit_of_steps_and_the_deadline_end_a_training_early() -> None:
    model = make_model(0)
    train = make_train(data_of(40))

    assert train(model, context(model, max_steps=2)).num_steps == 2
    assert train(model, context(model, epochs=1000, deadline_s=0.05)).num_steps < 5000


def test_the_learning_rate_comes_from_the_task() -> None:
    model = make_model(0)
    base = TorchModel(model).read()

    make_train(data_of(20))(model, context(model, learning_rate=0.0))

    np.testing.assert_array_equal(TorchModel(model).read(), base)


def test_a_device_starts_without_importing_pytorchs_compiler() -> None:
    program = (
        "import sys, threading; from types import SimpleNamespace;"
        "from headwater.demo.data import load_fleet; from headwater.demo.model import make_model, make_train;"
        "context = SimpleNamespace(learning_rate=0.05, epochs=1, deadline_s=0.0, max_steps=1, seed=0,"
        " stop=threading.Event());"
        "make_train(load_fleet('windows', 0).devices[0])(make_model(0), context);"
        "print('torch._dynamo' in sys.modules)"
    )

    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert ended.stdout.strip() == "False"
