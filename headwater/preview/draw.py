"""One picture a dashboard: the same rows and panels as in Grafana, from the same queries."""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from broker_topics.errors import ToolMissingError
from headwater.demo.text_plot import human_bytes
from headwater.preview.prometheus import Prometheus, Series
from monitoring.dashboards.model import Dashboard, Good, Kind, Limit, Panel, Row, Unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

COLUMNS = 24
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#8A8A8A", "#000000")
"""Okabe and Ito's: told apart by readers with any colour vision."""
_GOOD, _WARN, _BAD = "#D8EFE6", "#FBE8C5", "#F6D0BF"
_STYLE: Any = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "savefig.dpi": 110,
}
_INCHES_WIDE, _TITLE, _HEADING, _LOW, _HIGH = 16.0, 0.5, 0.4, 1.1, 2.6

Answers = list[tuple[str, Series]]
"""Series of a panel with the names that its legend gives them."""


def draw(dashboard: Dashboard, prometheus: Prometheus, folder: Path) -> tuple[Path, list[str]]:
    """Draw one dashboard into `folder`, which exists.

    Returns: the file, and the titles of the panels for which Prometheus has nothing.
    Raises:  ToolMissingError: matplotlib is not installed.  ConfigError, BusError: as `Prometheus.ask`.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ToolMissingError("pictures need matplotlib; pip install 'headwater[demo]'") from error
    lines = [(row, line) for row in dashboard.rows for line in _lines(row)]
    heights = [_line_height(row, line) for row, line in lines]
    empty: list[str] = []
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(_INCHES_WIDE, _TITLE + sum(heights)))
        title, *parts = _stack(figure, [_TITLE, *heights])
        title.suptitle(
            f"{dashboard.title}: {dashboard.description}", x=0.01, y=0.8, ha="left", weight="bold", fontsize=13
        )
        for part, (row, line) in zip(parts, lines, strict=True):
            if line[0] is row.panels[0]:
                part.suptitle(row.title, x=0.01, y=0.995, ha="left", fontsize=11, color="#444444")
            empty += _draw_line(part, line, prometheus)
        path = folder / f"headwater-{dashboard.name}.png"
        figure.savefig(path)
    return path, empty


def _lines(row: Row) -> Iterator[list[Panel]]:
    """The panels of a row, as many side by side as fit."""
    line: list[Panel] = []
    for panel in row.panels:
        if sum(each.width for each in line) + panel.width > COLUMNS:
            yield line
            line = []
        line.append(panel)
    yield line


def _line_height(row: Row, line: list[Panel]) -> float:
    height = _LOW if all(panel.kind is Kind.STAT for panel in line) else _HIGH
    return height + (_HEADING if line[0] is row.panels[0] else 0.1)


def _stack(figure: "Figure", heights: list[float]) -> list["SubFigure"]:
    grid = figure.add_gridspec(len(heights), 1, height_ratios=heights, hspace=0)
    return [figure.add_subfigure(grid[index]) for index in range(len(heights))]


def _draw_line(part: "SubFigure", line: list[Panel], prometheus: Prometheus) -> Iterator[str]:
    """Draw panels side by side; the titles of those without data."""
    starts = [sum(panel.width for panel in line[:index]) for index in range(len(line))]
    low = all(panel.kind is Kind.STAT for panel in line)
    grid = part.add_gridspec(
        1, COLUMNS, left=0.04, right=0.99, wspace=3.0, bottom=0.08 if low else 0.24, top=0.6 if low else 0.84
    )
    for start, panel in zip(starts, line, strict=True):
        axes = part.add_subplot(grid[0, start : start + panel.width])
        axes.set_title(panel.title, loc="left", fontsize=8 if low else 9, weight="bold")
        answers = [
            (series.name(query.legend), series) for query in panel.queries for series in prometheus.ask(query.expr)
        ]
        if not answers:
            yield panel.title
            axes.set_axis_off()
            axes.text(0.5, 0.5, "no data", ha="center", va="center", color="#8A8A8A")
            continue
        _DRAW[panel.kind](axes, panel, answers)


def _plot(axes: "Axes", panel: Panel, answers: Answers) -> None:
    begin = min(series.times[0] for _, series in answers)
    for index, (name, series) in enumerate(answers):
        minutes = [(at - begin) / 60 for at in series.times]
        axes.plot(minutes, series.values, color=_COLOURS[index % len(_COLOURS)], linewidth=1.5, label=name)
    _finish(axes, panel, [name for name, _ in answers])


def _stacked(axes: "Axes", panel: Panel, answers: Answers) -> None:
    times = sorted({at for _, series in answers for at in series.times})
    known = [dict(zip(series.times, series.values, strict=True)) for _, series in answers]
    layers = [[values.get(at, 0.0) for at in times] for values in known]
    colours = [_COLOURS[index % len(_COLOURS)] for index in range(len(answers))]
    minutes = [(at - times[0]) / 60 for at in times]
    axes.stackplot(minutes, layers, colors=colours, labels=[name for name, _ in answers], alpha=0.75)
    _finish(axes, panel, [name for name, _ in answers])


def _finish(axes: "Axes", panel: Panel, names: Sequence[str]) -> None:
    axes.yaxis.set_major_formatter(lambda value, _: text_of(value, panel.unit))
    axes.set_ylim(bottom=0, top=panel.top)
    axes.grid(axis="y", color="#E9E9E9")
    axes.set_xlabel("minutes", fontsize=7, loc="right", labelpad=-2)
    columns = max(1, min(len(names), panel.width * 6 // max(map(len, names)), 4))
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=columns, fontsize=6, labelspacing=0.2)


def _stat(axes: "Axes", panel: Panel, answers: Answers) -> None:
    name, series = answers[0]
    last = series.values[-1]
    axes.set_facecolor("#F4F4F4" if panel.limit is None else _colour(last, panel.limit))
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.text(0.5, 0.5, text_of(last, panel.unit), ha="center", va="center", fontsize=17, transform=axes.transAxes)
    if len(answers) > 1:
        axes.text(0.98, 0.05, f"{name}, of {len(answers)}", ha="right", fontsize=6, transform=axes.transAxes)


def _bars(axes: "Axes", panel: Panel, answers: Answers) -> None:
    answers = sorted(answers, key=lambda answer: (len(answer[0]), answer[0]))
    values = [series.values[-1] for _, series in answers]
    bars = axes.barh(range(len(values)), values, color="#A9CFE8")
    axes.bar_label(bars, [text_of(value, panel.unit) for value in values], padding=2, fontsize=6)
    for row, (name, _) in enumerate(answers):
        axes.annotate(name, (0, row), (4, 0), textcoords="offset points", va="center", fontsize=6)
    axes.set_yticks([])
    axes.xaxis.set_major_formatter(lambda value, _: text_of(value, panel.unit))
    axes.set_xlim(0, max([panel.top or 1.0, *values]) * 1.15)
    axes.invert_yaxis()


def _heatmap(axes: "Axes", panel: Panel, answers: Answers) -> None:
    """Cumulative buckets become cells: what lies between one bound and the next."""
    by_bound = sorted((_bound(series), series) for _, series in answers)
    times = sorted({at for _, series in by_bound for at in series.times})
    known = [dict(zip(series.times, series.values, strict=True)) for _, series in by_bound]
    cells, below = [], [0.0] * len(times)
    for values in known:
        upto = [values.get(at, 0.0) for at in times]
        cells.append([max(0.0, now - before) for now, before in zip(upto, below, strict=True)])
        below = upto
    image = axes.imshow(cells, origin="lower", aspect="auto", cmap="Oranges", interpolation="nearest")
    axes.set_yticks(range(len(by_bound)), [f"≤ {bound:g}" for bound, _ in by_bound], fontsize=6)
    axes.set_xticks([])
    axes.set_xlabel(f"{(times[-1] - times[0]) / 60:.0f} minutes", fontsize=7)
    colorbar = axes.figure.colorbar(image, ax=axes, fraction=0.02, pad=0.01, format=lambda value, _: f"{value:g}/s")
    colorbar.ax.tick_params(labelsize=6)


def _bound(series: Series) -> float:
    return math.inf if series.labels["le"] == "+Inf" else float(series.labels["le"])


def _colour(value: float, limit: Limit) -> str:
    beyond: Callable[[float], bool] = (
        (lambda border: value >= border) if limit.good is Good.LOW else (lambda border: value < border)
    )
    return _BAD if beyond(limit.bad) else _WARN if beyond(limit.warn) else _GOOD


def text_of(value: float, unit: Unit) -> str:
    """A value as people read it.

    >>> text_of(0.935, Unit.RATIO), text_of(5400, Unit.SECONDS), text_of(0.0042, Unit.SECONDS)
    ('93.5%', '1.5 h', '4.2 ms')
    """
    match unit:
        case Unit.RATIO:
            return f"{100 * value:.3g}%"
        case Unit.BYTES:
            return human_bytes(value)
        case Unit.BYTES_PER_SECOND:
            return f"{human_bytes(value)}/s"
        case Unit.PER_SECOND:
            return f"{value:.3g}/s"
        case Unit.MILLISECONDS:
            return _duration(value / 1000)
        case Unit.SECONDS:
            return _duration(value)
        case Unit.COUNT | Unit.NUMBER:
            return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _duration(seconds: float) -> str:
    for size, name in ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")):
        if seconds >= size:
            return f"{seconds / size:.3g} {name}"
    return f"{seconds * 1000:.3g} ms"


_DRAW: dict[Kind, Callable[["Axes", Panel, Answers], None]] = {
    Kind.LINES: _plot,
    Kind.STACKED: _stacked,
    Kind.STAT: _stat,
    Kind.BARS: _bars,
    Kind.HEATMAP: _heatmap,
}
