"""`headwater status`: one screen that says how a task is."""

import asyncio
from dataclasses import asdict
from typing import Annotated

import typer

from broker_topics.bus import Bus
from broker_topics.errors import ExitCode
from headwater.checkup.facts import Facts, read_facts
from headwater.checkup.finding import as_json, console, healthy
from headwater.checkup.neighbour import Neighbour, ask
from headwater.checkup.status import judge, screen
from headwater.options import Bootstrap, Task
from headwater.prepared import prepared
from headwater.process import with_bus


def command(
    task: Task,
    aggregator: Annotated[
        str | None,
        typer.Option(help="http://HOST:PORT of the aggregator; default: this machine, the port in the settings."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the same as JSON.")] = False,
    bootstrap: Bootstrap = None,
) -> None:
    """Say how a task is: healthy, how far, who is slow, what is refused. Reads the broker and writes nothing.

    Ends with status 0 if it is healthy, 1 if somebody must act, 2 for an unknown task, 69 without a broker.
    """
    settings = prepared(bootstrap)
    asked = aggregator or f"http://127.0.0.1:{settings.aggregator.listen_port}"

    async def work(bus: Bus) -> tuple[Facts, Neighbour | None]:
        return await asyncio.gather(read_facts(bus, task), asyncio.to_thread(ask, asked))

    facts, neighbour = with_bus(settings.connection, work)
    findings = judge(facts, asked, neighbour, insists=aggregator is not None)
    if json:
        typer.echo(as_json(task, findings, facts=_finite(asdict(facts) | {"headroom_s": facts.headroom_s})))
    else:
        console().print(screen(facts, findings))
    if not healthy(findings):
        raise typer.Exit(ExitCode.TARGET_MISSED)


def _finite(facts: dict[str, object]) -> dict[str, object]:
    """JSON knows no infinity: what is kept for ever becomes null."""
    return {name: None if value in (float("inf"), float("-inf")) else value for name, value in facts.items()}
