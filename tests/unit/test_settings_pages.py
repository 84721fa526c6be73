"""The reference pages are written by the code and are up to date."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from broker_topics.errors import ConfigError, ExitCode, HeadwaterError, RejectCode
from broker_topics.task import TaskSettings
from headwater.configuration_page import EXITS, PAGES, SECTIONS, configuration_page, metrics_page, write
from headwater.reject_page import REJECTS
from headwater.settings import known_settings
from monitoring.events import EVENTS
from monitoring.metrics import Metrics

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("name", PAGES)
def test_the_page_in_the_repository_is_what_the_code_writes(name: str) -> None:
    mend = "run: python -m headwater.configuration_page"
    assert (DOCS / name).read_text(encoding="utf-8") == PAGES[name](), mend


def test_every_exit_code_has_its_section() -> None:
    headings = re.findall(r"^### (\d+): ", configuration_page(), re.MULTILINE)
    assert [int(number) for number in headings] == [0, 1, 2, 69, 70, 75, 76, 77]
    assert set(EXITS) == set(ExitCode)


def test_every_error_that_can_end_a_process_has_a_documented_exit_code() -> None:
    def below(kind: type[HeadwaterError]) -> list[type[HeadwaterError]]:
        return [kind, *(deeper for child in kind.__subclasses__() for deeper in below(child))]

    for kind in below(HeadwaterError):
        assert kind.exit_code in EXITS, kind.__name__


def test_every_reject_code_is_explained() -> None:
    assert list(REJECTS) == list(RejectCode)
    for code in RejectCode:
        assert f"| `{code}` | " in configuration_page()


def test_every_setting_is_on_the_page() -> None:
    page = configuration_page()
    for known in fields(TaskSettings):
        assert f"| `{known.name}` | " in page
    for setting in known_settings():
        assert f"| `{setting.name}` | `{setting.variable}` | " in page
        assert setting.section in SECTIONS


def test_every_metric_and_every_log_event_is_on_the_page() -> None:
    page = metrics_page()
    for definition in Metrics.definitions():
        assert f"| `{definition.name}` | " in page
    for event in EVENTS:
        assert f"| `{event}` | " in page


@pytest.mark.parametrize("name", PAGES)
def test_every_row_of_a_table_has_as_many_cells_as_its_head(name: str) -> None:
    width = 0
    for line in PAGES[name]().splitlines():
        cells = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else 0
        assert cells in {width, 0} or width == 0, line
        width = cells


def test_the_pages_are_written_only_where_there_is_a_directory(tmp_path: Path) -> None:
    write(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["configuration.md", "metrics.md"]
    with pytest.raises(ConfigError, match="run this in a checkout"):
        write(tmp_path / "nowhere")
