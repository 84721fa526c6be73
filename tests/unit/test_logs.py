"""Logs are lines of JSON with bounded event names and without secrets."""

import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from monitoring.logs import configure, get_logger, redact


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Where logs go during a test; Python's logging is afterwards as it was."""
    root, ours = logging.getLogger(), logging.getLogger("headwater")
    before = (root.level, ours.level, root.handlers[:])
    yield io.StringIO()
    root.setLevel(before[0])
    ours.setLevel(before[1])
    root.handlers[:] = before[2]


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    """Every line, each strict JSON."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    return [json.loads(line, parse_constant=refuse) for line in stream.getvalue().splitlines()]


def test_an_event_is_one_line_of_json_with_its_facts(stream: io.StringIO) -> None:
    configure(format_="json", stream=stream)
    get_logger("aggregator").bind(task="watch").info("version_official", version=12)

    (line,) = lines(stream)
    assert line["event"] == "version_official"
    assert line["level"] == "info"
    assert line["logger"] == "headwater.aggregator"
    assert (line["task"], line["version"]) == ("watch", 12)


def test_time_is_iso_and_utc(stream: io.StringIO) -> None:
    configure(format_="json", stream=stream)
    get_logger("aggregator").info("started")
    stamp = lines(stream)[0]["timestamp"]
    assert stamp.endswith("Z")
    assert abs(datetime.fromisoformat(stamp) - datetime.now(UTC)) < timedelta(minutes=1)


def test_numbers_that_json_does_not_have_are_still_strict_json(stream: io.StringIO) -> None:
    configure(format_="json", stream=stream)
    get_logger("worker").info(
        "training_finished",
        loss=float("nan"),
        norm=np.float32(2.5),
        steps=np.int64(3),
        head=b"\x01\xff",
        at=datetime.min,
    )
    (line,) = lines(stream)
    assert (line["loss"], line["norm"], line["steps"], line["head"]) == ("nan", 2.5, 3, "01ff")


def test_secrets_are_hidden_by_name_in_texts_and_in_tracebacks(stream: io.StringIO) -> None:
    configure(format_="json", stream=stream)
    log = get_logger("worker")
    log.warning("failed", scram_password="hunter2", connection={"sasl_plain_password": "hunter2", "user": "ann"})
    log.warning(
        "failed", error="ScramLoginModule required username='ann' password=\"hunter2\";", url="http://a:hunter2@h/"
    )
    log.warning("failed", pem="-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----")
    try:
        raise ValueError("no login with password='hunter2'")
    except ValueError:
        log.exception("failed", exit_code=2)
    logging.getLogger("aiokafka.conn").error("sasl failed, password: %s", "hunter2")

    assert len(lines(stream)) == 5
    assert "hunter2" not in stream.getvalue()
    assert lines(stream)[0]["connection"]["user"] == "ann"
    assert "ValueError: no login" in lines(stream)[3]["exception"]


def test_what_is_no_secret_stays_readable() -> None:
    facts = {"key": "w-17", "tokens": 3, "password_set": True, "keyframe": 4}
    assert redact(facts) == facts


def test_what_is_handed_in_is_not_changed() -> None:
    facts = {"password": "hunter2", "deep": [{"token": "abc"}]}
    assert redact(facts) == {"password": "***", "deep": [{"token": "***"}]}
    assert facts == {"password": "hunter2", "deep": [{"token": "abc"}]}


def test_a_library_speaks_from_warning_upwards_under_one_event_name(stream: io.StringIO) -> None:
    configure(level="debug", format_="json", stream=stream)
    logging.getLogger("aiokafka").info("chatter")
    logging.getLogger("aiokafka").warning("node %d is gone", 3)
    get_logger("worker").debug("update_sent")

    library, ours = lines(stream)
    assert (library["event"], library["message"]) == ("library_message", "node 3 is gone")
    assert ours["event"] == "update_sent"


def test_events_below_the_level_are_left_out(stream: io.StringIO) -> None:
    configure(level="warning", format_="json", stream=stream)
    get_logger("worker").info("update_sent")
    get_logger("worker").warning("update_in_doubt")
    assert [line["event"] for line in lines(stream)] == ["update_in_doubt"]


def test_configuring_twice_does_not_write_twice(stream: io.StringIO) -> None:
    configure(format_="json", stream=stream)
    configure(format_="json", stream=stream)
    get_logger("worker").info("update_sent")
    assert len(lines(stream)) == 1


def test_a_terminal_gets_readable_lines_and_a_pipe_gets_json(stream: io.StringIO) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    configure(stream=terminal)
    get_logger("worker").info("update_sent", offset=7, password="hunter2")
    assert "update_sent" in terminal.getvalue()
    assert "offset=7" in terminal.getvalue()
    assert "hunter2" not in terminal.getvalue()
    assert not terminal.getvalue().startswith("{")

    configure(stream=stream)
    get_logger("worker").info("update_sent", offset=7)
    assert lines(stream)[0]["offset"] == 7


def test_an_embedding_program_that_sets_up_nothing_hears_warnings_only() -> None:
    code = "from monitoring.logs import get_logger as g; g('worker').info('update_sent'); g('worker').warning('failed')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == ""
    assert "update_sent" not in done.stderr
    assert "failed" in done.stderr
