"""Judges the facts of a task: is it healthy, how far is it, who is slow, what is refused."""

import math
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from headwater.checkup.facts import Facts
from headwater.checkup.finding import Finding, bad, good, healthy, note, table
from headwater.checkup.neighbour import Neighbour
from headwater.checkup.tail import Scored
from headwater.checkup.words import many, span

PATIENCE_S = 60.0
"""Updates may wait this long, or three of the task's deadlines, before somebody should look."""

REFUSED_SHARE = 0.2
_ENOUGH = 20


def judge(facts: Facts, asked: str, neighbour: Neighbour | None, *, insists: bool) -> list[Finding]:
    """Every finding, in the order in which they matter.

    Args:  asked: the aggregator's address. insists: whether the operator named it, so that silence is a fault.
    """
    return [
        _progress(facts),
        inputs(facts),
        keyframe(facts),
        retention(facts),
        _refusals(facts),
        _evaluation(facts.scored),
        _aggregator(facts.task, asked, neighbour, insists=insists),
    ]


def _progress(facts: Facts) -> Finding:
    lag, quiet = sum(facts.lag), span(facts.record_age_s)
    if facts.paused:
        mend = f"go on with: headwater control resume --task {facts.task}"
        return note("progress", f"paused by an operator, {_waits(lag)}", mend)
    if not lag:
        return good("progress", f"nothing waits; version {facts.version:,} is {span(facts.version_age_s)} old")
    if facts.record_age_s > max(PATIENCE_S, 3 * facts.flush_deadline_s):
        mend = f"see whether its aggregator runs; if not: headwater aggregator --task {facts.task}"
        return bad("progress", f"{_waits(lag)}, and nothing was decided for {quiet}", mend)
    return good("progress", f"{_waits(lag)}; the last record is {quiet} old")


def _waits(lag: int) -> str:
    return f"{many(lag, 'update')} {'waits' if lag == 1 else 'wait'}"


def inputs(facts: Facts) -> Finding:
    """Whether the log still holds what was not decided on."""
    if facts.lost:
        mend = "the aggregator will not start (status 76): see docs/configuration.md, exit code 76"
        return bad("log", f"retention took {many(facts.lost, 'record')} that nobody had read", mend)
    return good("log", "every update that was not decided on is still there")


def keyframe(facts: Facts) -> Finding:
    """Whether there is a state to start again from."""
    if facts.unreadable:
        mend = "let an aggregator run: it writes a new one; until it does, do not restart it"
        return bad("keyframe", f"the newest one cannot be read: {facts.unreadable}", mend)
    return good("keyframe", f"version {facts.keyframe_version:,}, {span(facts.keyframe_age_s)} old")


def retention(facts: Facts) -> Finding:
    """How long until retention takes what a restart needs."""
    room = facts.headroom_s
    if room is None or facts.retention_s is None:
        return note("retention", "cannot be seen by this user", "grant DescribeConfigs on the topic of updates")
    if math.isinf(room):
        return good("retention", "updates are kept for ever")
    words = f"{span(room)} of {span(facts.retention_s)} left for what a restart must read again"
    if room < facts.retention_s / 2:
        mend = "an aggregator that runs writes a keyframe at a quarter: see that one does, or lengthen retention.ms"
        return bad("retention", words, mend)
    return good("retention", words)


def _refusals(facts: Facts) -> Finding:
    decided = facts.accepted + facts.refused
    codes = ", ".join(f"{code} {count:,}" for code, count in facts.refusals.items())
    who = f"; most by {', '.join(facts.refused_devices)}" if facts.refused_devices else ""
    last_hour = f" (last hour: {codes}{who})" if codes else ""
    if not decided:
        return good("refusals", f"none decided since the newest keyframe{last_hour}")
    share = facts.refused / decided
    words = f"{facts.refused:,} of {many(decided, 'update')} since the newest keyframe, {share:.1%}{last_hour}"
    if decided >= _ENOUGH and share > REFUSED_SHARE:
        return bad("refusals", words, "look up the code under 'Why an update is refused' in docs/configuration.md")
    return good("refusals", words)


def _evaluation(scored: Scored | None) -> Finding:
    if scored is None:
        return note("evaluation", "none within the last day", "run one: headwater evaluator --module M:F")
    values = ", ".join(f"{name} {value:.4g}" for name, value in scored.scores.items())
    return good("evaluation", f"{values} at version {scored.version:,}, {span(scored.age_s)} ago")


def _aggregator(task: str, asked: str, found: Neighbour | None, *, insists: bool) -> Finding:
    if found is None:
        words = f"nothing answers at {asked}; all of this is from the broker"
        mend = "give its address: --aggregator http://HOST:PORT"
        return bad("aggregator", words, mend) if insists else note("aggregator", words, mend)
    if found.task and found.task != task:
        return note("aggregator", f"the one at {asked} serves task {found.task}", "give the address of this task's")
    if not found.ready:
        return bad("aggregator", f"{asked} is not ready: {found.reason}", "see its log")
    return good("aggregator", f"{asked} is ready" + ("" if found.leader else "; another one leads"))


def screen(facts: Facts, findings: Sequence[Finding]) -> RenderableType:
    """One screen: the verdict, how far, the findings, the slowest devices, the lag of each partition."""
    well = healthy(findings)
    verdict = Text("✓ healthy", style="bold green") if well else Text("✗ somebody must act", style="bold red")
    title = Text.assemble(verdict, f"  ·  task {facts.task}")
    far = Text.assemble(
        ("version ", "dim"),
        (f"{facts.version:,}", "bold"),
        (f"   {facts.versions_a_minute:.1f} a minute   height ", "dim"),
        f"{facts.height:,}",
        ("   head ", "dim"),
        facts.head[:16],
        ("   devices ", "dim"),
        f"{facts.devices:,}",
    )
    return Panel(Group(far, "", table(findings), "", _slow_table(facts), _lag_line(facts)), title=title, expand=False)


def _slow_table(facts: Facts) -> RenderableType:
    if not facts.slow:
        return Text("no device is known by the newest keyframe yet", style="dim")
    rows = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 3, 0, 0))
    rows.add_column("slowest devices")
    rows.add_column("usual gap, × the mean", justify="right")
    rows.add_column("last heard", justify="right")
    for slow in facts.slow:
        last = many(slow.versions_ago, "version") if slow.silent_s is None else span(slow.silent_s)
        rows.add_row(slow.client_id, f"{slow.times_rarer:.1f}×" if slow.times_rarer else "–", f"{last} ago")
    return rows


def _lag_line(facts: Facts) -> Text:
    lag = " ".join(str(waiting) for waiting in facts.lag)
    return Text.assemble(("\nwaiting by partition  ", "dim"), lag)
