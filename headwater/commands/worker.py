"""`headwater worker`: run the devices that a function of one's own returns."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from broker_topics.errors import ConfigError
from headwater.loading import made_by
from headwater.options import Bootstrap
from headwater.prepared import prepared
from headwater.process import stop_on_signals
from headwater.sections import WorkerSettings
from worker import Limits, Worker, torch_threads


def command(
    module: Annotated[str, typer.Option(help="module:function that returns a Worker, or a list of them.")],
    task: Annotated[
        str | None, typer.Option("--task", help="Name of the task; default: what the module's workers say.")
    ] = None,
    bootstrap: Bootstrap = None,
    state_dir: Annotated[
        Path | None, typer.Option(help="Folder in which each device keeps its state under its own id.")
    ] = None,
) -> None:
    """Train on this machine's data until Ctrl-C or SIGTERM; work that was begun is kept for the next start.

    Example: headwater worker --module my_fleet:make_worker
    """
    settings = prepared(bootstrap, worker={"state_dir": str(state_dir) if state_dir else None}).worker
    torch_threads.limit(settings.torch_threads)
    workers = workers_of(made_by(module), module)
    for worker in workers:
        # A folder from the settings is for workers that were made without; one from the command line is for all.
        wanted = settings.state_dir and (state_dir or worker.state_dir is None)
        worker.adopt(
            task=task,
            bootstrap=bootstrap,
            state_dir=Path(settings.state_dir) / quote(worker.client_id, safe="") if wanted else None,
            limits=_limits(settings),
            outbox_max_bytes=settings.outbox_max_bytes,
            cohort=settings.cohort,
        )
    asyncio.run(_serve(workers))


def workers_of(made: Any, module: str) -> Sequence[Worker]:
    """What a module's function returned, as a list; ConfigError unless it is workers with ids of their own."""
    workers = list(made) if isinstance(made, list | tuple) else [made]
    if not workers or not all(isinstance(worker, Worker) for worker in workers):
        raise ConfigError(f"{module} must return a Worker or a list of them, not {type(made).__name__}")
    ids = [worker.client_id for worker in workers]
    if len(set(ids)) != len(ids):
        raise ConfigError(f"{module}: two workers share a client_id; give each device its own")
    return workers


def _limits(settings: WorkerSettings) -> Limits:
    return Limits(
        backoff_initial_s=settings.backoff_initial_s,
        backoff_max_s=settings.backoff_max_s,
        max_age_s=settings.outbox_max_age_s,
    )


async def _serve(workers: Sequence[Worker]) -> None:
    """Serve all until a signal; one that fails stops the others in order, then its error is raised."""
    stop = stop_on_signals()
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(worker.serve()) for worker in workers]
        watch = group.create_task(_pass_on(stop, workers))
        try:
            await asyncio.wait(running, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            stop.set()
            await watch
            await asyncio.gather(*running, return_exceptions=True)


async def _pass_on(stop: asyncio.Event, workers: Sequence[Worker]) -> None:
    await stop.wait()
    for worker in workers:
        worker.stop()
