"""`headwater aggregator`: the one process that advances a task's model."""

import asyncio
import signal
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from aggregator.chain.cache import KeyframeCache
from aggregator.leadership.election import Terms
from aggregator.leadership.lease import KubernetesLease, LeaseElection, Told, own_identity
from aggregator.restore.recovery import Accept
from aggregator.shell import Aggregator
from broker_topics.bus import Bus
from broker_topics.codecs import defer_kernels, load_kernels
from broker_topics.errors import ConfigError
from headwater.options import Bootstrap, Task
from headwater.process import Shown, observed, prepared, serve, told_by
from headwater.sections import LeaseSettings
from headwater.settings import Settings
from monitoring.metrics import Metrics
from monitoring.page.history import History


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
    settings = prepared(bootstrap, aggregator=given)
    if standby and settings.lease.name:
        raise ConfigError(
            "with HEADWATER_LEASE_NAME every aggregator stands by until the Lease is its own: drop --standby"
        )
    accept = Accept(loss=accept_loss, divergence=accept_divergence)
    cohorts = [name.strip() for name in settings.aggregator.cohorts.split(",") if name.strip()]
    metrics = Metrics(task=task, cohorts=cohorts)
    (load_kernels if settings.aggregator.preload else defer_kernels)()
    serve(settings.connection, partial(_work, task, settings, metrics, accept, standby))


async def _work(
    task: str, settings: Settings, metrics: Metrics, accept: Accept, standby: bool, bus: Bus, stop: asyncio.Event
) -> None:
    own = settings.aggregator
    history = History() if own.fleet_page else None
    aggregator = Aggregator(
        bus=bus,
        task=task,
        metrics=metrics,
        stop=stop,
        accept=accept,
        patience_s=settings.connection.connect_patience_s,
        straggler_places=own.straggler_places,
        keep_parts_s=own.keep_parts_s,
        history=history,
        cache=KeyframeCache(Path(own.cache_dir), task) if own.cache_dir else None,
    )
    if settings.lease.name:
        aggregator.election = await asyncio.to_thread(_election, settings.lease, metrics)
    elif standby:
        aggregator.election = Told(told_by(signal.SIGUSR1))
    async with observed(
        metrics,
        aggregator.readiness,
        settings=own,
        stragglers=aggregator.stragglers,
        shown=Shown(task=task, history=history) if history else None,
    ):
        await aggregator.run()


def _election(settings: LeaseSettings, metrics: Metrics) -> LeaseElection:
    return LeaseElection(
        store=KubernetesLease(settings.name, settings.namespace),
        terms=Terms.of(settings.duration_s),
        metrics=metrics,
        identity=settings.identity or own_identity(),
    )
