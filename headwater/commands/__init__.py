"""The commands of `headwater`, a module each: `app` (a typer group) or `command` (a function), late imports."""
