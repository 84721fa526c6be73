"""What a newcomer types wrong, where no broker is needed to say so: one line that names the mend, and status 2."""

from pathlib import Path

import numpy as np
import pytest

from broker_topics.errors import ConfigError, HeadwaterError
from headwater.cli import run
from headwater.loading import made_by
from worker import LocalResult

MODULE = """
import numpy as np
from broker_topics.errors import ToolMissingError

NUMBER = 3

def make_model():
    return {"w": np.zeros(3, np.float32)}

def make_float64():
    return {"w": np.zeros(3)}

def make_nothing():
    pass

def make_three():
    return 1, 2, 3

def make_with(name):
    return name

def fail():
    raise ValueError("my own mistake")

def fail_in_a_library():
    return np.zeros(3).reshape(2, 2)

def miss_a_tool():
    raise ToolMissingError("pip install something")
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's own folder, from which the commands are run."""
    (tmp_path / "my_bad_fleet.py").write_text(MODULE)
    (tmp_path / "broken.py").write_text("import math\n\ndef make(:\n")
    (tmp_path / "half.py").write_text("import numpi\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("my_bad_fleet", "write module:function, for example my_fleet:make_model"),
        (":make_model", "write module:function"),
        ("my_bad_fleet:", "write module:function"),
        ("my_bad_flet:make_model", "there is no module my_bad_flet in "),
        ("my_bad_flet:make_model", "run this in the folder of my_bad_flet.py, or correct the name"),
        ("my_bad_fleet.py:make_model", "leave out .py and write my_bad_fleet:make_model"),
        ("my_bad_fleet:mak_model", "module my_bad_fleet has no function mak_model"),
        ("my_bad_fleet:NUMBER", "module my_bad_fleet has no function NUMBER"),
        ("broken:make", "module broken cannot be imported: SyntaxError: invalid syntax (broken.py, line 3)"),
        ("half:make", "module half cannot be imported: ModuleNotFoundError: No module named 'numpi' ("),
        ("half:make", "half.py, line 1)"),
        ("my_bad_fleet:fail", "my_bad_fleet:fail failed: ValueError: my own mistake ("),
        ("my_bad_fleet:fail", "my_bad_fleet.py, line 23)"),
        ("my_bad_fleet:fail_in_a_library", "my_bad_fleet.py, line 26)"),
        ("my_bad_fleet:make_with", "make_with() missing 1 required positional argument: 'name'"),
        ("my_bad_fleet:make_float64", "tensor 'w' is float64, not float32: use array.astype(np.float32)"),
        ("my_bad_fleet:make_nothing", "a model of type NoneType is not supported: give a PyTorch module or a dict"),
    ],
)
def test_a_wrong_module_is_told_in_one_line_that_names_the_mend(
    capsys: pytest.CaptureFixture[str], module: str, said: str
) -> None:
    assert run(["task", "create", "--task", "t", "--module", module]) == 2
    errors = capsys.readouterr().err
    assert said in errors
    assert errors.count("\n") == 1


def test_an_error_of_ours_in_a_users_function_stays_what_it_is() -> None:
    with pytest.raises(HeadwaterError, match="pip install something") as raised:
        made_by("my_bad_fleet:miss_a_tool")
    assert raised.value.exit_code == 77


@pytest.mark.parametrize(
    ("pair", "said"),
    [
        ("buffer_size", "--set buffer_size: write name=value, for example --set buffer_size=5"),
        ("bufer_size=2", "unknown task setting 'bufer_size'; did you mean buffer_size?"),
        ("colour=red", "unknown task setting 'colour'; known are: arrival_correction, "),
        ("buffer_size=two", "buffer_size = 'two': must be a whole number"),
        ("buffer_size=2.5", "buffer_size = '2.5': must be a whole number"),
        ("density=lots", "density = 'lots': must be a number"),
        ("arrival_correction=yes", "arrival_correction = 'yes': must be true or false"),
        ("buffer_size=0", "buffer_size = 0: must lie between 1 and 10000"),
        ("density=0.5", "density = 0.5: must lie between 1e-05 and 0.2"),
        ("density=nan", "density must be finite"),
        ("rule=best", "rule = 'best': choose one of buffered, fedbuff, fedasync"),
        ("buffer_size=2000", "backlog_buffer_size = 1000: must be at least buffer_size = 2000; set both"),
        ("model=3", "model: name each number of the task's own, for example model.scale=9.8"),
        ("model.scale=big", "model.scale = 'big': must be a number"),
    ],
)
def test_a_wrong_setting_of_a_task_is_refused_before_anything_is_made(
    capsys: pytest.CaptureFixture[str], pair: str, said: str
) -> None:
    assert run(["task", "create", "--task", "t", "--module", "my_bad_fleet:make_model", "--set", pair]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["task", "show", "--task", "t", "--bootstrap", "localhost"], "bootstrap 'localhost': give host:port"),
        (["export", "--task", "t", "--out", "model.pt"], "model.pt: end the file name in .npz or .safetensors"),
        (["export", "--task", "t", "--out", "no/model.npz"], "folder no does not exist; make it first"),
        (["aggregator", "--task", "t", "--listen-port", "70000"], "aggregator.listen_port = 70000"),
        (["evaluator", "--task", "t", "--module", "my_bad_fleet:make_three"], "must return a model and a function"),
        (["worker", "--module", "my_bad_fleet:make_model"], "must return a Worker or a list of them, not dict"),
        (["broker", "up", "--nodes", "2", "--data", "kafka"], "a local cluster has 1 or 3 nodes, not 2"),
        (["broker", "up", "--port", "0", "--data", "kafka"], "--port 0: choose one between 1 and 65533"),
        (["demo", "--broker", "memory", "--bootstrap", "a:1"], "give one of them"),
    ],
)
def test_a_wrong_option_is_told_with_the_mend(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert run(arguments) == 2
    errors = capsys.readouterr().err
    assert said in errors
    assert "Traceback" not in errors


def test_a_settings_file_that_is_no_toml_ends_every_command(
    capsys: pytest.CaptureFixture[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "headwater.toml").write_text("[connection]\nbootstrap = localhost:9092\n")
    monkeypatch.setenv("HEADWATER_CONFIG", "headwater.toml")
    assert run(["task", "show", "--task", "t"]) == 2
    errors = capsys.readouterr().err
    assert "settings file headwater.toml cannot be read" in errors
    assert "line 2" in errors


@pytest.mark.parametrize(
    "counts",
    [
        {"num_examples": np.int64(3), "num_steps": np.int32(2)},
        {"num_examples": np.uint8(3), "num_steps": 2, "metrics": {"loss": np.float32(0.5), "right": np.int64(1)}},
        {"num_examples": 3, "num_steps": 2, "momentum": np.float64(0.9), "proximal": np.float32(0.1)},
    ],
)
def test_numbers_of_numpy_are_numbers(counts: dict[str, object]) -> None:
    result = LocalResult(**counts)  # type: ignore[arg-type]
    assert result.num_examples == 3


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"num_examples": 0}, "num_examples is 0: give the number of examples, at least 1"),
        ({"num_examples": 10**20}, "num_examples is 100000000000000000000"),
        ({"num_examples": 2.5}, "num_examples is 2.5"),
        ({"num_examples": True}, "num_examples is True"),
        ({"num_examples": None}, "num_examples is None"),
        ({"num_steps": -1}, "num_steps is -1: give the number of optimizer steps made"),
        ({"num_steps": 10**10}, "num_steps is 10000000000"),
        ({"momentum": 1.0}, "momentum is 1.0: give a number from 0 to below 1"),
        ({"momentum": float("nan")}, "momentum is nan"),
        ({"momentum": "0.9"}, "momentum is '0.9'"),
        ({"proximal": float("inf")}, "proximal is inf"),
        ({"proximal": None}, "proximal is None"),
        ({"metrics": {"loss": "low"}}, r"metric loss is str: give a number, such as float\(loss\)"),
        ({"metrics": {"loss": np.zeros(3)}}, "metric loss is ndarray"),
        ({"metrics": {"": 1.0}}, "metric name ''"),
        ({"metrics": {str(n): 1.0 for n in range(17)}}, "17 metrics are too many: give at most 16"),
        ({"metrics": [("loss", 1.0)]}, r"metrics is a list: give a dict, such as \{'loss': 0.5\}"),
        ({"metrics": None}, "metrics is a NoneType"),
    ],
)
def test_a_result_that_cannot_be_is_refused_by_name(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        LocalResult(**{"num_examples": 3, "num_steps": 2, **wrong})  # type: ignore[arg-type]
