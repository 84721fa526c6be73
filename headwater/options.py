"""Options that several commands share, explained once."""

from typing import Annotated

import typer

Task = Annotated[str, typer.Option("--task", help="Name of the task: one model being trained.")]
Bootstrap = Annotated[
    str | None,
    typer.Option(help="Broker address host:port; default: HEADWATER_BOOTSTRAP, then the settings file."),
]
