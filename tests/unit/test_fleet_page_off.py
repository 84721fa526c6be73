"""The fleet page is there for whoever asks for it, and for nobody else."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from headwater.settings import load
from monitoring.page.page import EVENTS, FILES
from tests.kafka.support import fleet_in, free_port, get

PAGE = {"HEADWATER_AGGREGATOR_FLEET_PAGE": "true"}


@asynccontextmanager
async def aggregator(folder: Path, *options: str, **environment: str) -> AsyncIterator[int]:
    """The port of a process that serves while its broker does not answer; gone at the end."""
    port = free_port()
    with fleet_in(folder, "127.0.0.1:9", "watch") as fleet:
        patient = {"HEADWATER_CONNECT_PATIENCE_S": "600", **environment}
        fleet.start("aggregator", "--listen-port", str(port), *options, environment=patient)
        await fleet.until(lambda: _answers(port), "the aggregator answers")
        yield port


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


async def test_an_aggregator_that_nobody_told_to_serves_no_page_and_none_of_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in PAGE:
        monkeypatch.delenv(name, raising=False)
    async with aggregator(tmp_path) as port:
        assert {path: get(port, path)[0] for path in FILES} == dict.fromkeys(FILES, 404)
        assert get(port, EVENTS)[0] == 404
        assert get(port, "/metrics")[0] == 200


@pytest.mark.parametrize(("options", "environment"), [(["--fleet-page"], {}), ([], PAGE)], ids=["option", "variable"])
async def test_an_aggregator_that_is_told_to_serves_the_page(
    options: list[str], environment: dict[str, str], tmp_path: Path
) -> None:
    async with aggregator(tmp_path, *options, **environment) as port:
        status, page = get(port, "/")
        assert status == 200
        assert "<title>Headwater</title>" in page
