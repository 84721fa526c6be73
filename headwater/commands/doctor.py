"""`headwater doctor`: what would go wrong with this broker, this user and this machine, and what mends it."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from platformdirs import user_state_path

from broker_topics.access import Role
from broker_topics.errors import ExitCode
from headwater.checkup.examine import examine
from headwater.checkup.finding import as_json, console, healthy, table
from headwater.options import Bootstrap, Task
from headwater.prepared import prepared


def command(
    task: Task,
    role: Annotated[Role, typer.Option(help="Whose rights this user should have.")] = Role.AGGREGATOR,
    json: Annotated[bool, typer.Option("--json", help="Print the same as JSON.")] = False,
    bootstrap: Bootstrap = None,
) -> None:
    """Check broker, topics, rights, replicas, retention, clock, packages, K and disk; each line says what mends it.

    Run it with the settings and the user of the role that has trouble. Nothing is written. Ends with status 0 if all
    is well, 1 if something must be mended.
    """
    settings = prepared(bootstrap)
    state_dir = Path(settings.worker.state_dir) if settings.worker.state_dir else user_state_path("headwater")
    findings = asyncio.run(examine(settings.connection, task, role, state_dir.absolute()))
    if json:
        typer.echo(as_json(task, findings))
    else:
        console().print(table(findings))
    if not healthy(findings):
        raise typer.Exit(ExitCode.TARGET_MISSED)
