"""One line of a check-up, and how it is printed: words first, colours and signs beside them."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text


class Level(StrEnum):
    """Whether somebody must act."""

    GOOD = "good"
    NOTE = "note"
    BAD = "bad"


_SIGNS = {Level.GOOD: ("✓", "green"), Level.NOTE: ("•", "yellow"), Level.BAD: ("✗", "bold red")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What was looked at, how it is, and what mends it; `mend` is empty where there is nothing to do."""

    check: str
    level: Level
    words: str
    mend: str = ""


def good(check: str, words: str) -> Finding:
    """Everything is as it should be."""
    return Finding(check=check, level=Level.GOOD, words=words)


def note(check: str, words: str, mend: str = "") -> Finding:
    """Worth knowing; nobody need act now."""
    return Finding(check=check, level=Level.NOTE, words=words, mend=mend)


def bad(check: str, words: str, mend: str) -> Finding:
    """Somebody must act."""
    return Finding(check=check, level=Level.BAD, words=words, mend=mend)


def healthy(findings: Sequence[Finding]) -> bool:
    """Whether nobody need act."""
    return all(finding.level is not Level.BAD for finding in findings)


def table(findings: Sequence[Finding]) -> Table:
    """The findings as lines, each mend below what it mends."""
    rows = Table.grid(padding=(0, 1, 0, 0))
    rows.add_column(no_wrap=True)
    rows.add_column(no_wrap=True, style="bold")
    rows.add_column(overflow="fold")
    for finding in findings:
        sign, style = _SIGNS[finding.level]
        words = Text(finding.words)
        if finding.mend:
            words.append(f"\n→ {finding.mend}", style=style)
        rows.add_row(Text(sign, style=style), finding.check, words)
    return rows


def as_json(task: str, findings: Sequence[Finding], **facts: Any) -> str:
    """The same for programs."""
    rows = [asdict(finding) for finding in findings]
    return json.dumps({"task": task, "healthy": healthy(findings), "findings": rows, **facts}, indent=2)


def console() -> Console:
    """Where a check-up is printed; lines are not cut where the output is no terminal."""
    shown = Console(highlight=False, soft_wrap=False)
    return shown if shown.is_terminal else Console(highlight=False, width=160)
