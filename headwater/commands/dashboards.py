"""`headwater dashboards`: give Grafana its dashboards, or look at them without Grafana."""

import time
from pathlib import Path
from typing import Annotated

import typer

from headwater.preview.draw import draw
from headwater.preview.prometheus import Prometheus
from monitoring.dashboards import DASHBOARDS, grafana_file

app = typer.Typer(no_args_is_help=True)

_POINTS = 240

Out = Annotated[Path, typer.Option(help="Folder to write into; made if it is not there.", file_okay=False)]


@app.command()
def export(out: Out = Path("dashboards")) -> None:
    """Write the dashboards as Grafana reads them: import them by hand, or let it provision the folder."""
    out.mkdir(parents=True, exist_ok=True)
    for dashboard in DASHBOARDS:
        source = grafana_file(dashboard)
        (out / source.name).write_bytes(source.read_bytes())
        typer.echo(out / source.name)


@app.command()
def preview(
    task: Annotated[str, typer.Option(help="Name of the task, or a regular expression of names.")] = ".*",
    prometheus: Annotated[str, typer.Option(help="Address of a Prometheus.")] = "http://localhost:9090",
    minutes: Annotated[float, typer.Option(min=1, max=44_640, help="How far to look back.")] = 60,
    rate_s: Annotated[
        float, typer.Option(min=1, max=86_400, help="Window of rates: at least four times what passes between scrapes.")
    ] = 120,
    out: Out = Path("report"),
) -> None:
    """Draw every panel into pictures, from a live Prometheus: what a person would see in Grafana, roughly."""
    out.mkdir(parents=True, exist_ok=True)
    span_s = 60 * minutes
    source = Prometheus(
        url=prometheus, task=task, end_s=time.time(), span_s=span_s, step_s=max(1.0, span_s / _POINTS), rate_s=rate_s
    )
    for dashboard in DASHBOARDS:
        path, empty = draw(dashboard, source, out)
        typer.echo(f"{path}" + (f"  (no data for: {', '.join(empty)})" if empty else ""))
