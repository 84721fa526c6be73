"""`headwater topics`: create a task's topics from the one table, and show how a broker's differ from it."""

from typing import Annotated

import typer

from broker_topics.bus import Bus
from broker_topics.errors import ConfigError
from broker_topics.provision import apply_topics, compare_topics
from broker_topics.topics import TopicDifference, TopicSpec, topic_specs
from headwater.options import Bootstrap, Task
from headwater.prepared import connection
from headwater.process import with_bus

app = typer.Typer(help="Create a task's topics, or show how they differ from the table.", no_args_is_help=True)

Replication = Annotated[int, typer.Option(min=0, help="Copies of every topic; 0 takes min(3, brokers).")]


@app.command()
def apply(
    task: Task,
    replication: Replication = 0,
    bootstrap: Bootstrap = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be created.")] = False,
) -> None:
    """Create the topics that are missing and verify the others, which are never changed.

    Example: headwater topics apply --task watch --dry-run
    """

    async def work(bus: Bus) -> None:
        specs = await _specs(bus, task, replication)
        _report(specs, await apply_topics(bus, specs, dry_run=dry_run), "would be created" if dry_run else "created")

    with_bus(connection(bootstrap), work)


@app.command()
def diff(task: Task, replication: Replication = 0, bootstrap: Bootstrap = None) -> None:
    """Print how the broker's topics differ from the table; exit status 2 when they do."""

    async def work(bus: Bus) -> None:
        differences = await compare_topics(bus, await _specs(bus, task, replication))
        for difference in differences:
            for line in difference.lines():
                typer.echo(line)
        if differences:
            raise ConfigError(
                f"{len(differences)} topics of task {task} differ; `headwater topics apply --task {task}` creates "
                "the missing ones"
            )
        typer.echo(f"all topics of task {task} are as they should be")

    with_bus(connection(bootstrap), work)


async def _specs(bus: Bus, task: str, replication: int) -> tuple[TopicSpec, ...]:
    return topic_specs(task, replication=replication or min(3, await bus.brokers()))


def _report(specs: tuple[TopicSpec, ...], created: list[TopicDifference], done: str) -> None:
    new = {difference.name for difference in created}
    for spec in specs:
        state = done if spec.name in new else "as it should be"
        typer.echo(f"{spec.name}: {state} ({spec.partitions} partitions, {spec.replication} copies)")
