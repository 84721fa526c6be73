"""`headwater evaluator`: score the served model on held-out data as it advances."""

import asyncio
from typing import Annotated

import typer

from broker_topics.bus import Bus
from broker_topics.errors import ConfigError
from broker_topics.patience import unless
from headwater.evaluator import Evaluator
from headwater.loading import made_by
from headwater.options import Bootstrap, Task
from headwater.prepared import prepared
from headwater.process import reach, serve


def command(
    task: Task,
    module: Annotated[str, typer.Option(help="module:function that returns a model and a function that scores it.")],
    bootstrap: Bootstrap = None,
) -> None:
    """Follow the task like a device and report held-out accuracy and loss, until Ctrl-C or SIGTERM.

    The function named by --module returns two things: a model, and a function that takes it and returns
    {"accuracy": …, "loss": …}. The data stays on this machine.
    """
    settings = prepared(bootstrap)
    made = made_by(module)
    if not isinstance(made, tuple) or len(made) != 2 or not callable(made[1]):
        raise ConfigError(f"{module} must return a model and a function that scores it")
    model, evaluate = made

    async def work(bus: Bus, stop: asyncio.Event) -> None:
        await unless(stop, reach(bus, patience_s=settings.connection.connect_patience_s))
        interval_s = settings.evaluator.min_interval_s
        await Evaluator(bus=bus, task=task, model=model, evaluate=evaluate, stop=stop, min_interval_s=interval_s).run()

    serve(settings.connection, work)
