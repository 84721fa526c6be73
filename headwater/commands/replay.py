"""`headwater replay`: derive the model again from the log, and compare."""

from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from aggregator.restore.replay import Replayed, replay
from broker_topics.bus import Bus
from headwater.options import Bootstrap, Task
from headwater.prepared import connection
from headwater.process import with_bus


def command(
    task: Task,
    to: Annotated[int | None, typer.Option("--to", help="Model version to stop at; default the newest.")] = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Fold the log once more, from the oldest keyframe that retention still covers, and compare every hash.

    Ends with status 0 only if every version came out with the very bytes that the chain names.
    """

    async def work(bus: Bus) -> Replayed:
        with Progress(console=Console(stderr=True), transient=True) as bar:
            line = bar.add_task("replaying")
            return await replay(
                bus, task, to_version=to, progress=lambda done, total: bar.update(line, completed=done, total=total)
            )

    done = with_bus(connection(bootstrap), work)
    typer.echo(
        f"versions {done.from_version} to {done.to_version}: {done.records} records, {done.inputs} updates read again, "
        f"{done.accepted} of them applied; every hash agrees"
    )
    typer.echo(f"served model {done.served_hash.hex()}")
    typer.echo(f"chain head   {done.chain_head.hex()}")
