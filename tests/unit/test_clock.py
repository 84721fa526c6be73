"""An aggregator whose wall clock is a year off, frozen or leaps decides as one whose clock is right.

Debian's faketime sets the clock of whole processes; the monotonic one is left alone, or asyncio would hang.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.faketime import lying_clock

REPOSITORY = Path(__file__).parents[2]
CLOCKS = {"behind": "-365d", "ahead": "+365d", "frozen": "2024-02-29 12:00:00"}


def preloaded() -> dict[str, str]:
    environment = lying_clock()
    if environment is None:
        pytest.skip("faketime is not installed: apt install faketime")
    return environment


def run(*arguments: str, **environment: str) -> list[Any]:
    """The chain that `tests.clock_run` made."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.clock_run", str(time.time()), *arguments],
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    chain: list[Any] = json.loads(done.stdout.splitlines()[-1])
    return chain


@pytest.fixture(scope="module")
def right() -> list[Any]:
    chain = run()
    assert chain[-1][0] == 7
    assert sum(code is not None for record in chain for *_, code in record[4]) == 3
    return chain


@pytest.mark.parametrize("clock", CLOCKS)
def test_a_wrong_clock_changes_no_decision_and_no_hash(right: list[Any], clock: str) -> None:
    assert run(**preloaded(), FAKETIME=CLOCKS[clock]) == right


def test_a_clock_that_leaps_by_years_changes_no_decision_and_no_hash(right: list[Any], tmp_path: Path) -> None:
    leaping = tmp_path / "clock"
    leaping.write_text("+0")
    assert run(str(leaping), **preloaded(), FAKETIME_TIMESTAMP_FILE=str(leaping)) == right


def test_the_clock_of_these_tests_really_lies() -> None:
    line = "import time; print(time.gmtime().tm_year, time.monotonic() > 0)"
    environment = {**os.environ, **preloaded(), "FAKETIME": CLOCKS["frozen"]}
    done = subprocess.run([sys.executable, "-c", line], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2024", "True"]
