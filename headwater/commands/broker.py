"""`headwater broker`: a real Apache Kafka on this machine, in the foreground."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from platformdirs import user_data_path

from broker_topics.errors import BusError, ConfigError
from broker_topics.local.cluster import LocalCluster
from broker_topics.local.ready import listed_brokers
from broker_topics.local.running import Running, find_running

DOWN_DEADLINE_S = 60.0

app = typer.Typer(no_args_is_help=True)

Data = Annotated[
    Path | None, typer.Option(help="Folder of the broker's data; the user's data folder if left out.", file_okay=False)
]


@app.command()
def up(
    nodes: Annotated[int, typer.Option(help="1, or 3 to see what happens when one dies.")] = 1,
    data: Data = None,
    port: Annotated[int, typer.Option(help="Client port of the first node; the next nodes follow.")] = 9092,
    metrics_port: Annotated[
        int | None, typer.Option(help="Show the first node's own metrics to Prometheus here; the next nodes follow.")
    ] = None,
    java: Annotated[Path | None, typer.Option(help="Java (17 or newer) to use instead of the wheel's own.")] = None,
) -> None:
    """Start Kafka and stay until Ctrl-C, SIGTERM or `headwater broker down`; the first start fetches 45 MB of jars."""
    for option, number, example in (("--port", port, 9092), ("--metrics-port", metrics_port, 9404)):
        if number is not None and not 1 <= number <= 65535 - 2:
            raise ConfigError(f"{option} {number}: choose one between 1 and 65533, for example {example}")
    folder = _folder(data)
    cluster = LocalCluster(data=folder, nodes=nodes, port=port, metrics_port=metrics_port, java=java, progress=_say)
    asyncio.run(_up(cluster, folder))


@app.command()
def down(data: Data = None) -> None:
    """Stop the broker that runs on this data, and wait until it has ended."""
    folder = _folder(data)
    running = find_running(folder)
    if running is None:
        typer.echo(f"no broker runs on {folder}")
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(running.pid, signal.SIGTERM)
    deadline = time.monotonic() + DOWN_DEADLINE_S
    while find_running(folder) is not None:
        if time.monotonic() > deadline:
            raise BusError(f"process {running.pid} still runs after {DOWN_DEADLINE_S:.0f} s: kill -9 {running.pid}")
        time.sleep(0.1)
    typer.echo(f"stopped the broker on {folder}")


@app.command()
def status(data: Data = None) -> None:
    """Say whether a broker runs on this data and answers; exit status 69 when it does not."""
    folder = _folder(data)
    running = find_running(folder)
    if running is None:
        raise BusError(f"no broker runs on {folder}: start one with `headwater broker up`")
    if not running.bootstrap:
        raise BusError(f"the broker on {folder} is still starting (process {running.pid}): ask again in a few seconds")
    live = asyncio.run(_live(running))
    typer.echo(
        f"{live} of {running.nodes} node(s) live at {running.bootstrap}, supervisor {running.pid}, data {folder}"
    )
    if live < running.nodes:
        raise BusError(f"{running.nodes - live} node(s) do not answer: their logs are in {folder}/node-*/server.log")


def _folder(data: Path | None) -> Path:
    return (data or user_data_path("headwater") / "broker").absolute()


def _say(line: str) -> None:
    """Progress goes to stderr, so that stdout stays the result; on a terminal each line takes the place of the last."""
    again, end = ("\r\033[K", "") if sys.stderr.isatty() else ("", "\n")
    print(f"{again}{line}", end=end, file=sys.stderr, flush=True)


async def _up(cluster: LocalCluster, folder: Path) -> None:
    """Run the cluster until a signal; a signal during the start ends the start."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    serving = asyncio.create_task(_serve(cluster, folder))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
    if serving.done():
        await serving
        return
    _say("stopping")
    serving.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await serving


async def _serve(cluster: LocalCluster, folder: Path) -> None:
    async with cluster:
        if sys.stderr.isatty():
            _say("")
        typer.echo(f"Kafka is ready: {cluster.bootstrap}")
        typer.echo(f"  data  {folder}")
        for node, path in enumerate(cluster.log_files, start=1):
            typer.echo(f"  log   {path}  (node {node}, pid {cluster.pids.get(node)})")
        for node, address in enumerate(cluster.metrics_addresses, start=1):
            typer.echo(f"  metrics  {address}  (node {node})")
        typer.echo("Ctrl-C or `headwater broker down` stops it.")
        sys.stdout.flush()
        await cluster.wait_ended()


async def _live(running: Running) -> int:
    ports = [int(address.rpartition(":")[2]) for address in running.bootstrap.split(",")]
    answers = await asyncio.gather(*(listed_brokers(port) for port in ports))
    return max(len(answer) for answer in answers)
