"""Deltas of real training: a network like the demo's on the demo's recordings, as wide as asked for."""

from collections.abc import Iterator

import numpy as np

from broker_topics.codecs import CodecId, decode, encode_with_residual
from broker_topics.layout import Vector
from headwater.demo.data import load_fleet

DEMO = ((24, 40, 64), 400)
"""Channels and hidden width of the demo's network: 47,511 numbers."""

WIDENED = ((112, 192, 320), 1700)
"""The same network with 977,559 numbers."""

AXES, CLASSES, GROUPS, KERNEL = 6, 7, 8, 5
DEVICES = 4
UPDATES = 16
STEPS = 24


def real_deltas(shape: tuple[tuple[int, ...], int], density: float) -> list[Vector]:
    """What four devices hand to the compressor (delta + residual) for their last update of four.

    Each trains one short epoch of plain SGD at 0.05 in batches of eight, with error feedback, one after the other; the
    model takes a fifth of every update, as a buffer of five gives it.
    """
    import torch
    from torch.nn.utils import parameters_to_vector, vector_to_parameters

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = _network(*shape)
    devices = load_fleet("windows", 0).devices
    start = parameters_to_vector(model.parameters()).detach().numpy().copy()
    residuals = [np.zeros_like(start) for _ in range(DEVICES)]
    kept = []
    for number in range(UPDATES):
        device = number % DEVICES
        vector_to_parameters(torch.from_numpy(start.copy()), model.parameters())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        x, y = torch.from_numpy(devices[5 * device].x).unsqueeze(2), torch.from_numpy(devices[5 * device].y)
        for batch in torch.split(torch.randperm(len(y)), 8)[:STEPS]:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
        delta = parameters_to_vector(model.parameters()).detach().numpy() - start
        handed = delta + residuals[device]
        encoded, residuals[device] = encode_with_residual(handed, CodecId.SPARSE, density=density)
        decode(encoded).add_to(start, 0.2)
        kept.append(handed)
    return kept[-DEVICES:]


def _network(channels: tuple[int, ...], hidden: int):  # type: ignore[no-untyped-def]  # torch is an extra
    from torch import nn

    def layers() -> Iterator[nn.Module]:
        width = AXES
        for wider in channels:
            yield nn.Conv2d(width, wider, (1, KERNEL), stride=(1, 2), padding=(0, KERNEL // 2))
            yield nn.GroupNorm(GROUPS, wider)
            yield nn.ReLU()
            width = wider
        yield from (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, hidden), nn.ReLU())
        yield nn.Linear(hidden, CLASSES)

    return nn.Sequential(*layers())
