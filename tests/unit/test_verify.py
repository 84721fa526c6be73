"""The history checker: each invariant holds of a sound log, and each way of breaking a log shows."""

import dataclasses
import json

import pytest

from aggregator.chain.keyframe import load_keyframe
from aggregator.verify import (
    Acknowledged,
    Demands,
    Evidence,
    Invariant,
    Memory,
    Seen,
    Settled,
    Stall,
    Verdict,
    verify,
    verify_and_replay,
)
from aggregator.verify.evidence import from_lines, to_line
from broker_topics.errors import ConfigError, ExitCode, RejectCode
from broker_topics.frames import frame_crc
from broker_topics.memory import MemoryBus
from broker_topics.memory_log import MemoryLog, MemoryPartition
from broker_topics.messages import Head, Reject
from broker_topics.models_log import HEAD_KEY
from broker_topics.record import Record, Step, build, parse
from broker_topics.topics import Topic, topic_name
from tests.fleet import Device, make_task, running

TASK = "watch"


@pytest.fixture
async def bus():
    """A log in which two updates were accepted, one was refused, and one waits; keyframes at heights 0 and 2."""
    async with MemoryBus(MemoryLog()) as bus:
        await make_task(bus, TASK, buffer_size=1, keyframe_every=2)
        device = await Device(bus, TASK, "a").enter()
        async with running(bus, TASK):
            await device.send(device.update(1.0).to_bytes())
            await device.until_version(1)
            await device.send(device.update(1.0, base_version=9).to_bytes())
            await device.send(device.update(1.0).to_bytes())
            await device.until_version(2)
        await device.send(device.update(1.0).to_bytes())
        yield bus


def broken(verdict: Verdict) -> set[str]:
    return {check.invariant.value for check in verdict.checks if check.violations}


def log_of(bus: MemoryBus, topic: Topic, partition: int = 0) -> MemoryPartition:
    return bus.log.partition(topic_name(TASK, topic), partition)


def inputs(bus: MemoryBus) -> MemoryPartition:
    return next(p for p in bus.log.partitions(topic_name(TASK, Topic.UPDATES)) if p.records)


def rewrite(partition: MemoryPartition, offset: int, value: bytes | None) -> None:
    at = next(index for index, record in enumerate(partition.records) if record.offset == offset)
    partition.records[at] = partition.records[at]._replace(value=value)


def official(bus: MemoryBus) -> list[Record]:
    return [parse(record.value or b"") for record in log_of(bus, Topic.COMMITS).records]


def forge_last(bus: MemoryBus, **changed: object) -> None:
    """Put another record in the place of the last one, sound as a link of the chain."""
    last = official(bus)[-1]
    body = dataclasses.replace(last.body, **changed)
    forged = build(height=last.height, parent=last.parent, writer=last.writer, body=body)
    rewrite(log_of(bus, Topic.COMMITS), len(official(bus)) - 1, forged.data)


async def test_a_sound_log_holds_and_the_verdict_says_how_much_was_looked_at(bus):
    verdict, state = await verify_and_replay(bus, TASK)
    assert verdict.violations == []
    assert (verdict.height, verdict.version, verdict.exit_code) == (2, 2, ExitCode.DONE)
    checked = {check.invariant.value: dict(check.checked) for check in verdict.checks}
    assert checked["I1"] == {"accepted updates": 2}
    assert checked["I2"] == {"records": 3, "records met by way of head": 1}
    assert checked["I3"] == {
        "keyframes read": 2,
        "records replayed": 2,
        "keyframes reached by replay": 1,
        "newest keyframes whole": 2,
    }
    assert checked["I4"] == {"inputs that wait": 1}
    assert checked["I5"] == {"accepted updates": 2}
    assert checked["I6"] == {"inputs read again": 3, "rejects compared": 1, "offsets": 3}
    assert state.x.tolist() == [2.0] * 8


async def test_received_is_applied_and_refused_of_every_partition(bus):
    verdict = await verify(bus, TASK)
    where = inputs(bus).partition
    assert {name: count for name, count in verdict.partitions[where].items() if count} == {
        "partition": where,
        "received": 3,
        "applied": 2,
        "refused": 1,
    }
    assert sum(row["received"] for row in verdict.partitions) == 3


async def test_an_acknowledged_update_that_is_never_settled_shows(bus):
    assert broken(await verify(bus, TASK, demands=Demands(at_rest=True))) == {"I4"}


async def test_an_input_that_became_another_shows_and_says_that_data_is_gone(bus):
    inputs(bus).spoil(0)
    verdict = await verify(bus, TASK)
    assert broken(verdict) == {"I6"}
    assert verdict.exit_code is ExitCode.INPUTS_LOST


async def test_inputs_that_retention_took_break_nothing(bus):
    inputs(bus).delete_before(1)
    verdict = await verify(bus, TASK)
    assert verdict.violations == []
    assert verdict.notes == ("inputs of height 1 are gone: replay goes on from the next keyframe",)


async def test_a_log_cut_below_what_the_chain_consumed_shows(bus):
    inputs(bus).cut(2)
    verdict = await verify(bus, TASK)
    assert broken(verdict) == {"I6"}
    assert verdict.exit_code is ExitCode.INPUTS_LOST


async def test_an_update_accepted_twice_shows(bus):
    rewrite(inputs(bus), 2, inputs(bus).records[0].value)
    decisions = official(bus)[1].body.decisions
    forge_last(bus, decisions=(official(bus)[2].body.decisions[0], decisions[0]))
    verdict = await verify(bus, TASK)
    assert "I1" in broken(verdict)
    assert verdict.exit_code is ExitCode.INTERNAL


async def test_a_record_that_moves_the_model_otherwise_than_replay_shows(bus):
    forge_last(bus, state_hash=bytes(32))
    assert broken(await verify(bus, TASK)) == {"I3"}


async def test_a_step_that_takes_another_number_of_updates_than_were_accepted_shows(bus):
    last = official(bus)[-1].body
    forge_last(bus, steps=(Step(2, last.steps[0].cause),))
    assert {"I2", "I3"} <= broken(await verify(bus, TASK))


async def test_an_update_applied_from_a_base_that_never_was_shows(bus):
    forged = Device(bus, TASK, "a", sequence=2)
    forged.follower = (await Device(bus, TASK, "a").enter()).follower
    data = forged.update(1.0, base_version=1, base_hash=b"elsewhere"[:8]).to_bytes()
    rewrite(inputs(bus), 2, data)
    refused, taken = official(bus)[-1].body.decisions
    forge_last(bus, decisions=(refused, dataclasses.replace(taken, crc=frame_crc(data))))
    assert "I5" in broken(await verify(bus, TASK))


async def test_an_update_older_than_allowed_that_was_applied_shows(bus):
    forged = Device(bus, TASK, "a", sequence=2)
    forged.follower = (await Device(bus, TASK, "a").enter()).follower
    base = official(bus)[0].body.base_hash
    data = forged.update(1.0, base_version=0, base_hash=base).to_bytes()
    rewrite(inputs(bus), 2, data)
    refused, taken = official(bus)[-1].body.decisions
    changed = (refused, dataclasses.replace(taken, crc=frame_crc(data)))
    forge_last(bus, decisions=changed)
    assert "I5" not in broken(await verify(bus, TASK))
    one = official(bus)[1]
    strict = build(height=1, parent=one.parent, writer=one.writer, body=dataclasses.replace(one.body, max_staleness=0))
    last = official(bus)[2]
    after = build(height=2, parent=strict.hash, writer=last.writer, body=last.body)
    rewrite(log_of(bus, Topic.COMMITS), 1, strict.data)
    rewrite(log_of(bus, Topic.COMMITS), 2, after.data)
    assert "I5" in broken(await verify(bus, TASK))


async def test_an_offset_that_was_passed_over_though_it_can_be_read_shows(bus):
    verdict = await verify(bus, TASK)
    assert verdict.holds
    last = official(bus)[-1].body
    runs = tuple(dataclasses.replace(run, kind=run.kind.__class__.CONTROL) for run in last.runs)
    forge_last(bus, runs=runs, decisions=(), steps=(), version=1)
    assert {"I2", "I6"} <= broken(await verify(bus, TASK))


async def test_a_part_of_the_newest_keyframes_that_is_gone_shows(bus):
    models = log_of(bus, Topic.MODELS)
    ref = next(ref for ref in official(bus)[2].body.parts if ref.name == "x")
    models.records = [record for record in models.records if record.offset != ref.offset]
    verdict = await verify(bus, TASK)
    assert verdict.violations == ["I3: the keyframe at height 2 lost its parts x-0"]
    assert verdict.exit_code is ExitCode.INPUTS_LOST
    assert (await verify(bus, TASK, demands=Demands(whole_keyframes=0))).holds


async def test_a_keyframe_with_a_flipped_bit_shows(bus):
    models = log_of(bus, Topic.MODELS)
    ref = next(ref for ref in official(bus)[2].body.parts if ref.name == "x")
    whole = bytearray(next(record.value for record in models.records if record.offset == ref.offset))
    whole[-1] ^= 1
    rewrite(models, ref.offset, bytes(whole))
    assert broken(await verify(bus, TASK)) == {"I3"}


async def test_a_keyframe_that_is_not_what_replay_reaches_shows(bus, monkeypatch):
    async def forgetful(models, record):
        state = await load_keyframe(models, record)
        if record.height == 2:
            list(state.ledger.evict(version=10_000, max_staleness=1))
        return state

    monkeypatch.setattr("aggregator.verify.keyframes.load_keyframe", forgetful)
    verdict = await verify(bus, TASK)
    assert broken(verdict) == {"I3"}
    assert "ledger differs" in verdict.violations[0]


async def test_a_reject_that_the_chain_does_not_know_shows(bus):
    reject = Reject(code=RejectCode.NORM, partition=1, offset=7, client_id="a", crc=1)
    log_of(bus, Topic.REJECTS).append(b"a", reject.to_bytes())
    verdict = await verify(bus, TASK)
    assert verdict.violations == ["I6: a reject of partition 1, offset 7 says what the chain does not"]


async def test_a_record_of_a_loser_changes_nothing(bus):
    loser = official(bus)[1]
    other = build(height=2, parent=loser.hash, writer=bytes(16), body=official(bus)[2].body)
    log_of(bus, Topic.COMMITS).append(None, other.data)
    log_of(bus, Topic.COMMITS).append(None, b"torn")
    assert (await verify(bus, TASK)).violations == []


async def test_a_head_that_names_no_keyframe_shows(bus):
    record = official(bus)[1]
    head = Head(offset=1, height=1, record_hash=record.hash)
    log_of(bus, Topic.MODELS).append(HEAD_KEY, head.to_bytes())
    assert broken(await verify(bus, TASK)) == {"I2"}


async def test_a_head_that_names_nothing_official_is_noted(bus):
    head = Head(offset=1, height=1, record_hash=bytes(32))
    log_of(bus, Topic.MODELS).append(HEAD_KEY, head.to_bytes())
    verdict = await verify(bus, TASK)
    assert verdict.holds
    assert "from its beginning" in verdict.notes[0]


async def test_a_chain_without_its_beginning_shows(bus):
    log_of(bus, Topic.COMMITS).delete_before(1)
    verdict = await verify(bus, TASK)
    assert verdict.violations == ["I2: the chain has no beginning"]
    assert verdict.exit_code is ExitCode.INPUTS_LOST


async def test_a_marker_at_the_end_of_a_partition_is_waited_for_by_nobody(bus, monkeypatch):
    monkeypatch.setattr("aggregator.verify.examine._GAP_S", 0.05)
    for partition in bus.log.partitions(topic_name(TASK, Topic.UPDATES)):
        partition.leave_gap(12)
    assert (await verify(bus, TASK)).violations == []


@pytest.mark.parametrize(
    ("item", "invariant"),
    [
        (Seen(reader="dashboard", height=1, hash="00" * 32), "I2"),
        (Seen(reader="dashboard", height=7, hash="00" * 32), "I2"),
        (Settled(client_id="a", incarnation=1, sequence=9, crc=77, outcome="accepted"), "I4"),
        (Acknowledged(client_id="a", incarnation=1, sequence=1, crc=77, partition=0, offset=0), "I4"),
        (Stall(what="partition 3", seconds=60.5), "I7"),
        (Memory(process="aggregator", peak_bytes=1001, limit_bytes=1000), "I8"),
    ],
)
async def test_what_others_were_told_is_held_against_the_log(bus, item, invariant):
    verdict = await verify(bus, TASK, evidence=Evidence.of([item]))
    assert broken(verdict) == {invariant}


async def test_evidence_that_agrees_with_the_log_breaks_nothing(bus):
    where = inputs(bus)
    crcs = [frame_crc(record.value) for record in where.records]
    names = [{"client_id": "a", "incarnation": 1, "sequence": sequence} for sequence in (1, 2, 3, 4)]
    items = [
        *(
            Acknowledged(**name, crc=crc, partition=where.partition, offset=offset)
            for offset, (name, crc) in enumerate(zip(names, crcs, strict=True))
        ),
        Settled(**names[0], crc=crcs[0], outcome="accepted"),
        Settled(**names[1], crc=crcs[1], outcome="given_back"),
        Settled(**names[2], crc=crcs[2], outcome="accepted"),
        *(Seen(reader="b", height=r.height, version=r.body.version, hash=r.hash.hex()) for r in official(bus)),
        Stall(what="partition 3", seconds=59.5),
        Memory(process="aggregator", peak_bytes=999, limit_bytes=1000),
    ]
    verdict = await verify(bus, TASK, evidence=Evidence.of(items))
    assert verdict.violations == []
    settled = next(check for check in verdict.checks if check.invariant is Invariant.SETTLED)
    assert settled.checked["acknowledged and settled"] == 3


async def test_an_update_taken_back_though_it_was_accepted_shows(bus):
    crc = frame_crc(inputs(bus).records[0].value)
    held = Settled(client_id="a", incarnation=1, sequence=1, crc=crc, outcome="given_back")
    assert broken(await verify(bus, TASK, evidence=Evidence(settled=(held,)))) == {"I4"}


async def test_a_reader_that_goes_back_shows(bus):
    hashes = [record.hash.hex() for record in official(bus)]
    seen = tuple(Seen(reader="b", height=height, version=height, hash=hashes[height]) for height in (0, 2, 1))
    assert broken(await verify(bus, TASK, evidence=Evidence(seen=seen))) == {"I9"}


def test_evidence_is_read_as_it_was_written_and_a_line_cut_short_is_left_out():
    items = [Stall(what="x", seconds=1.0), Seen(reader="r", height=3, hash="ab", version=2)]
    lines = [f"{to_line(item)}\n" for item in items]
    assert list(from_lines([*lines, lines[0][:10]])) == items


@pytest.mark.parametrize("line", ["nonsense", "[]", '{"kind": "gossip"}', '{"kind": "stall", "who": 1}'])
def test_a_line_that_is_no_evidence_is_a_configuration_error(line):
    with pytest.raises(ConfigError, match="line 1 of the evidence"):
        list(from_lines([line + "\n"]))


async def test_the_verdict_can_be_written_as_json(bus):
    row = json.loads(json.dumps((await verify(bus, TASK)).as_row()))
    assert row["holds"] is True
    assert [check["invariant"] for check in row["checks"]] == [f"I{number}" for number in range(1, 10)]
    assert [check["needs"] != "" for check in row["checks"]] == [False] * 6 + [True, True, False]
