"""Every input gets one decision, by checks in a fixed order; a refusal says why and stops nothing."""

from collections.abc import Callable

import numpy as np
import pytest

from broker_topics.codecs import CodecId, encode
from broker_topics.errors import RejectCode
from broker_topics.frames import frame_crc
from broker_topics.partitions import partition_of
from tests.folding import PARTITIONS, Bench, vector

WIDE = np.arange(2000, dtype=np.float32)
OTHER_PARTITION = (partition_of(b"a", PARTITIONS) + 1) % PARTITIONS


@pytest.fixture
def bench() -> Bench:
    """At version 3, client "a" has had its sequence 1 accepted at version 2."""
    bench = Bench.of(np.zeros(2000, np.float32), buffer_size=1, max_staleness=2, max_update_norm=1e6, min_separation=1)
    for client in ("x", "y", "a"):
        bench.send(client, WIDE)
        bench.step()
    return bench


def sparse(bench: Bench, **changed: object) -> object:
    return encode(WIDE, CodecId.SPARSE, density=0.1)._replace(**changed)


def huge() -> np.ndarray:
    return np.full(2000, 1e6, np.float32)


def not_finite() -> object:
    encoded = encode(WIDE, CodecId.FLOAT32)
    values = WIDE.copy()
    values[7] = np.nan
    return encoded._replace(sections=(values.tobytes(),))


CASES: list[tuple[RejectCode, Callable[[Bench], bytes]]] = [
    (RejectCode.MALFORMED, lambda b: b"not a frame"),
    (RejectCode.MALFORMED, lambda b: b.frame("a", WIDE)[:-1]),
    (RejectCode.MALFORMED, lambda b: b.frame("a", WIDE, work=0.5)),
    (RejectCode.WRONG_TASK, lambda b: b.frame("a", WIDE, task="phones")),
    (RejectCode.IDENTITY, lambda b: b.frame("b", WIDE)),
    (RejectCode.DUPLICATE, lambda b: b.frames[partition_of(b"a", PARTITIONS), b.admissions[2].offset]),
    (RejectCode.CONFLICT, lambda b: b.frame("a", WIDE, sequence=1)),
    (RejectCode.PASSED, lambda b: b.frame("a", WIDE, sequence=0)),
    (RejectCode.RETIRED, lambda b: b.frame("a", WIDE, incarnation=1)),
    (RejectCode.SEQUENCE_JUMP, lambda b: b.frame("a", WIDE, sequence=2_000_000)),
    (RejectCode.UNKNOWN_LAYOUT, lambda b: b.frame("a", WIDE, layout=12345)),
    (RejectCode.UNKNOWN_LAYOUT, lambda b: b.frame("a", WIDE[:1999].copy())),
    (RejectCode.FUTURE_VERSION, lambda b: b.frame("a", WIDE, base=4)),
    (RejectCode.STALE, lambda b: b.frame("a", WIDE, base=0)),
    (RejectCode.UNKNOWN_BASE, lambda b: b.frame("a", WIDE, base_hash=bytes(8))),
    (RejectCode.BAD_PAYLOAD, lambda b: b.frame("a", sparse(b, k=201))),
    (RejectCode.BAD_PAYLOAD, lambda b: b.frame("a", sparse(b, flags=1 << 20))),
    (RejectCode.NON_FINITE, lambda b: b.frame("a", not_finite())),
    (RejectCode.NORM, lambda b: b.frame("a", huge())),
]


@pytest.mark.parametrize(("code", "make"), CASES, ids=lambda value: str(value) if isinstance(value, str) else "")
def test_each_fault_has_its_code_and_leaves_the_model_alone(
    bench: Bench, code: RejectCode, make: Callable[[Bench], bytes]
) -> None:
    if code is RejectCode.RETIRED:
        bench.send("a", WIDE, incarnation=2, sequence=1)
        bench.step()
    data, before = make(bench), bench.state.x.tobytes()
    admission = bench.append("a", data)
    assert admission.decision.code is code
    assert admission.decision.crc == frame_crc(data)
    assert admission.refused
    draft = bench.step()
    assert bench.state.x.tobytes() == before
    assert draft.body.steps == ()
    assert draft.delta is None
    assert [d.code for d in draft.body.decisions] == [code]


def test_a_record_above_the_limit_is_too_large_before_it_is_looked_at() -> None:
    bench = Bench.of(vector(0), max_update_bytes=1024)
    assert bench.append("a", bytes(1025)).decision.code is RejectCode.TOO_LARGE
    assert bench.append("a", bytes(1024)).decision.code is RejectCode.MALFORMED


def test_a_record_in_another_partition_than_its_key_belongs_to_is_refused(bench: Bench) -> None:
    admission = bench.append("a", bench.frame("a", WIDE), partition=OTHER_PARTITION)
    assert admission.decision.code is RejectCode.IDENTITY
    assert admission.client_id == ""


def test_a_record_without_a_key_is_refused() -> None:
    bench = Bench.of(vector(0))
    data = bench.frame("a", vector(1))
    admission = bench.fold.offer(partition=partition_of(b"a", PARTITIONS), offset=0, key=None, data=data)
    assert admission.decision.code is RejectCode.IDENTITY


def test_two_accepted_updates_of_a_device_lie_apart_by_the_separation() -> None:
    bench = Bench.of(vector(0), buffer_size=2, min_separation=2)
    codes = []
    for turn in range(4):
        codes.append(bench.send("a", vector(1)).decision.code)
        bench.send(f"b-{turn}", vector(1))
        bench.step()
    assert codes == [None, RejectCode.TOO_SOON, None, RejectCode.TOO_SOON]


def test_a_new_incarnation_does_not_escape_the_separation() -> None:
    bench = Bench.of(vector(0), min_separation=1)
    bench.send("a", vector(1))
    assert bench.send("a", vector(1), incarnation=2, sequence=1).decision.code is RejectCode.TOO_SOON


ORDER: list[tuple[str, RejectCode, dict[str, object]]] = [
    ("task before sequence", RejectCode.WRONG_TASK, {"task": "phones", "sequence": 0}),
    ("sequence before layout", RejectCode.PASSED, {"sequence": 0, "layout": 1}),
    ("incarnation before version", RejectCode.RETIRED, {"incarnation": 1, "base": 99}),
    ("layout before version", RejectCode.UNKNOWN_LAYOUT, {"layout": 1, "base": 99}),
    ("version before base", RejectCode.STALE, {"base": 0, "base_hash": bytes(8)}),
    ("base before separation", RejectCode.UNKNOWN_BASE, {"base_hash": bytes(8)}),
]


@pytest.mark.parametrize(("why", "code", "changed"), ORDER, ids=lambda value: value if isinstance(value, str) else "")
def test_the_first_fault_in_order_decides(bench: Bench, why: str, code: RejectCode, changed: dict[str, object]) -> None:
    bench.send("a", WIDE, incarnation=2, sequence=1)
    fields = {"incarnation": 2, "sequence": 2, **changed}
    assert bench.send("a", WIDE, **fields).decision.code is code


def test_separation_is_judged_before_the_payload(bench: Bench) -> None:
    bench.send("a", WIDE)
    assert bench.send("a", not_finite()).decision.code is RejectCode.TOO_SOON


def test_identity_is_judged_before_sequence_and_touches_no_ledger_entry(bench: Bench) -> None:
    entry = list(bench.state.ledger.rows())
    assert bench.append("a", bench.frame("a", WIDE, sequence=0), key=b"b").decision.code is RejectCode.IDENTITY
    assert list(bench.state.ledger.rows()) == entry


def test_an_update_as_old_as_the_window_is_admitted_and_one_older_is_stale() -> None:
    bench = Bench.of(vector(0), buffer_size=1, max_staleness=5)
    for _ in range(6):
        bench.send("a", vector(0))
        bench.step()
    assert bench.send("b", vector(0), base=1).decision.accepted
    assert bench.send("c", vector(0), base=0).decision.code is RejectCode.STALE


def test_the_window_follows_the_fleet_if_it_is_not_set() -> None:
    """max(200, 50 · active devices / K): a limit below a device's own cycle would starve it for ever."""
    bench = Bench.of(vector(0), buffer_size=2)
    assert bench.state.max_staleness == 200
    for i in range(40):
        bench.send(f"w-{i}", vector(0))
    assert bench.state.max_staleness == 200
    assert bench.step().body.max_staleness == 1000


@pytest.mark.parametrize("size", [1e29, 3e38])
def test_a_norm_that_could_leave_the_range_of_float32_is_refused_without_any_limit_set(size: float) -> None:
    bench = Bench.of(vector(0, 0), buffer_size=10)
    assert bench.send("a", vector(size, size)).decision.code is RejectCode.NORM
    assert bench.send("b", vector(1e28, 0)).decision.accepted


def test_an_admission_says_what_the_metrics_need() -> None:
    bench = Bench.of(vector(0, 0), buffer_size=1)
    for _ in range(2):
        bench.send("b", vector(0, 0))
        bench.step()
    data = bench.frame("a", vector(3, 4), base=0, work=2.0, num_examples=17)
    admission = bench.append("a", data)
    assert (admission.client_id, admission.partition, admission.offset) == ("a", partition_of(b"a", PARTITIONS), 0)
    assert (admission.staleness, admission.norm, admission.codec) == (2, 5.0, "float32")
    assert (admission.bytes, admission.work, admission.num_examples) == (len(data), 2.0, 17)
