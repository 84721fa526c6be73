"""A device's process trains with one thread unless told otherwise, and says when torch's own choice is a bad one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from worker import torch_threads

MODULE = """
import sys
import torch
from monitoring.logs import configure
from worker import torch_threads
configure(level="info", format_="json")
def make():
    print(torch.get_num_threads())
    torch_threads.look(lambda: 10_000.0)
    torch.set_num_threads(2)
    torch_threads.look(lambda: 0.5)
    print("seen", file=sys.stderr, flush=True)
    torch_threads.look(lambda: 10_000.0)
    torch_threads.look(lambda: 10_000.0)
    return "no worker"
"""


def test_a_module_finds_the_threads_of_the_setting_and_one_warning_where_they_are_too_many(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="PyTorch is not installed; pip install 'headwater[torch]'")
    (tmp_path / "fleet_of_none.py").write_text(MODULE)
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    command = [sys.executable, "-m", "headwater", "worker", "--module", "fleet_of_none:make"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.stdout == "1\n", done.stderr
    before, after = done.stderr.split("seen")
    assert "torch_threads_crowded" not in before
    warnings = [json.loads(line) for line in after.splitlines() if "torch_threads_crowded" in line]
    assert [warning["threads"] for warning in warnings] == [2]


@pytest.mark.parametrize(("before", "setting", "after"), [(None, 1, "1"), (None, 0, None), ("3", 1, "3")])
def test_the_environment_beats_the_setting_and_zero_leaves_torch_alone(
    before: str | None, setting: int, after: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", before or "")
    if before is None:
        monkeypatch.delenv("OMP_NUM_THREADS")
    torch_threads.limit(setting)
    assert os.environ.get("OMP_NUM_THREADS") == after
