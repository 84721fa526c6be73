"""The same log gives the same model on every machine, whatever its processor can do."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.fold_fixture import run

ROOT = Path(__file__).parents[2]

VECTORS = "b903ad54edb3a9158a59bf462865301093f0c7115845a41bb814fa4abd6158de"
FIGURES = "4c97f0390907de36725fc4a1825bd1b0f66589040ba72cfbbeb6525089b93af7"


USABLE = """
from numpy._core import _multiarray_umath as numpy_core
print(*[name for name in numpy_core.__cpu_dispatch__ if numpy_core.__cpu_features__.get(name)])
"""


def usable(disabled: str = "") -> list[str]:
    """The processor features between which numpy chooses, in a process with some of them disabled."""
    environment = {**os.environ, "NPY_DISABLE_CPU_FEATURES": disabled}
    done = subprocess.run(
        [sys.executable, "-c", USABLE], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.split()


def in_another_process(disabled: list[str]) -> tuple[str, str]:
    environment = {**os.environ, "NPY_DISABLE_CPU_FEATURES": " ".join(disabled)}
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.fold_fixture"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    vectors, figures = done.stdout.split()
    return vectors, figures


def test_a_fixed_log_folds_to_the_model_that_it_always_came_to() -> None:
    assert run() == (VECTORS, FIGURES)


@pytest.mark.parametrize("kept", [0, 1])
def test_a_fixed_log_folds_to_the_same_model_without_the_processors_wide_instructions(kept: int) -> None:
    """Once with all of them off, once with the narrowest left on."""
    assert in_another_process(usable()[kept:]) == (VECTORS, FIGURES)


def test_the_switch_for_wide_instructions_is_obeyed() -> None:
    """Else the test above would compare a thing with itself."""
    assert usable(" ".join(usable())) == []
