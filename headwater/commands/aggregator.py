"""`headwater aggregator`: the one process that advances a task's model."""

import asyncio
from typing import Annotated

import typer

from aggregator.shell import Aggregator
from broker_topics.bus import Bus
from headwater.process import connection, observed, serve


def command(
    task: Annotated[str, typer.Option("--task", help="Name of the task.")],
    bootstrap: Annotated[
        str | None, typer.Option(help="Broker address host:port; default HEADWATER_BOOTSTRAP.")
    ] = None,
    metrics_port: Annotated[int, typer.Option(help="Port of /metrics and the probes; 0 picks a free one.")] = 9400,
    metrics_host: Annotated[str, typer.Option(help="Address that the port is opened on.")] = "127.0.0.1",
) -> None:
    """Fold the devices' updates into the model and write the chain, until Ctrl-C or SIGTERM.

    May be killed and started again at any moment. Two at once are safe: one of them ends with status 75.
    """

    async def work(bus: Bus, stop: asyncio.Event) -> None:
        aggregator = Aggregator(bus=bus, task=task, stop=stop)
        async with observed(aggregator.metrics, aggregator.readiness, host=metrics_host, port=metrics_port):
            await aggregator.run()

    serve(connection(bootstrap), work)
