"""`headwater task`: make a task, and show what one consists of."""

from dataclasses import asdict
from datetime import datetime
from typing import Annotated

import typer

from aggregator.chain.genesis import TaskExistsError, create_task
from broker_topics.bus import Bus
from broker_topics.commits_log import CommitsReader
from broker_topics.entry import check_task
from broker_topics.errors import ConfigError
from broker_topics.follow import Follower
from broker_topics.task import TaskSettings
from headwater.loading import made_by
from headwater.options import Bootstrap, Task
from headwater.prepared import connection
from headwater.process import with_bus

app = typer.Typer(help="Make a task (one model being trained) and show its settings.", no_args_is_help=True)


@app.command()
def create(
    task: Task,
    module: Annotated[str, typer.Option(help="module:function that returns the first model.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="name=value of a task setting; may be given often.")
    ] = None,
    replication: Annotated[int, typer.Option(help="Copies of every topic; 0 takes min(3, brokers).")] = 0,
    if_absent: Annotated[
        bool, typer.Option("--if-absent", help="Leave a task that exists as it is, with status 0.")
    ] = False,
    bootstrap: Bootstrap = None,
) -> None:
    """Make the task's topics and write the first record of its chain: model, layout and settings.

    Example: headwater task create --task watch --module my_fleet:make_model --set local_learning_rate=0.05
    """
    from worker.adapters import adapter_for

    chosen = TaskSettings.from_pairs(_pairs(settings or []))
    adapter = adapter_for(made_by(module))

    async def work(bus: Bus) -> None:
        copies = replication or min(3, await bus.brokers())
        try:
            official = await create_task(
                bus, task, settings=chosen, layout=adapter.layout, first=adapter.read(), replication=copies
            )
        except TaskExistsError:
            if not if_absent:
                raise
            typer.echo(f"task {task} exists already and stays as it is")
            return
        typer.echo(f"task {task}: {adapter.layout.size} parameters, first record {official.record.hash.hex()[:16]}")
        typer.echo(f"next: headwater aggregator --task {task}")

    with_bus(connection(bootstrap), work)


@app.command()
def show(task: Task, bootstrap: Bootstrap = None) -> None:
    """Print the settings of a task, its newest version and the head of its chain."""

    async def work(bus: Bus) -> None:
        follower = Follower(bus, task)
        try:
            await follower.enter()
            typer.echo(
                f"version {follower.model.version}, height {follower.last.height}, {follower.layout.size} numbers"
            )
            typer.echo(f"chain head {follower.last.hash.hex()}")
            for name, value in asdict(follower.settings).items():
                typer.echo(f"{name} = {value}")
        finally:
            await follower.close()

    with_bus(connection(bootstrap), work)


@app.command()
def keyframes(task: Task, bootstrap: Bootstrap = None) -> None:
    """List the versions that are kept whole: what a roll back can name and a replay can start from."""

    async def work(bus: Bus) -> None:
        commits = CommitsReader(bus, task)
        try:
            await check_task(bus, task)
            for official in await commits.to_the_end():
                body = official.record.body
                if body.keyframe:
                    when = datetime.fromtimestamp(official.timestamp_ms / 1000).isoformat(" ", "seconds")
                    typer.echo(f"version {body.version}  height {official.record.height}  {when}  {body.note}".rstrip())
        finally:
            await commits.close()

    with_bus(connection(bootstrap), work)


def _pairs(texts: list[str]) -> dict[str, str]:
    pairs = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator:
            raise ConfigError(f"--set {text}: write name=value, for example --set buffer_size=5")
        pairs[name.strip()] = value.strip()
    return pairs
