"""A real Prometheus for tests: promtool, and a server that scrapes what a test starts."""

import shutil

import pytest

HOW_TO_GET_IT = "is not installed: apt install prometheus (Debian's package has promtool too)"


def tool(name: str) -> str:
    """Path of `prometheus` or `promtool`; skips the test where it is missing, which counts as a failure in CI."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} {HOW_TO_GET_IT}")
    return path
