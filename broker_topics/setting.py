"""A setting: a dataclass's field with its meaning and limits, and how what somebody wrote becomes its value."""

from dataclasses import Field, field
from typing import Any, get_args

_SWITCH = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def setting(
    default: Any, help_: str, low: float | None = None, high: float | None = None, *, shown: bool = True
) -> Any:
    """A field that says what it means, and from where to where its number may go; `shown` in the settings' repr."""
    return field(default=default, repr=shown, metadata={"help": help_, "limits": (low, high)})


def limits(known: Field[Any]) -> str:
    """From where to where a setting's number may go; empty where it may be any.

    >>> class Door:
    ...     width_m: float = setting(0.9, "How wide it is.", 0.5, 3)
    >>> limits(Door.width_m)
    '0.5 to 3'
    """
    low, high = known.metadata["limits"]
    return "" if low is None else f"{low} to {high}"


def convert(known: Field[Any], value: object) -> Any:
    """What was given as a value of the setting's kind; texts of numbers and of switches are read.

    Raises:  ValueError: says what is to be given instead.
    """
    converted = _converted(known.type, value)
    low, high = known.metadata["limits"]
    if converted is None or (low is not None and not low <= converted <= high):
        choices, allowed = get_args(known.type), limits(known)
        kind = f"one of {', '.join(choices)}" if choices else _KINDS[known.type]  # type: ignore[index]
        raise ValueError(f"{kind} from {allowed}" if allowed else kind)
    return converted


def _converted(kind: object, value: object) -> Any:
    """The value as that kind, None where it is none."""
    if kind is bool:
        return _SWITCH.get(value.lower()) if isinstance(value, str) else value if isinstance(value, bool) else None
    if kind is str:
        return value if isinstance(value, str) else None
    if kind in (int, float):
        return _number(int if kind is int else float, value)
    return value if value in get_args(kind) else None


def _number(kind: type[int] | type[float], value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, str | (int if kind is int else int | float)):
        return None
    try:
        return kind(value)
    except (ValueError, OverflowError):
        return None
