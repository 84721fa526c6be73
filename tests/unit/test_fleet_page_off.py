"""The fleet page is there for whoever asks for it, and for nobody else."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from headwater.settings import load
from monitoring.page.page import EVENTS, FILES
from tests.kafka.support import REPOSITORY, free_port, get

PAGE = {"HEADWATER_AGGREGATOR_FLEET_PAGE": "true"}


@contextmanager
def aggregator(folder: Path, *options: str, **environment: str) -> Iterator[int]:
    """The port of a process that serves while its broker does not answer; gone at the end."""
    port, log = free_port(), folder / "aggregator.log"
    known = {name: value for name, value in os.environ.items() if not name.startswith("HEADWATER_")}
    quick = {"HEADWATER_AGGREGATOR_PRELOAD": "false", "HEADWATER_CONNECT_PATIENCE_S": "600"}
    command = ["aggregator", "--task", "watch", "--bootstrap", "127.0.0.1:9", "--listen-port", str(port), *options]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "headwater", *command],
            cwd=folder,
            env=known | quick | {"PYTHONPATH": str(REPOSITORY)} | environment,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        give_up = time.monotonic() + 60
        while not _answers(port):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < give_up, log.read_text()
            time.sleep(0.05)
        yield port
    finally:
        process.kill()
        process.wait()


def _answers(port: int) -> bool:
    try:
        return get(port, "/livez")[0] == 200
    except OSError:
        return False


def test_the_page_is_off_in_the_settings_unless_somebody_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PAGE:
        monkeypatch.delenv(name, raising=False)
    assert load().aggregator.fleet_page is False
    monkeypatch.setenv("HEADWATER_AGGREGATOR_FLEET_PAGE", "true")
    assert load().aggregator.fleet_page is True


def test_an_aggregator_that_nobody_told_to_serves_no_page_and_none_of_its_files(tmp_path: Path) -> None:
    with aggregator(tmp_path) as port:
        assert {path: get(port, path)[0] for path in FILES} == dict.fromkeys(FILES, 404)
        assert get(port, EVENTS)[0] == 404
        assert get(port, "/metrics")[0] == 200


@pytest.mark.parametrize(("options", "environment"), [(["--fleet-page"], {}), ([], PAGE)], ids=["option", "variable"])
def test_an_aggregator_that_is_told_to_serves_the_page(
    options: list[str], environment: dict[str, str], tmp_path: Path
) -> None:
    with aggregator(tmp_path, *options, **environment) as port:
        status, page = get(port, "/")
        assert status == 200
        assert "<title>Headwater</title>" in page
