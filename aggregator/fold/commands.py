"""Commands that the control topic may carry: pause, resume, and roll back, which names a model version."""

from broker_topics.errors import RejectCode, WireError
from broker_topics.frames import frame_crc
from broker_topics.messages import Control
from broker_topics.record import Decision

PAUSE, RESUME, ROLL_BACK = "pause", "resume", "roll_back"


def judge_command(data: bytes, *, found: bool) -> tuple[Decision, bool | None]:
    """The decision on one record of the control topic, and whether the task is paused then; None leaves that alone.

    Args:    found: whether the version that a roll back wants can be had.
    """
    crc = frame_crc(data)
    if roll_back_target(data) is not None:
        return (Decision(crc) if found else Decision(crc, 0.0, RejectCode.GONE)), None
    try:
        command = Control.from_bytes(data).command
    except WireError as error:
        return Decision(crc, 0.0, error.code), None
    if command not in (PAUSE, RESUME):
        return Decision(crc, 0.0, RejectCode.MALFORMED), None
    return Decision(crc), command == PAUSE


def roll_back_target(data: bytes) -> int | None:
    """The version that a command wants back; None for any other command."""
    try:
        control = Control.from_bytes(data)
    except WireError:
        return None
    wanted = control.command == ROLL_BACK and type(control.argument) is int and control.argument >= 0
    return int(control.argument) if wanted and control.argument is not None else None
