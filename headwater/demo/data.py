"""The demo's data: real smartwatch recordings, cut into windows, one device per wrist.

Source: `load_watch` of the seglearn package (Burns et al. 2018, arXiv:1802.01489): ten people doing seven shoulder
exercises, a watch on each wrist, acceleration and rotation on three axes at 50 Hz.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from broker_topics.errors import ConfigError
from headwater.demo.watch_file import Recording, find_watch_file, read_watch_file

HeldOut = Literal["windows", "wearers"]
"""What the global test consists of: windows of every recording, or two wearers that no device belongs to."""

Inputs = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

WINDOW_SAMPLES = 100
"""Two seconds at 50 Hz."""
STRIDE_SAMPLES = 50
TEST_WINDOW_FIRST = 5
TEST_WINDOW_STEP = 10
TEST_WEARERS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class SensorScale:
    """What a recorded number is divided by before it enters the model.

    Constants of the sensor, the same on every device: statistics pooled over the fleet would need its data.
    """

    acceleration_g: float = 1.0
    rotation_rad_s: float = 2.0

    def divisors(self) -> npt.NDArray[np.float32]:
        """float32[6]: one divisor for each axis of a recording."""
        return np.array([self.acceleration_g] * 3 + [self.rotation_rad_s] * 3, dtype=np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceData:
    """What one watch knows, and nobody else."""

    name: str
    x: Inputs
    """float32[N, 6, 100]: windows of acceleration (x, y, z) and rotation (x, y, z), scaled."""
    y: Labels
    """int64[N]: the exercise of each window."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetData:
    """The devices' own windows, and the windows that judge the model."""

    devices: tuple[DeviceData, ...]
    test_x: Inputs
    test_y: Labels
    classes: tuple[str, ...]
    test_wearers: tuple[int, ...]
    """The wearers kept out of training; empty where windows are held out."""


def load_fleet(held_out: HeldOut, seed: int, scale: SensorScale | None = None, path: Path | None = None) -> FleetData:
    """Cut the recordings into what each device trains on and what the model is judged by.

    Args:    held_out: `windows`: of each recording the windows 5, 15, 25, … judge, and their neighbours, which overlap
             them by a second, are dropped from training. `wearers`: all windows of two people judge; sixteen train.
             seed: chooses the two wearers; without effect on `windows`.
             path: the recordings' file; by default the one in the installed seglearn package.
    Raises:  ToolMissingError: if seglearn is not installed. ConfigError: if its file is not what it was.
    """
    watch = read_watch_file(path or find_watch_file())
    divisors = (scale or SensorScale()).divisors()
    test_wearers = _choose_wearers(watch.recordings, seed) if held_out == "wearers" else ()
    train: dict[tuple[int, str], list[tuple[Inputs, int]]] = defaultdict(list)
    test: list[tuple[Inputs, int]] = []
    for recording in watch.recordings:
        key = (recording.wearer, recording.wrist)
        for number, window in _windows(recording, divisors):
            if _judges(number, recording, held_out, test_wearers):
                test.append((window, recording.exercise))
            elif held_out == "wearers" or not _touches_a_test_window(number):
                train[key].append((window, recording.exercise))
    devices = tuple(
        DeviceData(name=f"watch-{wearer:02d}-{wrist}", x=_stack(rows), y=_labels(rows))
        for (wearer, wrist), rows in sorted(train.items())
    )
    return FleetData(
        devices=devices, test_x=_stack(test), test_y=_labels(test), classes=watch.exercises, test_wearers=test_wearers
    )


def _windows(recording: Recording, divisors: npt.NDArray[np.float32]) -> Iterator[tuple[int, Inputs]]:
    """Number and float32[6, 100] of each two-second window, one starting every second."""
    samples = recording.samples.astype(np.float32) / divisors
    for number, start in enumerate(range(0, len(samples) - WINDOW_SAMPLES + 1, STRIDE_SAMPLES)):
        yield number, samples[start : start + WINDOW_SAMPLES].T


def _judges(number: int, recording: Recording, held_out: HeldOut, test_wearers: tuple[int, ...]) -> bool:
    if held_out == "wearers":
        return recording.wearer in test_wearers
    return number % TEST_WINDOW_STEP == TEST_WINDOW_FIRST


def _touches_a_test_window(number: int) -> bool:
    """Whether a window shares samples with a test window before or after it."""
    reach = (WINDOW_SAMPLES - 1) // STRIDE_SAMPLES
    return any((number + step) % TEST_WINDOW_STEP == TEST_WINDOW_FIRST for step in range(-reach, reach + 1))


def _choose_wearers(recordings: tuple[Recording, ...], seed: int) -> tuple[int, ...]:
    wearers = sorted({recording.wearer for recording in recordings})
    if len(wearers) <= TEST_WEARERS:
        raise ConfigError(f"the recordings hold {len(wearers)} wearers; holding out two leaves nobody to train")
    chosen = np.random.default_rng(seed).choice(len(wearers), size=TEST_WEARERS, replace=False)
    return tuple(sorted(wearers[int(index)] for index in chosen))


def _stack(rows: list[tuple[Inputs, int]]) -> Inputs:
    return np.ascontiguousarray(np.stack([window for window, _ in rows]), dtype=np.float32)


def _labels(rows: list[tuple[Inputs, int]]) -> Labels:
    return np.array([label for _, label in rows], dtype=np.int64)
