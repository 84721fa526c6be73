"""`headwater aggregator`: the one process that advances a task's model."""

from pathlib import Path
from typing import Annotated

import typer

from aggregator.chain.read_ahead import ReadAhead
from headwater.hurry import hurried
from headwater.options import Bootstrap, Task


def command(
    task: Task,
    bootstrap: Bootstrap = None,
    listen_port: Annotated[
        int | None, typer.Option(help="Port of /metrics and the probes; 0 takes a free one.")
    ] = None,
    fleet_page: Annotated[
        bool | None, typer.Option("--fleet-page", help="Serve the fleet page at / to browsers on this machine.")
    ] = None,
    listen_host: Annotated[str | None, typer.Option(help="Address that the port is opened on.")] = None,
    cache_dir: Annotated[
        str | None, typer.Option(help="Directory for the newest keyframe: a restart on this machine is quicker.")
    ] = None,
    standby: Annotated[
        bool, typer.Option("--standby", help="Follow another aggregator, write nothing, and lead when SIGUSR1 comes.")
    ] = False,
    accept_loss: Annotated[
        bool, typer.Option("--accept-loss", help="Once: go on without inputs that the log lost before they were read.")
    ] = False,
    accept_divergence: Annotated[
        bool,
        typer.Option("--accept-divergence", help="Once: go on although the model cannot be derived again exactly."),
    ] = False,
) -> None:
    """Fold the devices' updates into the model and write the chain, until Ctrl-C or SIGTERM.

    May be killed and started again at any moment. Two at once are safe: one of them ends with status 75. In
    Kubernetes run two and set HEADWATER_LEASE_NAME: one leads, the other follows and takes over at its end. Without
    Kubernetes a second one with --standby follows in the same way, and `kill -USR1` makes it lead.
    """
    given = {"listen_port": listen_port, "listen_host": listen_host, "fleet_page": fleet_page, "cache_dir": cache_dir}
    with hurried():
        from headwater.prepared import prepared

        settings = prepared(bootstrap, aggregator=given)
        folder = settings.aggregator.cache_dir
        ahead = ReadAhead(Path(folder) / task) if folder else None
        from aggregator.restore.recovery import Accept
        from headwater.aggregating import aggregate
    aggregate(
        task, settings, accept=Accept(loss=accept_loss, divergence=accept_divergence), standby=standby, ahead=ahead
    )
