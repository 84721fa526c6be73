"""The command `headwater`: finds the module of a command, and turns errors into messages and exit codes."""

import importlib
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import Annotated

import typer

from broker_topics.errors import ExitCode, HeadwaterError

COMMANDS = {
    "demo": "Twenty smartwatches train one model over a real Kafka; nothing to prepare.",
    "broker": "Run a real Apache Kafka on this machine: up, down, status.",
    "topics": "Create a task's topics, or show how they differ from the table.",
    "task": "Begin a task: its topics, its settings, its first model.",
    "aggregator": "Fold the updates of a task into its model.",
    "worker": "Run devices from a Python module.",
    "evaluator": "Score the served model on held-out data.",
    "status": "Say how a task is: healthy, how far, who is slow, what is refused.",
    "doctor": "Check broker, topics, rights, clock and disk, and say what mends each.",
    "control": "Pause a task, resume it, or roll its model back.",
    "stragglers": "List the devices that lag, and why.",
    "alerts": "Write the alert rules for Prometheus.",
    "dashboards": "Dashboards for Grafana, or pictures of them without it.",
    "config": "Show the settings of a process as they are now.",
    "replay": "Derive a model again from the log and compare hashes.",
    "verify": "Hold a task's log to every promise: nothing lost, nothing twice.",
    "export": "Write the served model to a file.",
}
"""Every command with its line in the overview; each is the module of that name in headwater/commands."""

HELP = """Train one model on a fleet of devices, over Apache Kafka, without their data ever leaving them.

First look:  headwater demo

Your own fleet:  headwater broker up  →  headwater task create --task T --module my_fleet:make_model  →
headwater aggregator --task T  →  headwater worker --module my_fleet:make_worker
"""


def build(wanted: str | None) -> typer.Typer:
    """The command line with the module of `wanted` loaded; all others are listed only, which keeps the start fast."""
    app = typer.Typer(
        name="headwater",
        help=HELP,
        add_completion=False,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    for name, line in COMMANDS.items():
        if name != wanted:
            app.command(name, help=line)(_listed_only)
            continue
        module = importlib.import_module(f"headwater.commands.{name}")
        if hasattr(module, "app"):
            app.add_typer(module.app, name=name, help=line)
        else:
            app.command(name)(module.command)
    return app


def main() -> None:
    """Entry point: exit codes as in broker_topics.errors, a traceback only for what is our fault."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; expected errors are one message on stderr."""
    wanted = next((argument for argument in arguments if not argument.startswith("-")), None)
    try:
        build(wanted)(args=list(arguments), prog_name="headwater")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else ExitCode.DONE if end.code is None else ExitCode.CONFIG
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        expected = next(_expected(error), None)
        if expected is None:
            traceback.print_exc()
            print("headwater: this is a fault of ours, please report it with the lines above", file=sys.stderr)
            return ExitCode.INTERNAL
        print(f"headwater: {expected}", file=sys.stderr)
        return expected.exit_code
    return ExitCode.DONE


def _expected(error: BaseException) -> Iterator[HeadwaterError]:
    """The errors of ours in `error`, which may be the group that a task group raises."""
    if isinstance(error, HeadwaterError):
        yield error
    elif isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _expected(inner)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"headwater {version('headwater')}")
        raise typer.Exit


def _options(
    _: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Hold the options that come before a command."""


def _listed_only() -> None:
    raise AssertionError("a command that was asked for is built from its module")
