"""Where continuous integration runs, a skipped test is a failure."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize(("no_skips", "status"), [("", 0), ("1", 1)])
def test_a_skip_fails_the_run_only_where_that_is_asked(tmp_path: Path, no_skips: str, status: int) -> None:
    test = tmp_path / "test_some.py"
    test.write_text("import pytest\ndef test_one(): pytest.skip('no tool')\ndef test_two(): pass\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", "-p", "no:cacheprovider", str(test)]
    env = os.environ | {"HEADWATER_NO_SKIPS": no_skips, "PYTEST_ADDOPTS": ""}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == status, done.stdout
    assert ("a skip counts as a failure" in done.stdout) == bool(status)
