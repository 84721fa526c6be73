"""What is wrong with a dashboard, from its JSON as Grafana reads it."""

import re
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from monitoring.alerts import Record, groups
from monitoring.metrics import Metrics

SERVED = {sample.name for metric in Metrics(task="t").registry.collect() for sample in metric.samples}
RECORDED = {rule.record for group in groups() for rule in group.rules if isinstance(rule, Record)}
OF_NO_TASK = {"headwater:slo_budget:ratio"}

_STRING = re.compile(r'"(?:\\.|[^"\\])*"')
_MATCHERS = re.compile(r"\{[^}]*\}")
_LABELS = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)")
_WINDOW = re.compile(r"\[([^\]]*)\]")
_COUNTER = re.compile(r"(\w+\s*\(\s*)?(?<![\w:])([a-zA-Z_:][\w:]*_(?:total|count|sum|bucket))\b(?!:)\s*(\[?)")
_OURS = re.compile(r"(?<![\w:])((?:headwater[_:]|process_)[\w:]+)(\{[^}]*\})?")
_BROKERS = re.compile(r"(?<![\w:])(?:kafka|jvm)_\w+")
_GROWTH = {"rate", "irate", "increase"}


class Rule(StrEnum):
    """What every dashboard keeps to."""

    VARIABLES = "the variables are datasource, a Prometheus, and task"
    DATASOURCE = "whatever asks, asks the chosen datasource"
    NUMBERS = "panels are numbered from 1 in order"
    PLACE = "a panel lies within 24 columns and hides no other"
    TITLE = "a title begins with a capital"
    DESCRIPTION = "a description is a sentence of more than 30 letters"
    UNIT = "a panel has a unit"
    QUERY = "a panel has a query"
    TASK = "a series is of the chosen task, or of brokers, which serve all"
    EXISTS = "a series of ours is served or recorded"
    WINDOW = "a window is Grafana's own $__rate_interval"
    COUNTER = "a counter is seen only through rate, irate or increase"


class Complaint(NamedTuple):
    """A rule that is broken; `where`: the panel's title, or the dashboard's."""

    rule: Rule
    where: str
    found: object


def complaints(page: Mapping[str, Any]) -> list[Complaint]:
    """Everything that is wrong with a dashboard; not changed."""
    return [*_of_page(page), *(complaint for panel in _panels(page) for complaint in _of_panel(panel))]


def _panels(page: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Every panel and every heading, those under a folded heading too."""
    for panel in page["panels"]:
        yield panel
        yield from panel.get("panels", ())


def _of_page(page: Mapping[str, Any]) -> Iterator[Complaint]:
    title = page.get("title", "")
    if not title[:1].isupper():
        yield Complaint(Rule.TITLE, title, title)
    if not _is_sentence(page.get("description", "")):
        yield Complaint(Rule.DESCRIPTION, title, page.get("description"))
    variables = page["templating"]["list"]
    kinds = [(each["name"], each["type"], each["query"] if each["type"] == "datasource" else "") for each in variables]
    if kinds != [("datasource", "datasource", "prometheus"), ("task", "query", "")]:
        yield Complaint(Rule.VARIABLES, title, kinds)
    for each in variables:
        if each["type"] == "query":
            yield from _asks_the_chosen(title, each)
    for number, panel in enumerate(_panels(page), 1):
        if panel["id"] != number:
            yield Complaint(Rule.NUMBERS, panel.get("title", ""), panel["id"])
    yield from _places(page)


def _places(page: Mapping[str, Any]) -> Iterator[Complaint]:
    taken: set[tuple[int, int]] = set()
    for panel in _panels(page):
        place = panel["gridPos"]
        own = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        if own & taken or place["x"] + place["w"] > 24 or not own:
            yield Complaint(Rule.PLACE, panel.get("title", ""), place)
        taken |= own


def _of_panel(panel: Mapping[str, Any]) -> Iterator[Complaint]:
    title = panel.get("title", "")
    if not title[:1].isupper():
        yield Complaint(Rule.TITLE, title, title)
    if panel["type"] == "row":
        return
    description = panel.get("description", "")
    if not _is_sentence(description):
        yield Complaint(Rule.DESCRIPTION, title, description)
    if not _unit(panel):
        yield Complaint(Rule.UNIT, title, _unit(panel))
    yield from _asks_the_chosen(title, panel)
    targets = panel.get("targets", [])
    if not targets:
        yield Complaint(Rule.QUERY, title, targets)
    for target in targets:
        yield from _asks_the_chosen(title, target)
        yield from (Complaint(rule, title, found) for rule, found in _of_expression(target["expr"]))


def _of_expression(expr: str) -> Iterator[tuple[Rule, str]]:
    if not expr:
        yield Rule.QUERY, expr
        return
    for name, matchers in _OURS.findall(expr):
        if name not in SERVED | RECORDED:
            yield Rule.EXISTS, name
        if name not in OF_NO_TASK and 'task=~"$task"' not in matchers:
            yield Rule.TASK, name
    if "$task" not in expr and not _OURS.search(expr) and not _BROKERS.search(expr):
        yield Rule.TASK, expr
    plain = _LABELS.sub(" ", _MATCHERS.sub("", _STRING.sub('""', expr)))
    for window in _WINDOW.findall(plain):
        if window != "$__rate_interval":
            yield Rule.WINDOW, window
    for before, name, window in _COUNTER.findall(plain):
        if before.rstrip("( \t\n") not in _GROWTH or not window:
            yield Rule.COUNTER, name


def _asks_the_chosen(where: str, asks: Mapping[str, Any]) -> Iterator[Complaint]:
    source = asks.get("datasource")
    if source != {"type": "prometheus", "uid": "${datasource}"}:
        yield Complaint(Rule.DATASOURCE, where, source)


def _unit(panel: Mapping[str, Any]) -> object:
    if panel["type"] == "heatmap":
        return panel["options"].get("yAxis", {}).get("unit")
    return panel["fieldConfig"]["defaults"].get("unit")


def _is_sentence(text: str) -> bool:
    return len(text) > 30 and text.endswith(".")
