"""`headwater config`: the settings that a process would have, and where to change them."""

from pathlib import Path
from typing import Annotated

import typer

from headwater.settings import load, print_config


def command(
    file: Annotated[Path | None, typer.Option(help="TOML file to read; default: what HEADWATER_CONFIG names.")] = None,
) -> None:
    """Print every setting of a process as a TOML file: from the environment, the file, or the default; secrets hidden.

    Redirect it to a file, change what should be different, and name the file in HEADWATER_CONFIG.
    """
    typer.echo(print_config(load(file=file)), nl=False)
