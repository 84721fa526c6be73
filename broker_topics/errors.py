"""What can go wrong, sorted by who must act.

HeadwaterError
├── ConfigError      the operator: wrong setting, unknown task, wrong password    exit 2
├── WireError        the peer: a record that is refused with a reject code        never fatal
├── BusError         the infrastructure: broker unreachable; retried              exit 69
├── InvariantError   us: a bug; the process stops and the log is kept             exit 70
├── LostRaceError    another aggregator's record came first; start again          exit 75
├── InputsLostError  acknowledged inputs are gone from the log                    exit 76
└── ToolMissingError a tool or cluster that the command needs is not there        exit 77
"""

from enum import IntEnum, StrEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """How a `headwater` command ends; every code has a section in the configuration page."""

    DONE = 0
    TARGET_MISSED = 1
    CONFIG = 2
    BROKER_UNREACHABLE = 69
    INTERNAL = 70
    LOST_RACE = 75
    INPUTS_LOST = 76
    TOOL_MISSING = 77


class RejectCode(StrEnum):
    """Why an update was refused; the codes are part of the wire format and never change meaning."""

    MALFORMED = "malformed"
    TOO_LARGE = "too_large"
    WRONG_TASK = "wrong_task"
    IDENTITY = "identity"
    RETIRED = "retired"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    PASSED = "passed"
    SEQUENCE_JUMP = "sequence_jump"
    UNKNOWN_LAYOUT = "unknown_layout"
    STALE = "stale"
    FUTURE_VERSION = "future_version"
    UNKNOWN_BASE = "unknown_base"
    TOO_SOON = "too_soon"
    BAD_PAYLOAD = "bad_payload"
    NON_FINITE = "non_finite"
    NORM = "norm"
    SIGNATURE = "signature"
    REVOKED = "revoked"
    UNREADABLE = "unreadable"
    GONE = "gone"


class HeadwaterError(Exception):
    """Root of every error that Headwater raises on purpose; the message says what mends it."""

    exit_code: ClassVar[ExitCode] = ExitCode.INTERNAL


class ConfigError(HeadwaterError):
    """The operator must change something; trying again does not help."""

    exit_code = ExitCode.CONFIG


class WireError(HeadwaterError):
    """A record broke the wire format; it is refused with `code` and the reader goes on."""

    def __init__(self, code: RejectCode, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason


class BusError(HeadwaterError):
    """The broker did not do as asked; trying again may help."""

    exit_code = ExitCode.BROKER_UNREACHABLE


class InvariantError(HeadwaterError):
    """Something that cannot be, is: stop, touch nothing, keep the log."""

    exit_code = ExitCode.INTERNAL


class LostRaceError(HeadwaterError):
    """Another aggregator's record took our place in the chain; this process must start again."""

    exit_code = ExitCode.LOST_RACE


class InputsLostError(HeadwaterError):
    """The log no longer holds inputs that it acknowledged; only an operator may go on without them."""

    exit_code = ExitCode.INPUTS_LOST


class ToolMissingError(HeadwaterError):
    """A tool that this command needs is not on the machine; the message says how to get it."""

    exit_code = ExitCode.TOOL_MISSING
