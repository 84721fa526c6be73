"""`headwater control`: pause a task, let it go on, or roll its model back."""

import asyncio
from typing import Annotated

import typer

from aggregator.fold.commands import PAUSE, RESUME, ROLL_BACK
from broker_topics.bus import Bus, InDoubtError
from broker_topics.chain import settled_in
from broker_topics.commits_log import CommitsReader
from broker_topics.entry import check_task
from broker_topics.errors import BusError, ConfigError, RejectCode
from broker_topics.frames import frame_crc
from broker_topics.messages import Control
from broker_topics.record import Decision
from broker_topics.topics import Topic, topic_name
from headwater.options import Bootstrap, Task
from headwater.prepared import connection
from headwater.process import with_bus

app = typer.Typer(no_args_is_help=True)

_WAIT_S = 60.0

Wait = Annotated[float, typer.Option(help="Seconds to wait for the aggregator's decision.")]


@app.command()
def pause(task: Task, bootstrap: Bootstrap = None, wait_s: Wait = _WAIT_S) -> None:
    """Take in no more updates; devices keep training and keep their work. Also holds after a restart."""
    _send(task, bootstrap, wait_s, Control(command=PAUSE))


@app.command()
def resume(task: Task, bootstrap: Bootstrap = None, wait_s: Wait = _WAIT_S) -> None:
    """Take in updates again."""
    _send(task, bootstrap, wait_s, Control(command=RESUME))


@app.command("roll-back")
def roll_back(
    task: Task,
    to: Annotated[int, typer.Option("--to", help="Model version that was a keyframe; `headwater task keyframes`.")],
    bootstrap: Bootstrap = None,
    wait_s: Wait = _WAIT_S,
) -> None:
    """Make an older model the next version. The chain goes on: nothing is deleted, no update is decided again."""
    _send(task, bootstrap, wait_s, Control(command=ROLL_BACK, argument=to))


def _send(task: str, bootstrap: str | None, wait_s: float, command: Control) -> None:
    async def work(bus: Bus) -> Decision:
        async with asyncio.timeout(wait_s):
            return await send_until_decided(bus, task, command)

    try:
        decision = with_bus(connection(bootstrap), work)
    except TimeoutError:
        raise BusError(f"no decision within {wait_s:g} s; does the aggregator of task {task} run?") from None
    if not decision.accepted:
        raise ConfigError(f"{command.command} was refused: {_reason(task, command, decision)}")
    typer.echo(f"{command.command}: done")


def _reason(task: str, command: Control, decision: Decision) -> str:
    """A refusal in words that name the mend; the code where there is nothing to add."""
    if decision.code is RejectCode.GONE:
        return (
            f"version {command.argument} is not kept whole, or not any more; "
            f"choose one that `headwater task keyframes --task {task}` lists"
        )
    return decision.outcome


async def send_until_decided(bus: Bus, task: str, command: Control) -> Decision:
    """Send a command, and send it again for as long as the chain does not show this very one as decided."""
    topic, data = topic_name(task, Topic.CONTROL), command.to_bytes()
    await check_task(bus, task)
    commits = CommitsReader(bus, task)
    try:
        chain = await commits.to_the_end()
        if not chain:
            raise ConfigError(f"task {task!r} has no first record; make it with: headwater task create --task {task}")
        partition = len(chain[-1].record.body.vector) - 1
        while True:
            try:
                offset = (await bus.send(topic, key=command.command.encode(), value=data)).offset
            except InDoubtError:
                continue
            decision = await _decision(commits, partition, offset)
            if decision.crc == frame_crc(data):
                return decision
    finally:
        await commits.close()


async def _decision(commits: CommitsReader, partition: int, offset: int) -> Decision:
    """What the chain says of one command; a void run, or another record in its place, is no decision on it."""
    while True:
        for official in await commits.poll(1.0):
            body = official.record.body
            if body.vector[partition] > offset:
                found = settled_in(body, partition, offset)
                return found if isinstance(found, Decision) else Decision(0)
