"""Models of users' own kinds as flat vectors, and what a training function is given."""

import subprocess
import sys
import threading
from types import MappingProxyType

import numpy as np
import pytest

from broker_topics.errors import ConfigError
from broker_topics.layout import Layout, Tensor
from broker_topics.task import TaskSettings
from worker import TrainContext
from worker.adapters import adapter_for, check_layout

torch = pytest.importorskip("torch", reason="PyTorch is not installed; pip install 'headwater[torch]'")
nn = torch.nn


def arrays() -> dict[str, np.ndarray]:
    return {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.full(2, 9, np.float32)}


def context(layout: Layout, base: np.ndarray, **model: float) -> TrainContext:
    return TrainContext(
        base_version=3,
        learning_rate=0.1,
        epochs=1,
        deadline_s=0.0,
        max_steps=10,
        seed=1,
        stop=threading.Event(),
        settings=TaskSettings(model=model),
        base=base,
        layout=layout,
    )


# numpy


def test_arrays_are_read_in_the_mapping_s_order() -> None:
    assert adapter_for(arrays()).read().tolist() == [0, 1, 2, 3, 4, 5, 9, 9]


def test_arrays_are_loaded_in_place() -> None:
    model = arrays()
    before = model["w"]
    adapter_for(model).load(np.arange(8, dtype=np.float32))
    assert model["w"] is before
    assert model["w"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert model["b"].tolist() == [6, 7]


def test_arrays_that_training_put_anew_are_read_and_loaded() -> None:
    model = arrays()
    adapter = adapter_for(model)
    model["b"] = model["b"] * np.float32(2)
    assert adapter.read()[-1] == 18
    model["b"] = np.zeros((5, 5), np.float32)
    adapter.load(np.ones(8, np.float32))
    assert model["b"].tolist() == [1, 1]


def test_a_copy_of_arrays_shares_nothing_with_the_model() -> None:
    model = arrays()
    copied = adapter_for(model).copy_with(np.zeros(8, np.float32))
    copied["w"][0, 0] = 5
    assert model["w"][0, 0] == 0
    assert list(copied) == ["w", "b"]


def test_a_read_vector_is_a_copy() -> None:
    model = arrays()
    vector = adapter_for(model).read()
    model["w"][0, 0] = 77
    assert vector[0] == 0


@pytest.mark.parametrize("wrong", [np.zeros(2), np.zeros(2, np.float16), [1.0, 2.0], 3])
def test_arrays_that_are_not_float32_are_refused(wrong: object) -> None:
    with pytest.raises(ConfigError, match=r"'b'.*float32"):
        adapter_for({"w": np.zeros(2, np.float32), "b": wrong})


def test_an_array_that_becomes_another_type_in_training_is_named() -> None:
    model = arrays()
    adapter = adapter_for(model)
    model["b"] = model["b"].astype(np.float64)
    with pytest.raises(ConfigError, match="'b' became float64"):
        adapter.read()


def test_arrays_that_nobody_can_write_to_are_refused() -> None:
    frozen = np.zeros(2, np.float32)
    frozen.flags.writeable = False
    with pytest.raises(ConfigError, match="cannot be written"):
        adapter_for(MappingProxyType({"w": frozen}))


# torch


def network() -> "nn.Module":
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(3, 8, (1, 3)), nn.GroupNorm(4, 8), nn.Flatten(), nn.Linear(16, 2))


def test_a_module_is_read_in_the_order_of_its_parameters() -> None:
    model = network()
    adapter = adapter_for(model)
    assert [t.name for t in adapter.layout.tensors] == [name for name, _ in model.named_parameters()]
    flat = torch.cat([p.detach().reshape(-1) for p in model.parameters()]).numpy()
    assert np.array_equal(adapter.read(), flat)


def test_what_is_loaded_into_a_module_is_read_back_bit_for_bit() -> None:
    adapter = adapter_for(network())
    vector = np.random.default_rng(1).standard_normal(adapter.layout.size).astype(np.float32)
    adapter.load(vector)
    assert np.array_equal(adapter.read(), vector)


def test_a_module_in_another_memory_format_reads_the_same() -> None:
    plain = adapter_for(network()).read()
    other = adapter_for(network().to(memory_format=torch.channels_last))
    assert np.array_equal(other.read(), plain)
    other.load(plain * np.float32(2))
    assert np.array_equal(other.read(), plain * np.float32(2))


def test_loading_drops_gradients_and_keeps_the_parameters_themselves() -> None:
    model = network()
    before = list(model.parameters())
    model(torch.zeros(1, 3, 1, 4)).sum().backward()
    adapter = adapter_for(model)
    adapter.load(np.zeros(adapter.layout.size, np.float32))
    assert all(one is other for one, other in zip(model.parameters(), before, strict=True))
    assert all(p.grad is None for p in model.parameters())


def test_tied_parameters_are_one_entry() -> None:
    model = nn.ModuleDict({"in": nn.Embedding(5, 4), "out": nn.Linear(4, 5, bias=False)})
    model["out"].weight = model["in"].weight
    assert adapter_for(model).layout.size == 20


def test_frozen_parameters_are_part_of_the_model() -> None:
    model = nn.Linear(2, 2)
    model.weight.requires_grad = False
    assert adapter_for(model).layout.size == 6


def test_batch_norm_is_refused_and_group_norm_proposed() -> None:
    with pytest.raises(ConfigError, match=r"running_mean.*GroupNorm"):
        adapter_for(nn.Sequential(nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4)))


def test_a_constant_that_is_not_saved_with_the_model_may_stay() -> None:
    model = nn.Linear(2, 2)
    model.register_buffer("positions", torch.arange(4.0), persistent=False)
    assert adapter_for(model).layout.size == 6


def test_a_module_of_another_precision_is_refused() -> None:
    with pytest.raises(ConfigError, match="float64"):
        adapter_for(nn.Linear(2, 2).double())


def test_a_copy_of_a_module_shares_nothing_and_is_ready_for_use() -> None:
    model = network()
    adapter = adapter_for(model)
    before = adapter.read()
    copied = adapter.copy_with(np.zeros(adapter.layout.size, np.float32))
    assert not copied.training
    assert all(float(p.detach().abs().sum()) == 0 for p in copied.parameters())
    assert np.array_equal(adapter.read(), before)


def test_another_kind_of_model_is_refused() -> None:
    with pytest.raises(ConfigError, match="PyTorch module or a dict"):
        adapter_for(lambda x: x)


# layouts


def test_the_first_differing_tensors_are_named() -> None:
    task = Layout(tensors=(Tensor(name="w", shape=(2, 3)), Tensor(name="b", shape=(2,))))
    mine = Layout(tensors=(Tensor(name="w", shape=(2, 4)), Tensor(name="b", shape=(2,)), Tensor(name="c", shape=(1,))))
    with pytest.raises(ConfigError, match=r"tensor 0 is w \[2, 4\], the task has w \[2, 3\]; tensor 2 is c \[1\]"):
        check_layout(mine, task)
    check_layout(task, task)


def test_many_differences_are_counted() -> None:
    def layout(side: int) -> Layout:
        return Layout(tensors=tuple(Tensor(name=f"w{i}", shape=(side,)) for i in range(9)))

    with pytest.raises(ConfigError, match="and 4 more"):
        check_layout(layout(1), layout(2))


# context


def test_the_proximal_term_grows_with_the_distance_from_the_base() -> None:
    model = arrays()
    adapter = adapter_for(model)
    told = context(adapter.layout, adapter.read())
    assert told.proximal_term(model, 0.5) == 0.0
    model["b"] += np.float32(2)
    assert told.proximal_term(model, 0.5) == 0.5 * 0.5 * 8
    assert told.proximal_gradient(model, 0.5)["b"].tolist() == [1.0, 1.0]
    assert told.proximal_gradient(model, 0.5)["w"].tolist() == [[0, 0, 0], [0, 0, 0]]
    assert told.proximal_used == 0.5


def test_the_proximal_term_of_a_module_has_a_gradient() -> None:
    model = network()
    adapter = adapter_for(model)
    told = context(adapter.layout, adapter.read(), proximal_mu=0.3)
    adapter.load(adapter.read() + np.float32(1))
    term = told.proximal_term(model)
    term.backward()
    assert float(term.detach()) == pytest.approx(0.5 * 0.3 * adapter.layout.size, rel=1e-4)
    gradient = next(model.parameters()).grad
    assert gradient is not None
    assert float(gradient.mean()) == pytest.approx(0.3, rel=1e-4)


def test_a_proximal_term_that_would_diverge_is_refused() -> None:
    model = arrays()
    told = context(adapter_for(model).layout, adapter_for(model).read())
    with pytest.raises(ConfigError, match="below 1"):
        told.proximal_term(model, 10.0)


def test_gradients_are_clipped_to_the_norm_over_all_of_them() -> None:
    told = context(adapter_for(arrays()).layout, adapter_for(arrays()).read())
    gradients = {"w": np.full((2, 2), 3, np.float32), "b": np.zeros(1, np.float32)}
    assert told.clip(gradients, 3.0) == 6.0
    assert gradients["w"].tolist() == [[1.5, 1.5], [1.5, 1.5]]
    assert told.clip(gradients, 3.0) == 3.0
    assert gradients["w"].tolist() == [[1.5, 1.5], [1.5, 1.5]]


def test_gradients_of_a_module_are_clipped_to_the_task_s_norm() -> None:
    model = network()
    told = context(adapter_for(model).layout, adapter_for(model).read(), clip_norm=0.5)
    (model(torch.ones(1, 3, 1, 4)).sum() * 100).backward()
    assert told.clip(model) > 0.5
    total = sum(float(p.grad.square().sum()) for p in model.parameters() if p.grad is not None) ** 0.5
    assert total == pytest.approx(0.5, rel=1e-3)


def test_a_device_without_torch_imports_and_adapts() -> None:
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "import numpy as np, worker\n"
        "from worker.adapters import adapter_for\n"
        "print(adapter_for({'w': np.ones(3, np.float32)}).read().sum())\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "3.0"
