"""Puts an aggregator's process together from its settings, and serves until it is told to stop."""

import asyncio
import signal
from functools import partial
from pathlib import Path

from aggregator.chain.cache import KeyframeCache
from aggregator.chain.read_ahead import ReadAhead
from aggregator.leadership.election import Terms
from aggregator.leadership.lease import KubernetesLease, LeaseElection, Told, own_identity
from aggregator.restore.recovery import Accept
from aggregator.shell import Aggregator
from broker_topics.bus import Bus
from broker_topics.codecs import defer_kernels, load_kernels
from broker_topics.errors import ConfigError
from headwater.process import Shown, observed, serve, told_by
from headwater.sections import LeaseSettings
from headwater.settings import Settings
from monitoring.metrics import Metrics
from monitoring.page.history import History


def aggregate(task: str, settings: Settings, *, accept: Accept, standby: bool, ahead: ReadAhead | None = None) -> None:
    """Advance the task's model until Ctrl-C or SIGTERM; with `standby`, from the moment that SIGUSR1 comes.

    Args:    ahead: what is reading the newest keyframe of the cache already.
    Raises:  ConfigError: standing by is asked for where the Lease decides anyway.
    """
    if standby and settings.lease.name:
        raise ConfigError(
            "with HEADWATER_LEASE_NAME every aggregator stands by until the Lease is its own: drop --standby"
        )
    cohorts = [name.strip() for name in settings.aggregator.cohorts.split(",") if name.strip()]
    metrics = Metrics(task=task, cohorts=cohorts)
    (load_kernels if settings.aggregator.preload else defer_kernels)()
    folder = settings.aggregator.cache_dir
    cache = KeyframeCache(Path(folder), task, ahead) if folder else None
    work = partial(_work, task=task, settings=settings, metrics=metrics, accept=accept, standby=standby, cache=cache)
    serve(settings.connection, work)


async def _work(
    bus: Bus,
    stop: asyncio.Event,
    *,
    task: str,
    settings: Settings,
    metrics: Metrics,
    accept: Accept,
    standby: bool,
    cache: KeyframeCache | None,
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
        cache=cache,
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
