"""Turns a dashboard into Grafana's JSON, through Grafana's own library of builders (needs the extra `dev`)."""

import itertools
import json
from typing import Any

from monitoring.dashboards.model import Dashboard, Good, Kind, Limit, Panel

_DATASOURCE = "${datasource}"
_TASKS = "label_values(headwater_model_version, task)"
_STAT_HEIGHT, _HEIGHT = 4, 8


def to_json(dashboard: Dashboard) -> str:
    """The dashboard as a file for Grafana 11: same tables, same bytes."""
    from grafana_foundation_sdk.builders.dashboard import Dashboard as Builder
    from grafana_foundation_sdk.builders.dashboard import Row as Heading
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.models.dashboard import DashboardCursorSync

    builder = (
        Builder(dashboard.title)
        .uid(f"headwater-{dashboard.name}")
        .description(dashboard.description)
        .tags(["headwater"])
        .readonly()
        .refresh("10s")
        .time("now-1h", "now")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .link(_links())
        .with_variable(_datasource_variable())
        .with_variable(_task_variable())
    )
    numbers = itertools.count(1)
    for row in dashboard.rows:
        builder.with_row(Heading(row.title).id(next(numbers)))
        for panel in row.panels:
            builder.with_panel(_panel(panel).id(next(numbers)))
    return json.dumps(builder.build(), cls=JSONEncoder, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _links() -> Any:
    from grafana_foundation_sdk.builders.dashboard import DashboardLink
    from grafana_foundation_sdk.models.dashboard import DashboardLinkType

    link = DashboardLink("Headwater").type(DashboardLinkType.DASHBOARDS).tags(["headwater"])
    return link.keep_time(True).include_vars(True)


def _datasource_variable() -> Any:
    from grafana_foundation_sdk.builders.dashboard import DatasourceVariable

    return DatasourceVariable("datasource").label("Prometheus").type("prometheus")


def _task_variable() -> Any:
    from grafana_foundation_sdk.builders.dashboard import QueryVariable
    from grafana_foundation_sdk.models.dashboard import VariableRefresh

    variable = QueryVariable("task").label("Task").datasource(_datasource()).query(_TASKS)
    return variable.refresh(VariableRefresh.ON_TIME_RANGE_CHANGED).multi(True).include_all(True)


def _datasource() -> Any:
    from grafana_foundation_sdk.models.dashboard import DataSourceRef

    return DataSourceRef(type_val="prometheus", uid=_DATASOURCE)


def _panel(panel: Panel) -> Any:
    builder = _KINDS[panel.kind](panel)
    builder.title(panel.title).description(panel.description).datasource(_datasource())
    builder.span(panel.width).height(_STAT_HEIGHT if panel.kind is Kind.STAT else _HEIGHT)
    if panel.kind is not Kind.HEATMAP:
        builder.unit(panel.unit.value).min(0)
    if panel.top is not None:
        builder.max(panel.top)
    if panel.limit is not None:
        builder.thresholds(_thresholds(panel.limit))
    for index, query in enumerate(panel.queries):
        builder.with_target(_target(panel.kind, query.expr, query.legend, chr(ord("A") + index)))
    return builder


def _target(kind: Kind, expr: str, legend: str, name: str) -> Any:
    from grafana_foundation_sdk.builders.prometheus import Dataquery
    from grafana_foundation_sdk.models.prometheus import PromQueryFormat

    target = Dataquery().expr(expr).legend_format(legend).ref_id(name).datasource(_datasource())
    if kind is Kind.HEATMAP:
        target.format(PromQueryFormat.HEATMAP)
    return target.instant() if kind is Kind.BARS else target.range()


def _lines(panel: Panel) -> Any:
    from grafana_foundation_sdk.builders.common import StackingConfig, VizLegendOptions
    from grafana_foundation_sdk.builders.timeseries import Panel as Lines
    from grafana_foundation_sdk.models.common import (
        LegendDisplayMode,
        LegendPlacement,
        StackingMode,
        VisibilityMode,
    )

    legend = VizLegendOptions().display_mode(LegendDisplayMode.TABLE).placement(LegendPlacement.BOTTOM)
    lines = Lines().legend(legend.show_legend(True).calcs(["lastNotNull", "max"]))
    lines.show_points(VisibilityMode.NEVER).line_width(2).fill_opacity(8)
    if panel.kind is Kind.STACKED:
        lines.stacking(StackingConfig().mode(StackingMode.NORMAL)).fill_opacity(40)
    return lines


def _stat(panel: Panel) -> Any:
    from grafana_foundation_sdk.builders.stat import Panel as Stat
    from grafana_foundation_sdk.models.common import BigValueColorMode, BigValueGraphMode

    colour = BigValueColorMode.NONE if panel.limit is None else BigValueColorMode.BACKGROUND
    return Stat().reduce_options(_last()).color_mode(colour).graph_mode(BigValueGraphMode.AREA)


def _bars(panel: Panel) -> Any:
    from grafana_foundation_sdk.builders.bargauge import Panel as Bars
    from grafana_foundation_sdk.models.common import VizOrientation

    return Bars().reduce_options(_last()).orientation(VizOrientation.HORIZONTAL)


def _heatmap(panel: Panel) -> Any:
    from grafana_foundation_sdk.builders.heatmap import HeatmapColorOptions, YAxisConfig
    from grafana_foundation_sdk.builders.heatmap import Panel as Heatmap

    colours = HeatmapColorOptions().scheme("Oranges").steps(64)
    return Heatmap().calculate(False).color(colours).y_axis(YAxisConfig().unit(panel.unit.value))


def _last() -> Any:
    from grafana_foundation_sdk.builders.common import ReduceDataOptions

    return ReduceDataOptions().calcs(["lastNotNull"])


def _thresholds(limit: Limit) -> Any:
    from grafana_foundation_sdk.builders.dashboard import ThresholdsConfig
    from grafana_foundation_sdk.models.dashboard import Threshold, ThresholdsMode

    if limit.good is Good.LOW:
        steps = [Threshold(None, "green"), Threshold(limit.warn, "orange"), Threshold(limit.bad, "red")]
    else:
        steps = [Threshold(None, "red"), Threshold(limit.bad, "orange"), Threshold(limit.warn, "green")]
    return ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)


_KINDS = {Kind.LINES: _lines, Kind.STACKED: _lines, Kind.STAT: _stat, Kind.BARS: _bars, Kind.HEATMAP: _heatmap}
