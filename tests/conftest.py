"""What every test may use."""

import logging
import os
import uuid
from collections.abc import Iterator

import pytest

LONGEST = (
    *("kafka/test_demo", "kafka/test_first_fleet", "kafka/test_chaos", "unit/test_simulation", "kafka/test_broker"),
    *("kafka/test_large_model", "k8s/test_image", "kafka/test_takeover", "kafka/", "k8s/"),
)
"""Beginnings of paths in the order in which their files start; whatever else there is fills the gaps at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest, so that of several processes none is left alone with one of them."""

    def turn(item: pytest.Item) -> int:
        path = item.nodeid.removeprefix("tests/")
        return next((place for place, begins in enumerate(LONGEST) if path.startswith(begins)), len(LONGEST))

    items.sort(key=turn)


@pytest.fixture
def task_name() -> str:
    """A task that no other test has, so that tests can share a broker."""
    return f"t-{uuid.uuid4().hex[:12]}"


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """Whoever sets logging up, as every command does, does so for one test only."""
    loggers = [logging.getLogger(), logging.getLogger("headwater")]
    before = [(each.level, each.handlers[:], each.propagate, each.disabled) for each in loggers]
    yield
    for each, (level, handlers, propagate, disabled) in zip(loggers, before, strict=True):
        each.setLevel(level)
        each.propagate, each.disabled = propagate, disabled
        for handler in [new for new in each.handlers if new not in handlers]:
            each.removeHandler(handler)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Count a skip as a failure where HEADWATER_NO_SKIPS is set, as it is in `.ci/run`."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter is not None else []
    if os.environ.get("HEADWATER_NO_SKIPS") and skipped and exitstatus == pytest.ExitCode.OK:
        reporter.write_line(f"\n{len(skipped)} skipped: here a skip counts as a failure", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
