"""`headwater demo`: twenty smartwatches train one model over a real Kafka."""

import asyncio
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from broker_topics.errors import ConfigError, ExitCode


class HeldOutChoice(StrEnum):
    """What the model is judged by."""

    WINDOWS = "windows"
    WEARERS = "wearers"


class BrokerChoice(StrEnum):
    """Where the log lies."""

    KAFKA = "kafka"
    MEMORY = "memory"


def command(
    out: Annotated[Path, typer.Option(help="Folder of the report: summary.json and pictures.")] = Path("report"),
    seed: Annotated[int, typer.Option(help="Seed of model, speeds and absences.")] = 7,
    held_out: Annotated[
        HeldOutChoice, typer.Option(help="Judge by windows of the same people, or by two people never seen.")
    ] = HeldOutChoice.WINDOWS,
    broker: Annotated[
        BrokerChoice, typer.Option(help="kafka starts a real one; memory runs everything in one process.")
    ] = BrokerChoice.KAFKA,
    bootstrap: Annotated[
        str | None, typer.Option(help="host:port of your own Kafka instead; its new topics stay there.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the broker's data and say how to go on.")] = False,
    max_seconds: Annotated[float, typer.Option(help="Give up after this long.", min=1)] = 300.0,
) -> None:
    """Train one model on twenty watches, asynchronously, over Apache Kafka; no data leaves a device.

    Real recordings of ten people, one device for each wrist. Some devices are ten times slower than others, all are
    offline now and then, and nobody waits for anybody. Kill any process while it runs and see that nothing is lost.
    Ends with status 0 only if the target accuracy was held in three evaluations in a row.
    """
    from rich.console import Console

    from headwater.demo.place import Options
    from headwater.demo.run import run_demo

    if bootstrap is not None and broker is BrokerChoice.MEMORY:
        raise ConfigError("--bootstrap names a Kafka and --broker memory uses none; give one of them")
    options = Options(
        out=out,
        seed=seed,
        held_out=held_out.value,
        broker=broker.value,
        bootstrap=bootstrap,
        keep=keep,
        max_seconds=max_seconds,
    )
    if not asyncio.run(run_demo(options, Console())):
        raise typer.Exit(ExitCode.TARGET_MISSED)
