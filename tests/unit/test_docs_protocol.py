"""The protocol page is a promise to people who write devices in other languages: it must say what the code does."""

import hashlib
import re
from typing import Any

import msgpack
import numpy as np
import pytest

from aggregator.fold.rules import server_rule
from broker_topics import codecs, frames, messages, parts, record, topics
from broker_topics.codecs import sparse
from broker_topics.errors import RejectCode, WireError
from broker_topics.frames import FrameKind
from broker_topics.hashing import tree_hash
from broker_topics.layout import Layout, Tensor
from broker_topics.partitions import partition_of
from broker_topics.task import TaskSettings
from tests.markdown import ROOT, bare, examples, hex_bytes, section, tables
from worker.settling import GIVEN_BACK, RENEWING

PAGE = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
EXAMPLES = examples(PAGE)

LAYOUT = Layout(tensors=(Tensor(name="w", shape=(4,)),))
ZEROS = np.zeros(4, np.float32)

UPDATE = messages.Update(
    task="watch",
    client_id="w-17",
    incarnation=1,
    sequence=1,
    layout=LAYOUT.fingerprint,
    base_version=0,
    base_hash=tree_hash(ZEROS)[:8],
    num_examples=32,
    num_steps=20,
    work=1.0,
    encoded=codecs.encode(np.array([0.5, -1, 0, 0.25], np.float32), codecs.CodecId.FLOAT32),
)
DELTA = messages.Delta(task="watch", layout=LAYOUT.fingerprint, version=1, base_hash=bytes(8), encoded=UPDATE.encoded)
MESSAGES: dict[str, Any] = {
    "UPDATE": UPDATE,
    "DELTA": DELTA,
    "REJECT": messages.Reject(code=RejectCode.STALE, partition=5, offset=7, client_id="w-17", crc=1),
    "TELEMETRY": messages.Telemetry(client_id="w-17", task="watch", incarnation=1, values={"train_seconds": 2.0}),
    "CONTROL": messages.Control(command="pause"),
    "HEAD": messages.Head(offset=1, height=2, record_hash=bytes(32)),
}
PAYLOAD_FIELDS = {"codec", "flags", "size", "k", "section_lengths", "raw_lengths"}


def table(heading: str, number: int = 0) -> list[dict[str, str]]:
    return tables(section(PAGE, heading))[number]


def power(text: str) -> int:
    """A number as the page writes it: 2^64 − 1, 2^53, 128.

    >>> power("2^64 − 1") == 2**64 - 1
    True
    """
    match = re.fullmatch(r"(\d+)(?:\^(\d+))?(?: − (\d+))?", text.replace(",", ""))
    assert match, f"{text!r} is not a number that this page uses"
    base, exponent, less = match.groups()
    whole: int = int(base) ** int(exponent or 1)
    return whole - int(less or 0)


def bounded() -> list[tuple[str, int, str, str, str]]:
    """Every row of the message tables that states a range: kind, place, name, type, range."""
    return [
        (kind, int(row["#"]), bare(row["element"]), row["type"], row["range"])
        for kind in MESSAGES
        for row in table(kind)
        if row["range"]
    ]


def test_the_table_of_topics_is_the_code_s_table() -> None:
    written = {bare(row["topic"]): row for row in table("Topics")}
    shared = next(line for line in section(PAGE, "Topics").splitlines() if line.startswith("All topics also have"))
    common = dict(re.findall(r"`([a-z.]+)=([A-Za-z0-9]+)`", shared))
    specs = topics.topic_specs("T", replication=1)
    assert set(written) == {spec.name for spec in specs}
    for spec in specs:
        row = written[spec.name]
        own = dict(re.findall(r"`([a-z.]+)=([a-z0-9-]+)`", row["settings"]))
        assert int(row["partitions"]) == spec.partitions
        assert {**common, **own} == dict(spec.settings)
    assert f"A value is at most {topics.RECORD_BYTES:,} bytes, a key {topics.KEY_BYTES:,}" in PAGE


def test_three_replicas_make_two_of_them_keep_a_record_before_it_counts() -> None:
    settings = topics.topic_specs("T", replication=3)[0].settings
    assert settings["min.insync.replicas"] == "2"
    assert "or 2 with three replicas and more" in PAGE


def test_kinds_codecs_flags_and_causes_are_numbered_as_in_the_code() -> None:
    kinds = {int(row["kind"]): bare(row["frame"]) for row in table("Frames", 1)}
    numbers = {int(row["codec"]): bare(row["name"]) for row in table("Codecs")}
    flags = {int(row["flag"]): bare(row["name"]) for row in table("Sparse")}
    assert kinds == {kind.value: kind.name for kind in FrameKind}
    assert numbers == {codec.value: codec.name for codec in codecs.CodecId}
    assert flags == {getattr(sparse, name): name for name in flags.values()}
    assert sum(flags) == sparse._ALL_FLAGS
    words = re.findall(r"`(\w+)`", section(PAGE, "The commit chain").split("Kinds of runs:")[1])
    assert words == [*(kind.value for kind in record.RunKind), *(cause.value for cause in record.Cause)]


def test_every_reject_code_is_explained_and_no_other() -> None:
    assert [bare(row["code"]) for row in table("Reject codes")] == [code.value for code in RejectCode]


def test_what_becomes_of_a_refused_update_is_what_the_device_does() -> None:
    then = {bare(row["code"]): row["then"] for row in table("Reject codes")}
    assert {code for code, does in then.items() if does.startswith("back")} == GIVEN_BACK
    assert {code for code, does in then.items() if does.endswith("new incarnation")} == RENEWING
    assert {code for code, does in then.items() if not does.startswith(("back", "drop"))} == {"duplicate", "unreadable"}


@pytest.mark.parametrize("kind", MESSAGES)
def test_the_header_of_a_message_is_what_its_table_says(kind: str) -> None:
    message = MESSAGES[kind]
    frame = frames.unpack(message.to_bytes())
    rows = table(kind)
    assert frame.kind is FrameKind[kind]
    assert [int(row["#"]) for row in rows] == list(range(len(frame.header)))
    for row, value in zip(rows, frame.header, strict=True):
        name = bare(row["element"])
        if name in PAYLOAD_FIELDS:
            continue
        expected = getattr(message, name)
        assert value == (expected.value if isinstance(expected, RejectCode) else expected), name


def test_the_end_of_an_update_s_and_a_delta_s_header_describes_the_payload() -> None:
    for kind in ("UPDATE", "DELTA"):
        written = [bare(row["element"]) for row in table(kind)][-6:]
        header = frames.unpack(MESSAGES[kind].to_bytes()).header[-6:]
        assert dict(zip(written, header, strict=True)) == {
            "codec": 0,
            "flags": 0,
            "size": 4,
            "k": 4,
            "section_lengths": [16],
            "raw_lengths": [16],
        }


@pytest.mark.parametrize(("kind", "place", "name", "type_", "range_"), bounded())
def test_a_value_is_taken_within_its_range_and_refused_beyond(
    kind: str, place: int, name: str, type_: str, range_: str
) -> None:
    good, bad = _within_and_beyond(type_, range_)
    for value in good:
        _reread(kind, place, value)
    for value in bad:
        with pytest.raises(WireError):
            _reread(kind, place, value)


def _within_and_beyond(type_: str, range_: str) -> tuple[list[Any], list[Any]]:
    if type_ == "bytes":
        return [bytes(int(range_))], [bytes(int(range_) - 1), bytes(int(range_) + 1), "x" * int(range_)]
    low, high = (power(end) for end in range_.split(" … "))
    if type_ == "text":
        return ["ä" * high, "w" * low], ["w" * (high + 1), *(["w" * (low - 1)] if low else []), 7, "a\nb"]
    if type_ == "integers":  # the lengths must also fill the frame, so that only the given ones pass
        return [[16]], [[low - 1], [True], ["16"], [0] * 9, 16]
    beyond: list[Any] = [low - 1, "1", None, True]
    if high < 2**64 - 1:
        beyond.append(high + 1)
    if type_ == "float":
        return [float(low), float(high)], [*map(float, (low - 1, high + 1)), float("nan"), low, "1", True]
    return [low, high], [*beyond, float(low + 1)]


def _reread(kind: str, place: int, value: Any) -> None:
    """Put one value into a sound message, and read the message."""
    message = MESSAGES[kind]
    frame = frames.unpack(message.to_bytes())
    header = list(frame.header)
    header[place] = value
    type(message).from_bytes(frames.pack(frame.kind, header, [frame.body]))


def test_the_worked_update_is_what_the_code_writes() -> None:
    data = UPDATE.to_bytes()
    assert hex_bytes(EXAMPLES["update"]) == data
    assert f"Its CRC is {frames.frame_crc(data)}" in PAGE
    assert "its partition 5" in PAGE
    assert partition_of(b"w-17", topics.UPDATE_PARTITIONS) == 5


def test_the_worked_layout_and_hash_are_what_the_code_computes() -> None:
    lines = EXAMPLES["layout"].splitlines()
    assert bytes.fromhex(lines[0].removeprefix("layout bytes")) == LAYOUT.to_bytes()
    assert int(lines[1].removeprefix("fingerprint")) == LAYOUT.fingerprint
    assert LAYOUT.fingerprint == int.from_bytes(hashlib.sha256(LAYOUT.to_bytes()).digest()[:8], "big")
    assert bytes.fromhex(EXAMPLES["tree hash"]) == tree_hash(ZEROS)
    assert tree_hash(ZEROS) == hashlib.sha256(hashlib.sha256(bytes(16)).digest() + (16).to_bytes(8, "big")).digest()


def test_the_worked_sparse_sections_are_what_the_code_writes() -> None:
    vector = np.zeros(2000, np.float32)
    vector[[0, 2, 300]] = 0.5, -0.5, 1.0
    encoded = codecs.encode(vector, codecs.CodecId.SPARSE, density=0.0015)
    assert (encoded.k, encoded.flags) == (3, 8)
    assert hex_bytes(EXAMPLES["sparse"]) == b"".join(bytes(part) for part in encoded.sections)


def test_the_worked_genesis_is_what_the_code_writes() -> None:
    named = tree_hash(ZEROS)
    body = record.Body(
        version=0,
        steps=(),
        cause=record.Cause.GENESIS,
        runs=(),
        vector=(0,) * 13,
        decisions=(),
        rules=bytes(32),
        max_staleness=200,
        state_hash=named,
        hidden_hash=named,
        served_hash=named,
        keyframe=True,
    )
    built = record.build(height=0, parent=record.GENESIS_PARENT, writer=bytes(range(16)), body=body)
    assert hex_bytes(EXAMPLES["genesis"]) == built.data
    assert f"`{built.hash.hex()}`" in PAGE


def test_the_body_of_a_record_has_the_fields_of_the_page_in_their_order() -> None:
    written = [bare(row["body"]) for row in table("The commit chain", 1)]
    built = hex_bytes(EXAMPLES["genesis"])[record.ENVELOPE.size :]
    assert written == list(msgpack.unpackb(built))
    offsets = [int(row["offset"]) for row in table("The commit chain") if row["offset"].isdigit()]
    assert offsets == [0, 1, 9, 41, 57, record.ENVELOPE.size]


def test_decisions_are_written_as_the_page_says() -> None:
    accepted = record._decision_row(record.Decision(7, 0.5))
    refused = record._decision_row(record.Decision(7, 0.0, RejectCode.DUPLICATE, "stale"))
    assert accepted == [7, 0.5]
    assert refused == [7, "duplicate", "stale", 0]


def test_a_part_has_the_header_and_the_key_of_the_page() -> None:
    (part,) = parts.cut("delta", b"aaaa")
    frame = frames.unpack(part.value, expect=FrameKind.PART)
    written = [bare(row["element"]) for row in table("PART")]
    assert dict(zip(written, frame.header, strict=True)) == {"name": "delta", "index": 0, "length": 4, "method": 0}
    assert table("PART")[2]["range"] == f"0 … {parts.PIECE_BYTES}"
    key = parts.part_key(
        height=42, writer=bytes(range(16)), digest=bytes.fromhex("5d41402abc4b2a76"), name="delta", index=0
    )
    assert key == b"000000000000002a/000102030405060708090a0b0c0d0e0f/5d41402abc4b2a76/delta-0"
    assert "`000000000000002a/000102…0f/5d41402abc4b2a76/delta-0`" in PAGE


def test_settings_that_the_page_names_are_settings() -> None:
    known = set(TaskSettings.__dataclass_fields__)
    for name in ("local_learning_rate", "local_epochs", "density", "codec", "reference_steps", "max_update_bytes"):
        assert name in known
        assert f"`{name}`" in section(PAGE, "Checklist")
    for name in ("served_horizon", "keyframe_every", "min_separation", "max_update_norm"):
        assert name in known
        assert f"`{name}`" in PAGE
    assert server_rule(TaskSettings()).weight_limit == 10.0
