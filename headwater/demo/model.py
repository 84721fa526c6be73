"""The demo's model and training: what a user of Headwater writes, plain PyTorch that knows nothing of Kafka."""

import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import TYPE_CHECKING

from broker_topics.errors import ToolMissingError
from headwater.demo.data import DeviceData, Inputs, Labels
from worker.context import TrainContext
from worker.result import LocalResult

if TYPE_CHECKING:
    from torch import Generator, Tensor
    from torch.nn import Module

Train = Callable[["Module", TrainContext], LocalResult]
"""The user's training function: changes the model in place and says how much work that was."""

AXES = 6
CLASSES = 7
CHANNELS = (24, 40, 64)
KERNELS = (9, 7, 5)
GROUPS = 8
HIDDEN = 384
BATCH_SIZE = 8


def make_model(seed: int) -> "Module":
    """A small convolutional network for two-second windows of six axes: 48,855 numbers, the same for equal seeds.

    Input is float32[N, 6, 1, 100], output float32[N, 7]. Group norm, not batch norm: it keeps no statistics of a
    device's own data. The largest response over time, not the mean: an exercise shows in one telling movement. Windows
    are pictures of height one because PyTorch's fastest convolutions on a CPU are for pictures.
    """
    torch = _torch()
    nn = torch.nn
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[Module] = []
        width = AXES
        for channels, kernel in zip(CHANNELS, KERNELS, strict=True):
            layers.append(nn.Conv2d(width, channels, (1, kernel), stride=(1, 2), padding=(0, kernel // 2)))
            layers += [nn.GroupNorm(GROUPS, channels), nn.ReLU()]
            width = channels
        layers += [
            nn.AdaptiveMaxPool2d(1),
            nn.Flatten(),
            nn.Linear(width, HIDDEN),
            nn.ReLU(),
            nn.Linear(HIDDEN, CLASSES),
        ]
        model: Module = nn.Sequential(*layers)
        return model.to(memory_format=torch.channels_last)


def make_train(data: DeviceData) -> Train:
    """A training function for one device: plain SGD over batches of eight of its own windows.

    The function stops early, with the work done so far, at the context's deadline, at its limit of steps, or when it is
    told to stop.
    """
    torch = _torch()
    windows, labels = as_tensors(data.x, data.y)

    def batches(epochs: int, generator: "Generator") -> "Iterator[tuple[Tensor, Tensor]]":
        for _ in range(epochs):
            order = torch.randperm(len(labels), generator=generator)
            for chosen in torch.split(order, BATCH_SIZE):
                yield windows[chosen], labels[chosen]

    def train(model: "Module", context: TrainContext) -> LocalResult:
        parameters = list(model.parameters())
        generator = torch.Generator().manual_seed(context.seed)
        deadline = time.monotonic() + context.deadline_s if context.deadline_s else float("inf")
        steps, loss_sum = 0, torch.zeros(())
        for x, y in batches(context.epochs, generator):
            if context.stop.is_set() or time.monotonic() > deadline or steps == context.max_steps:
                break
            loss = torch.nn.functional.cross_entropy(model(x), y)
            gradients = torch.autograd.grad(loss, parameters)
            with torch.no_grad():
                # Plain SGD by hand: torch.optim imports PyTorch's compiler first, seconds in every process of a fleet.
                for parameter, gradient in zip(parameters, gradients, strict=True):
                    parameter.sub_(gradient, alpha=context.learning_rate)
            loss_sum += loss.detach()
            steps += 1
        metrics = {"loss": float(loss_sum) / steps} if steps else {}
        return LocalResult(num_examples=len(labels), num_steps=steps, metrics=metrics)

    return train


def evaluate(model: "Module", x: "Tensor", y: "Tensor") -> tuple[float, float]:
    """Share of windows that the model names rightly, and its mean cross-entropy.

    Args:    x, y: as `as_tensors` returns them.
    """
    torch = _torch()
    with torch.inference_mode():
        scores = model(x)
        loss = torch.nn.functional.cross_entropy(scores, y)
        return float((scores.argmax(dim=1) == y).float().mean()), float(loss)


def as_tensors(x: Inputs, y: Labels) -> "tuple[Tensor, Tensor]":
    """Windows float32[N, 6, 100] as pictures float32[N, 6, 1, 100], laid out for fast convolutions; labels int64[N]."""
    torch = _torch()
    pictures = torch.from_numpy(x).unsqueeze(2).contiguous(memory_format=torch.channels_last)
    return pictures, torch.from_numpy(y)


def use_one_thread() -> None:
    """Keep PyTorch to one thread in this process: a model this small gains nothing from more, its neighbours lose."""
    _torch().set_num_threads(1)


def _torch() -> ModuleType:
    try:
        import torch
    except ImportError as error:
        raise ToolMissingError("the demo trains with PyTorch, not installed; pip install 'headwater[demo]'") from error
    return torch
