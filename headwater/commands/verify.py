"""`headwater verify`: hold a task's log to every promise."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from aggregator.verify import Check, Demands, Evidence, Verdict, verify
from aggregator.verify.evidence import from_lines
from broker_topics.bus import Bus
from broker_topics.errors import ConfigError, ExitCode
from headwater.options import Bootstrap, Task
from headwater.prepared import connection
from headwater.process import with_bus


def command(
    task: Task,
    settled: Annotated[
        bool, typer.Option("--settled", help="Nobody sends any more: nothing may wait to be decided on.")
    ] = False,
    portable: Annotated[
        bool, typer.Option("--portable", help="Once more with the processor's newer instructions switched off.")
    ] = False,
    evidence: Annotated[
        Path | None, typer.Option(help="What a test wrote down of devices, readers and processes, as JSON lines.")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    bootstrap: Bootstrap = None,
) -> None:
    """Read a task's log from its beginning, and check every promise that Headwater makes of it.

    Nothing is changed, and the task may go on meanwhile. Ends with status 0 if everything holds, with 76 if all that
    is broken is that acknowledged data is gone from the log, else with 70.

    Example: headwater verify --task watch
    """
    brought = _evidence(evidence)

    async def work(bus: Bus) -> Verdict:
        with Progress(console=Console(stderr=True), transient=True) as bar:
            line = bar.add_task("reading the chain")
            return await verify(
                bus,
                task,
                evidence=brought,
                demands=Demands(at_rest=settled),
                progress=lambda done, total: bar.update(line, completed=done, total=total),
            )

    verdict = with_bus(connection(bootstrap), work)
    if json_:
        typer.echo(json.dumps(verdict.as_row(), indent=2))
    else:
        _show(verdict)
    if verdict.holds and portable:
        _again_without_new_instructions(json_)
    if not verdict.holds:
        raise typer.Exit(verdict.exit_code)


def _evidence(path: Path | None) -> Evidence:
    if path is None:
        return Evidence()
    try:
        with path.open(encoding="utf-8") as lines:
            return Evidence.of(from_lines(lines))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the evidence {path} cannot be read: {error}") from error


def _show(verdict: Verdict) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    for check in verdict.checks:
        table.add_row(_mark(check), check.invariant.value, check.invariant.promise, _extent(check))
    Console(soft_wrap=True).print(table)
    for violation in verdict.violations:
        typer.echo(f"broken  {violation}")
    for note in verdict.notes:
        typer.echo(f"note    {note}")
    result = "everything holds" if verdict.holds else f"{sum(check.violations for check in verdict.checks)} violations"
    typer.echo(f"task {verdict.task}, version {verdict.version}, height {verdict.height}: {result}")
    typer.echo(f"chain head {verdict.head}")


def _mark(check: Check) -> str:
    if check.violations:
        return "broken"
    return "-" if check.needs else "holds"


def _extent(check: Check) -> str:
    """How much was looked at, or why nothing was."""
    if check.needs:
        return f"not checked: {check.needs}"
    return ", ".join(f"{count} {what}" for what, count in check.checked.items()) or "nothing to look at"


def _again_without_new_instructions(json_: bool) -> None:
    """The same command in a process that has no instructions beyond what every processor of this kind has."""
    core = np._core._multiarray_umath  # type: ignore[attr-defined]
    usable = [name for name in core.__cpu_dispatch__ if core.__cpu_features__.get(name)]
    environment = {
        **os.environ,
        "NPY_DISABLE_CPU_FEATURES": " ".join(usable),
        "NUMBA_CPU_NAME": "generic",
        "NUMBA_CPU_FEATURES": "",
    }
    arguments = [argument for argument in sys.argv[1:] if argument != "--portable"]
    done = subprocess.run(
        [sys.executable, "-m", "headwater", *arguments], env=environment, stdout=subprocess.PIPE, check=False
    )
    if not json_:
        agrees = "every hash again" if done.returncode == 0 else f"ends with status {done.returncode}"
        typer.echo(f"without {', '.join(usable).lower() or 'anything, as this processor has nothing newer'}: {agrees}")
    if done.returncode:
        typer.echo(done.stdout.decode(errors="replace"), err=True)
        raise typer.Exit(ExitCode(done.returncode))
