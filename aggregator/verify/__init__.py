"""Checks what a task's log holds against every promise that Headwater makes of it."""

from aggregator.verify.evidence import Acknowledged, Evidence, Memory, Seen, Settled, Stall
from aggregator.verify.examine import Demands, verify, verify_and_replay
from aggregator.verify.verdict import Check, Invariant, Verdict

__all__ = [
    "Acknowledged",
    "Check",
    "Demands",
    "Evidence",
    "Invariant",
    "Memory",
    "Seen",
    "Settled",
    "Stall",
    "Verdict",
    "verify",
    "verify_and_replay",
]
