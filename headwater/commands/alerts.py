"""`headwater alerts`: the rules that tell an operator when something is wrong."""

from pathlib import Path
from typing import Annotated

import typer

from broker_topics.errors import ConfigError
from monitoring.alerts import Alert, Options, groups, prometheus_rule, rules_yaml
from monitoring.alerts.rules import RUNBOOKS
from monitoring.buckets import AGE_S

app = typer.Typer(help="Recording rules, service levels and alerts for Prometheus.", no_args_is_help=True)


@app.command()
def export(
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write; default: the screen.")] = None,
    runbook_base: Annotated[
        str, typer.Option(help="Address of your copy of the runbooks page, for example in your Git server.")
    ] = RUNBOOKS,
    freshness_s: Annotated[
        float, typer.Option(help="Seconds that the newest version may be old while updates arrive.")
    ] = 300.0,
    latency_s: Annotated[
        float, typer.Option(help="Seconds from append to official that 95 % of applied updates must meet.")
    ] = 60.0,
    speed: Annotated[
        float, typer.Option(help="Divide every duration, for a drill: 60 turns minutes into seconds.")
    ] = 1.0,
    kubernetes: Annotated[
        bool, typer.Option("--kubernetes", help="Write them as a PrometheusRule for the Prometheus operator.")
    ] = False,
) -> None:
    """Write the rule file for a plain Prometheus; name it under rule_files in prometheus.yml.

    Example: headwater alerts export -o headwater.yml --runbook-base https://git.example/headwater/docs/runbooks.md
    """
    if latency_s not in AGE_S:
        bounds = ", ".join(f"{bound:g}" for bound in AGE_S)
        raise ConfigError(
            f"--latency-s {latency_s:g}: a histogram can only answer for its own bounds, which are {bounds}"
        )
    write = prometheus_rule if kubernetes else rules_yaml
    text = write(Options(runbook_base=runbook_base, freshness_s=freshness_s, latency_s=latency_s, speed=speed))
    if output is None:
        typer.echo(text, nl=False)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{output} cannot be written: {error.strerror or error}") from error


@app.command("list")
def list_() -> None:
    """Show every alert: how bad it is, how long it waits, and what it says."""
    for group in groups():
        for rule in group.rules:
            if isinstance(rule, Alert):
                typer.echo(f"{rule.name:24}{rule.severity:10}{rule.wait:>5}  {rule.summary}")
