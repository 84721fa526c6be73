"""The messages: each comes back equal, and every element of another type or range is refused."""

from dataclasses import replace

import numpy as np
import pytest

from broker_topics.codecs import CodecId, decode, encode
from broker_topics.errors import ConfigError, RejectCode, WireError
from broker_topics.frames import FrameKind, pack, unpack
from broker_topics.messages import (
    HEADER_ALLOWANCE,
    Control,
    Delta,
    Head,
    Reject,
    Telemetry,
    Update,
    check_client_id,
    payload_limit,
)

VECTOR = np.array([1.5, -2.0, 0.0, 4.25], dtype=np.float32)
UPDATE = Update(
    task="watch",
    client_id="w-17",
    incarnation=2,
    sequence=41,
    layout=2**64 - 1,
    base_version=1207,
    base_hash=b"8 bytes.",
    num_examples=312,
    num_steps=39,
    work=1.25,
    encoded=encode(VECTOR, CodecId.FLOAT32),
)
DELTA = Delta(task="watch", layout=7, version=1208, base_hash=b"8 bytes.", encoded=encode(VECTOR, CodecId.BFLOAT16))
REJECT = Reject(code=RejectCode.STALE, partition=3, offset=2**40, client_id="w-17", crc=2**32 - 1)
TELEMETRY = Telemetry(client_id="w-17", task="watch", incarnation=2, values={"battery": 0.5, "os": "wear", "free": 9})
HEAD = Head(offset=10, height=9, record_hash=bytes(range(32)))
Message = Update | Delta | Reject | Telemetry | Head | Control
MESSAGES: list[Message] = [
    UPDATE,
    DELTA,
    REJECT,
    TELEMETRY,
    HEAD,
    Control(command="pause"),
    Control(command="roll_back", argument=17),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_comes_back_equal(message: Message) -> None:
    assert type(message).from_bytes(message.to_bytes()) == message


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_read_from_memory_that_changes_is_equal(message: Message) -> None:
    assert type(message).from_bytes(memoryview(bytearray(message.to_bytes()))) == message


@pytest.mark.parametrize("message", MESSAGES[:-2], ids=lambda message: type(message).__name__)
def test_an_element_of_another_type_or_one_too_many_is_malformed(message: Message) -> None:
    frame = unpack(message.to_bytes())
    rows = [[*frame.header, 0], frame.header[:-1]]
    for index, element in enumerate(frame.header):
        for other in (None, True, -1, 1.5, "text", b"8 bytes!", [1], {"a": 1}, float("nan")):
            if type(other) is not type(element):
                rows.append([*frame.header[:index], other, *frame.header[index + 1 :]])
    assert [row for row in rows if not is_malformed(message, pack(frame.kind, row, [frame.body]))] == []


def is_malformed(message: Message, record: bytes) -> bool:
    try:
        type(message).from_bytes(record)
    except WireError as error:
        return error.code is RejectCode.MALFORMED
    return False


def test_the_argument_of_a_command_is_a_text_a_number_or_nothing() -> None:
    for argument in (True, [1], {"a": 1}, b"bytes", float("inf")):
        assert is_malformed(Control(command="x"), pack(FrameKind.CONTROL, ["pause", argument]))
    for fine in ("text", 1, 1.5, None):
        assert Control.from_bytes(pack(FrameKind.CONTROL, ["pause", fine])).argument == fine


def test_the_payload_of_an_update_stays_a_view_into_the_record() -> None:
    update = Update.from_bytes(UPDATE.to_bytes())
    assert all(isinstance(section, memoryview) for section in update.encoded.sections)
    assert decode(update.encoded).to_vector().tolist() == [1.5, -2.0, 0.0, 4.25]


def test_an_update_above_the_limit_is_too_large() -> None:
    record = UPDATE.to_bytes()
    assert Update.from_bytes(record, max_bytes=len(record)) == UPDATE
    with pytest.raises(WireError) as caught:
        Update.from_bytes(record, max_bytes=len(record) - 1)
    assert caught.value.code is RejectCode.TOO_LARGE


@pytest.mark.parametrize(
    "change",
    [
        {"incarnation": 0},
        {"incarnation": 2**64 - 1, "num_examples": 0},
        {"num_steps": 0},
        {"work": 0.99},
        {"work": float("inf")},
        {"work": float("nan")},
        {"work": 1e7},
        {"base_hash": b"7 bytes"},
        {"base_version": 2**53 + 1},
        {"client_id": ""},
        {"client_id": "x" * 129},
        {"client_id": "line\nbreak"},
        {"task": ""},
        {"sequence": -1},
    ],
    ids=str,
)
def test_an_update_with_a_number_or_name_out_of_range_is_malformed(change: dict[str, object]) -> None:
    with pytest.raises(WireError) as caught:
        Update.from_bytes(UPDATE._replace(**change).to_bytes())  # type: ignore[arg-type]
    assert caught.value.code is RejectCode.MALFORMED


def test_the_longest_names_leave_the_payload_its_room() -> None:
    longest = UPDATE._replace(
        task="t" * 200, client_id="𝔴" * 128, incarnation=2**64 - 1, sequence=2**64 - 1, base_version=2**53
    )
    record = longest.to_bytes()
    assert Update.from_bytes(record) == longest
    assert len(record) - longest.encoded.payload_bytes <= HEADER_ALLOWANCE
    assert payload_limit(1 << 20) == (1 << 20) - HEADER_ALLOWANCE


@pytest.mark.parametrize("client_id", ["", "x" * 129, "a\tb", "\u200b"])
def test_a_client_id_that_the_wire_refuses_is_refused_at_the_start(client_id: str) -> None:
    with pytest.raises(ConfigError, match="choose another"):
        check_client_id(client_id)


def test_a_client_id_may_hold_any_printable_character() -> None:
    assert check_client_id("Uhr von Jürgen, 腕時計") == "Uhr von Jürgen, 腕時計"


@pytest.mark.parametrize(
    "values",
    [
        {f"v{i}": i for i in range(33)},
        {"x": float("nan")},
        {"x": "y" * 257},
        {"": 1},
        {"x": 2**64},
        {"x": True},
        {"x": None},
    ],
    ids=str,
)
def test_telemetry_beyond_its_bounds_is_not_sent(values: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="fewer or shorter"):
        replace(TELEMETRY, values=values).to_bytes()


@pytest.mark.parametrize(
    "row",
    [
        ["no such code", 3, 4, "w", 5],
        ["stale", -1, 4, "w", 5],
        ["stale", 3, 4, "w", 2**32],
        [["stale"], 3, 4, "w", 5],
    ],
    ids=str,
)
def test_a_reject_notice_out_of_range_is_malformed(row: list[object]) -> None:
    with pytest.raises(WireError):
        Reject.from_bytes(pack(FrameKind.REJECT, row))


def test_bytes_behind_a_message_without_payload_are_malformed() -> None:
    frame = unpack(HEAD.to_bytes())
    with pytest.raises(WireError, match="trail"):
        Head.from_bytes(pack(FrameKind.HEAD, frame.header, [b"x"]))


def test_an_unknown_codec_or_an_odd_list_of_sections_is_malformed() -> None:
    frame = unpack(UPDATE.to_bytes())
    for index, other in (
        (10, 3),
        (10, 99),
        (14, [1] * 9),
        (14, [16, -1]),
        (14, [16.0]),
        (15, [True]),
        (12, 0),
        (13, -1),
    ):
        row = [*frame.header[:index], other, *frame.header[index + 1 :]]
        with pytest.raises(WireError) as caught:
            Update.from_bytes(pack(FrameKind.UPDATE, row, [frame.body]))
        assert caught.value.code is RejectCode.MALFORMED


def test_a_command_that_messagepack_cannot_hold_is_not_sent() -> None:
    with pytest.raises(ConfigError, match="cannot be written"):
        Control(command="roll_back", argument=2**64).to_bytes()
