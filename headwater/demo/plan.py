"""What a run of the demo is: its seed, its devices and their speeds, and the settings of its task."""

import json
import socket
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from broker_topics.errors import ConfigError
from broker_topics.task import TaskSettings
from headwater.demo.data import HeldOut, SensorScale

TARGETS: dict[HeldOut, float] = {"windows": 0.93, "wearers": 0.80}
"""Held-out accuracy to reach; people never seen are harder than people seen."""

GROUPS = 4
"""Processes that the devices are spread over."""

MEDIAN_PERIOD_S = 1.0
SLOW_FACTOR = 10.0
_SPREAD = 0.3
_USUAL_PORT = 9464
_ONLINE_MEAN_S = 60.0
_OFFLINE_MEAN_S = 6.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicePlan:
    """How one watch behaves: seconds for one training, and the seed of its absences."""

    name: str
    period_s: float
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that a process of the demo must know; travels as a small file."""

    task: str
    seed: int
    held_out: HeldOut
    bootstrap: str
    state_dir: str
    page_port: int
    """Where the aggregator serves the fleet page, again and again: whoever looks sees it come back."""
    devices: tuple[DevicePlan, ...]

    def group(self, number: int) -> tuple[DevicePlan, ...]:
        """The devices of one process."""
        return self.devices[number::GROUPS]

    @property
    def page_url(self) -> str:
        """The fleet page's address."""
        return f"http://127.0.0.1:{self.page_port}/"

    def write(self, path: Path) -> None:
        """Write the plan for the processes that are started with it."""
        path.write_text(json.dumps(asdict(self), indent=2), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> "Plan":
        """Read what `write` wrote."""
        content = json.loads(path.read_text(encoding="utf-8"))
        return cls(**{**content, "devices": tuple(DevicePlan(**row) for row in content["devices"])})


def page_port() -> int:
    """The aggregator's usual port, or a free one where that is taken."""
    for wanted in (_USUAL_PORT, 0):
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", wanted))
            port: int = probe.getsockname()[1]
            return port
    raise ConfigError("no port of this machine is free")


def plan_devices(names: tuple[str, ...], seed: int) -> tuple[DevicePlan, ...]:
    """Speeds as fleets have them: lognormal around a second, the slowest tenth ten times slower."""
    rng = np.random.default_rng(seed)
    periods = MEDIAN_PERIOD_S * np.exp(_SPREAD * rng.standard_normal(len(names)))
    slow = rng.choice(len(names), max(1, len(names) // 10), replace=False)
    periods[slow] = SLOW_FACTOR * MEDIAN_PERIOD_S
    seeds = rng.integers(0, 2**31, len(names))
    return tuple(
        DevicePlan(name=name, period_s=round(float(period), 3), seed=int(own))
        for name, period, own in zip(names, periods, seeds, strict=True)
    )


def absences(rng: np.random.Generator) -> tuple[float, float]:
    """Seconds online, then seconds offline; both exponential, about a tenth of the time away."""
    return float(rng.exponential(_ONLINE_MEAN_S)), float(rng.exponential(_OFFLINE_MEAN_S))


def task_settings() -> TaskSettings:
    """The demo's task: small buffer, one percent density, plain local SGD, scales of the sensor."""
    return TaskSettings(
        buffer_size=5,
        backlog_buffer_size=20,
        flush_deadline_s=5.0,
        density=0.01,
        downlink_density=0.05,
        keyframe_every=100,
        local_learning_rate=0.05,
        local_epochs=1,
        reference_steps=16.0,
        max_local_steps=400,
        model=asdict(SensorScale()),
    )
