"""What a measurement hands on: a value, its unit, and the bar that it should meet, if there is one."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict


class Figure(TypedDict):
    """One line of report/bench.json; bar and met are None where nothing was promised."""

    name: str
    value: float
    unit: str
    bar: str | None
    met: bool | None


def plain(name: str, value: float, unit: str) -> Figure:
    """A figure for orientation."""
    return _figure(name, value, unit, None, None)


def at_least(name: str, value: float, bar: float, unit: str = "×") -> Figure:
    """A figure that should not be smaller than its bar."""
    return _figure(name, value, unit, f"≥ {bar:g}", value >= bar)


def at_most(name: str, value: float, bar: float, unit: str = "×") -> Figure:
    """A figure that should not be larger than its bar."""
    return _figure(name, value, unit, f"≤ {bar:g}", value <= bar)


def _figure(name: str, value: float, unit: str, bar: str | None, met: bool | None) -> Figure:
    return {"name": name, "value": float(f"{value:.4g}"), "unit": unit, "bar": bar, "met": met}


def show(figures: Sequence[Figure]) -> None:
    """Print one line a figure."""
    for figure in figures:
        mark = "" if figure["met"] is None else "ok" if figure["met"] else "MISSED"
        value = f"{figure['value']:,.10g}"
        print(f"{figure['name']:84s} {value:>10s} {figure['unit']:10s} {figure['bar'] or '':8s} {mark}".rstrip())


def write(figures: Sequence[Figure], path: Path) -> None:
    """Write them as JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_suffix(".part")
    half.write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    half.replace(path)
