"""Every event in the code is in the one bounded list, under a name that a person understands."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from monitoring.events import EVENTS

ROOT = Path(__file__).parents[2]
PACKAGES = ("broker_topics", "worker", "aggregator", "monitoring", "headwater")
METHODS = {"debug", "info", "warning", "error", "exception", "critical"}


def log_calls(source: str) -> Iterator[ast.Call]:
    """Calls such as `_log.info(…)`, `self._log.warning(…)` and `log.bind(…).error(…)`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in METHODS:
            receiver = ast.unparse(node.func.value).split(".bind(")[0].split(".")[-1]
            if re.fullmatch(r"_?(log|logger)", receiver):
                yield node


def events(call: ast.Call) -> list[object]:
    """The names that a call may write; a choice `a if b else c` counts both, anything computed is None."""
    if not call.args:
        return [None]
    first = call.args[0]
    options = [first.body, first.orelse] if isinstance(first, ast.IfExp) else [first]
    return [option.value if isinstance(option, ast.Constant) else None for option in options]


def test_every_logged_event_is_listed() -> None:
    unlisted = [
        f"{path.relative_to(ROOT)}:{call.lineno} {event}"
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        for call in log_calls(path.read_text())
        for event in events(call)
        if event not in EVENTS
    ]
    assert unlisted == [], "name the event with a plain string and list it in monitoring/events.py"


def test_the_walk_sees_what_it_should() -> None:
    source = """
_log.info("made_up", a=1)
self._log.bind(task=1).warning(f"computed {a}")
self.log.error("one" if a else "two")
logger.exception()
parser.error("not a log")
"""
    assert [events(call) for call in log_calls(source)] == [["made_up"], [None], ["one", "two"], [None]]


def test_event_names_are_plain_words_with_a_meaning() -> None:
    for name, meaning in EVENTS.items():
        assert re.fullmatch(r"[a-z][a-z_]+", name)
        assert meaning.endswith(".")
