import io
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from broker_topics.errors import ConfigError, ToolMissingError
from headwater.demo.data import SensorScale, load_fleet
from headwater.demo.watch_file import find_watch_file, read_watch_file


def test_twenty_watches_hold_their_own_windows_and_463_judge_the_model() -> None:
    fleet = load_fleet("windows", seed=0)

    assert len(fleet.devices) == 20
    assert [device.name for device in fleet.devices[:3]] == ["watch-01-left", "watch-01-right", "watch-02-left"]
    assert fleet.test_x.shape == (463, 6, 100)
    assert sum(len(device.y) for device in fleet.devices) == 3291
    assert fleet.classes == ("PEN", "ABD", "FEL", "IR", "ER", "TRAP", "ROW")
    for device in fleet.devices:
        assert device.x.dtype == np.float32
        assert device.x.shape == (len(device.y), 6, 100)
        assert set(device.y) == {0, 1, 2, 3, 4, 5, 6}


def test_no_training_window_shares_a_sample_with_a_test_window() -> None:
    fleet = load_fleet("windows", seed=0)

    def instants(windows: np.ndarray) -> set[bytes]:
        return {instant.tobytes() for window in windows for instant in window.T}

    test = instants(fleet.test_x)
    training = set().union(*(instants(device.x) for device in fleet.devices))

    assert len(test) == 46_300
    assert not test & training


def test_two_wearers_kept_out_appear_in_the_test_alone() -> None:
    fleet = load_fleet("wearers", seed=1)

    assert len(fleet.devices) == 16
    assert len(fleet.test_wearers) == 2
    for wearer in fleet.test_wearers:
        assert not any(device.name.startswith(f"watch-{wearer:02d}-") for device in fleet.devices)
    assert len(fleet.test_y) + sum(len(device.y) for device in fleet.devices) == 4677


def test_the_seed_alone_chooses_the_wearers_kept_out() -> None:
    assert load_fleet("wearers", seed=3).test_wearers == load_fleet("wearers", seed=3).test_wearers
    assert len({load_fleet("wearers", seed=seed).test_wearers for seed in range(5)}) > 1


def test_inputs_are_divided_by_constants_of_the_sensor_and_by_nothing_else() -> None:
    raw = load_fleet("windows", seed=0, scale=SensorScale(acceleration_g=1.0, rotation_rad_s=1.0))
    halved = load_fleet("windows", seed=0, scale=SensorScale(acceleration_g=4.0, rotation_rad_s=2.0))

    np.testing.assert_array_equal(halved.test_x[:, :3] * np.float32(4), raw.test_x[:, :3])
    np.testing.assert_array_equal(halved.test_x[:, 3:] * np.float32(2), raw.test_x[:, 3:])


def test_the_recordings_are_read_as_numpy_itself_would_read_them() -> None:
    trusted = np.load(find_watch_file(), allow_pickle=True).item()

    watch = read_watch_file(find_watch_file())

    assert len(watch.recordings) == 140
    for recording, samples, exercise in zip(watch.recordings, trusted["X"], trusted["y"], strict=True):
        np.testing.assert_array_equal(recording.samples, samples)
        assert recording.exercise == exercise


def test_reading_recordings_imports_neither_seglearn_nor_scikit_learn_nor_torch() -> None:
    program = (
        "import sys; from headwater.demo.data import load_fleet; load_fleet('windows', 0);"
        "print([name for name in ('seglearn', 'sklearn', 'torch') if name in sys.modules])"
    )

    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert ended.stdout.strip() == "[]"


class _Touches:
    """Unpickled without care, this creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return (Path.touch, (self.path,))


def test_a_file_that_would_run_code_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    trap, proof = tmp_path / "trap.npy", tmp_path / "proof"
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|O", "fortran_order": False, "shape": ()})
    trap.write_bytes(header.getvalue() + pickle.dumps({"X": _Touches(proof)}))

    with pytest.raises(ConfigError, match="is not admitted"):
        read_watch_file(trap)

    assert not proof.exists()


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01\x00", b"PK\x03\x04 something else entirely"])
def test_a_file_that_is_no_recording_says_what_to_do(tmp_path: Path, content: bytes) -> None:
    broken = tmp_path / "broken.npy"
    broken.write_bytes(content)

    with pytest.raises(ConfigError, match="reinstall it"):
        read_watch_file(broken)


def test_recordings_with_other_axes_are_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.npy"
    np.save(
        other, np.array({"X": [], "y": [], "X_labels": ["x", "y"], "y_labels": []}, dtype=object), allow_pickle=True
    )

    with pytest.raises(ConfigError):
        read_watch_file(other)


def test_without_seglearn_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    with pytest.raises(ToolMissingError, match=r"headwater\[demo\]"):
        find_watch_file()
