"""`headwater export`: the served model as a file."""

from pathlib import Path
from typing import Annotated

import typer

from broker_topics.bus import Bus
from broker_topics.follow import Follower
from headwater.model_file import check_ending, write_model
from headwater.options import Bootstrap, Task
from headwater.prepared import connection
from headwater.process import with_bus


def command(
    task: Task,
    out: Annotated[Path, typer.Option(help="File to write: model.npz or model.safetensors.")],
    version: Annotated[int | None, typer.Option(help="Model version; default the newest.")] = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Write the served model, names and shapes included, after checking it against the hash in the chain."""
    check_ending(out)

    async def work(bus: Bus) -> None:
        follower = Follower(bus, task)
        try:
            await follower.enter(until=version)
            facts = {
                "task": task,
                "version": str(follower.model.version),
                "served_hash": follower.last.body.served_hash.hex(),
                "chain_head": follower.last.hash.hex(),
            }
            write_model(out, follower.layout.unflatten(follower.model.served), facts)
            typer.echo(f"{out}: version {facts['version']}, served hash {facts['served_hash']}")
        finally:
            await follower.close()

    with_bus(connection(bootstrap), work)
