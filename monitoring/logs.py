"""Structured logs: JSON lines with bounded event names, or readable lines when a person is watching.

`get_logger` is safe in a library: until `configure` is called by a program's main function, events go to Python's own
logging under the name `headwater` and follow whatever the embedding program has set up.
"""

import json
import logging
import math
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Literal, TextIO, cast

import structlog
from structlog.stdlib import BoundLogger, ProcessorFormatter
from structlog.typing import EventDict, Processor

ROOT = "headwater"
REDACTED = "***"

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["auto", "json", "console"]

# Any name that holds one of these words hides its value; `key` alone would hide the keys of records.
_SECRET_NAME = re.compile(r"password|passwd|secret|token|credential|private_?key|authorization|jaas", re.IGNORECASE)
_SECRET_TEXT = re.compile(
    r"""(?P<name>[\w.]*(?:password|passwd|secret|token|credential)\w*["']?\s*[=:]\s*)(?P<value>"[^"]*"|'[^']*'|[^\s,;\])}]+)""",
    re.IGNORECASE,
)
_PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)
_URL_PASSWORD = re.compile(r"(?P<start>://[^/\s:@]*:)[^/\s@]+@")
_DEPTH = 6


def get_logger(role: str) -> BoundLogger:
    """A logger named `headwater.ROLE`; bind facts with `.bind(task=…)`, write with `.info("event_name", key=value)`."""
    logger = structlog.wrap_logger(
        logging.getLogger(f"{ROOT}.{role}"),
        processors=[
            structlog.stdlib.filter_by_level,
            *_common(),
            ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=BoundLogger,
    )
    return cast(BoundLogger, logger)


def configure(*, level: Level = "info", format_: Format = "auto", stream: TextIO | None = None) -> None:
    """Send every log of this process to `stream` (standard error unless given); the last call wins.

    Args:    level: lowest level of our own events; libraries are heard from warning upwards (or `level` if higher).
             format_: json, console, or auto: console when `stream` is a terminal.
    """
    out = sys.stderr if stream is None else stream
    console = format_ == "console" or (format_ == "auto" and out.isatty())
    handler = logging.StreamHandler(out)
    handler.setFormatter(_formatter(console=console))
    root = logging.getLogger()
    for old in root.handlers[:]:
        if isinstance(old.formatter, ProcessorFormatter):
            root.removeHandler(old)
    root.addHandler(handler)
    number = logging.getLevelNamesMapping()[level.upper()]
    root.setLevel(max(number, logging.WARNING))
    logging.getLogger(ROOT).setLevel(number)


def redact(value: object, depth: int = 0) -> Any:
    """The value without secrets and as something JSON can hold; nothing handed in is changed.

    >>> redact({"user": "ann", "sasl_password": "hunter2", "note": "password=hunter2, port=1"})
    {'user': 'ann', 'sasl_password': '***', 'note': 'password=***, port=1'}
    """
    if depth > _DEPTH:
        return "…"
    match value:
        case None | bool() | int():
            return value
        case str():
            return _redact_text(value)
        case float():
            return value if math.isfinite(value) else str(value)
        case bytes() | bytearray() | memoryview():
            return bytes(value[:64]).hex()
        case Mapping():
            return {str(name): _redact_named(str(name), item, depth) for name, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [redact(item, depth + 1) for item in value]
        case _ if type(value).__module__ == "numpy" and getattr(value, "size", 0) == 1:
            return redact(cast(Any, value).item(), depth + 1)
        case _:
            return _redact_text(str(value))


def _redact_named(name: str, value: object, depth: int) -> Any:
    # A number or a flag called `tokens` or `password_set` is a fact, not a secret.
    if _SECRET_NAME.search(name) and not isinstance(value, bool | int | float | None):
        return REDACTED
    return redact(value, depth + 1)


def _redact_text(text: str) -> str:
    hidden = _PRIVATE_KEY.sub(REDACTED, text)
    hidden = _URL_PASSWORD.sub(rf"\g<start>{REDACTED}@", hidden)
    return _SECRET_TEXT.sub(rf"\g<name>{REDACTED}", hidden)


def _common() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        _redact_event,
    ]


def _redact_event(logger: Any, method: str, event: EventDict) -> EventDict:
    kept = {name: value for name, value in event.items() if name.startswith("_")}
    facts = {name: value for name, value in event.items() if not name.startswith("_")}
    return {**redact(facts), **kept}


def _library_event(logger: Any, method: str, event: EventDict) -> EventDict:
    event["message"] = event["event"]
    event["event"] = "library_message"
    return event


def _formatter(*, console: bool) -> ProcessorFormatter:
    renderer: Processor = _Console() if console else _render_json
    return ProcessorFormatter(
        foreign_pre_chain=[_library_event, *_common()],
        processors=[ProcessorFormatter.remove_processors_meta, renderer],
    )


def _render_json(logger: Any, method: str, event: EventDict) -> str:
    first = {name: event.pop(name) for name in ("timestamp", "level", "event", "logger") if name in event}
    return json.dumps({**first, **event}, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


class _Console:
    """Readable lines; the exception is already text by then, secrets hidden."""

    def __init__(self) -> None:
        self._render = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)

    def __call__(self, logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
        return self._render(logger, method, event)
