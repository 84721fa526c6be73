"""The folder of the newest keyframes: quick where it is right, harmless whatever is wrong with it."""

import asyncio
import os
from pathlib import Path

import pytest

from aggregator.chain.cache import KeyframeCache, SpoiledCacheError
from aggregator.chain.read_ahead import ReadAhead
from aggregator.restore.recovery import Accept
from aggregator.restore.restart import Replica
from aggregator.restore.standby import Standby
from aggregator.shell import Aggregator
from broker_topics.layout import Layout, Tensor
from broker_topics.memory import MemoryBus
from broker_topics.memory_log import MemoryLog
from broker_topics.topics import Topic, topic_name
from monitoring.health import Readiness
from monitoring.metrics import Metrics
from tests.fleet import Device, chain_of, make_task

TASK = "watch"
LAYOUT = Layout(tensors=(Tensor(name="w", shape=(1000,)),))
BYTES = 3 * 4 * 1000


@pytest.fixture
async def bus():
    async with MemoryBus(MemoryLog()) as bus:
        yield bus


async def lead_to(bus, folder, version):
    """An aggregator with a cache that goes on to a version, a keyframe every two steps."""
    aggregator = Aggregator(bus=bus, task=TASK, cache=KeyframeCache(folder, TASK))
    service = asyncio.create_task(aggregator.run())
    a, b = [await Device(bus, TASK, name).enter() for name in "ab"]
    while (number := a.follower.model.version) < version:
        a.sequence = b.sequence = number
        await a.send(a.update(1.0).to_bytes())
        await b.send(b.update(2.0).to_bytes())
        await a.until_version(number + 1)
        await b.until_version(number + 1)
    aggregator.stop.set()
    await service


async def restored(bus, folder, *, ahead=False, divergence=False):
    """What a leader gets, the newest file read ahead or not."""
    cache = KeyframeCache(folder, TASK, ReadAhead(folder / TASK) if ahead else None)
    elected = asyncio.Event()
    elected.set()
    standby = Standby(bus, TASK, Metrics(), Readiness(), accept=Accept(divergence=divergence), cache=cache)
    found = await standby.run(elected)
    await found.commits.close()
    return found


def files(folder: Path) -> list[Path]:
    return sorted((folder / TASK).iterdir(), key=lambda path: path.stat().st_mtime_ns)


@pytest.mark.parametrize("ahead", [False, True])
async def test_a_restart_takes_the_vectors_from_the_folder_and_ends_with_the_very_same_state(bus, tmp_path, ahead):
    await make_task(bus, TASK, LAYOUT, keyframe_every=2)
    await lead_to(bus, tmp_path / "kept", 4)
    (tmp_path / "none").mkdir()
    without = await restored(bus, tmp_path / "none")
    kept = await restored(bus, tmp_path / "kept", ahead=ahead)
    assert kept.fold.state.meta() == without.fold.state.meta()
    assert kept.fold.state.x.tobytes() == without.fold.state.x.tobytes()
    assert kept.fold.state.model.version == 4


async def test_only_the_newest_two_keyframes_are_kept(bus, tmp_path):
    await make_task(bus, TASK, LAYOUT, keyframe_every=2)
    await lead_to(bus, tmp_path, 8)
    assert [path.stat().st_size for path in files(tmp_path)] == [BYTES, BYTES]


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda data: data[:-4], "it is cut short or of another model"),
        (lambda data: data[:100] + bytes([data[100] ^ 1]) + data[101:], "ends elsewhere than the chain says"),
        (lambda data: bytes(len(data)), "ends elsewhere than the chain says"),
        (lambda data: b"", "it is cut short or of another model"),
    ],
    ids=["cut short", "one bit", "foreign", "empty"],
)
async def test_what_is_not_the_chain_s_is_said_and_fetched_again(bus, tmp_path, caplog, *, spoil, reason, ahead):
    await make_task(bus, TASK, LAYOUT, keyframe_every=2)
    await lead_to(bus, tmp_path, 2)
    newest = files(tmp_path)[-1]
    right = newest.read_bytes()
    newest.write_bytes(spoil(right))
    replica = await restored(bus, tmp_path, ahead=ahead)
    assert replica.fold.state.model.version == 2
    assert replica.fold.state.state_hash() == (await chain_of(bus, TASK))[-1].body.state_hash
    assert "keyframe_cache_ignored" in caplog.text
    assert reason in caplog.text
    assert newest.read_bytes() == right


@pytest.mark.parametrize("byte", [b"\x00", b"\xff"], ids=["zeros", "not numbers"])
@pytest.mark.parametrize("delta", ["published", "lost"])
@pytest.mark.parametrize("divergence", [False, True])
async def test_a_spoiled_keyframe_is_never_led_on_from(bus, tmp_path, caplog, *, byte, delta, divergence):
    await make_task(bus, TASK, LAYOUT, keyframe_every=2)
    await lead_to(bus, tmp_path, 3)
    newest = files(tmp_path)[-1]
    right = newest.read_bytes()
    newest.write_bytes(byte * len(right))
    last = (await chain_of(bus, TASK))[-1]
    assert not last.body.keyframe
    if delta == "lost":
        for ref in last.body.parts:
            bus.log.partition(topic_name(TASK, Topic.MODELS)).spoil(ref.offset)
    found = await restored(bus, tmp_path, divergence=divergence)
    assert found.fold.state.hashes() == last.body.hashes
    assert (found.replayed, found.repair) == (1, "")
    assert "keyframe_cache_ignored" in caplog.text
    assert newest.read_bytes() == right


async def test_a_standby_that_began_with_a_spoiled_keyframe_keeps_no_other(bus, tmp_path):
    await make_task(bus, TASK, LAYOUT, keyframe_every=2)
    await lead_to(bus, tmp_path, 2)
    oldest, newest = files(tmp_path)
    newest.write_bytes(bytes(BYTES))
    replica = Replica(bus, TASK, cache=KeyframeCache(tmp_path, TASK))
    await replica.enter()
    await lead_to(bus, tmp_path / "leader", 4)
    with pytest.raises(SpoiledCacheError, match="version 2 is not the chain's"):
        await replica.follow(1.0)
    await replica.close()
    assert files(tmp_path) == [oldest]


async def test_a_folder_that_cannot_be_written_costs_nothing_but_the_cache(bus, tmp_path, caplog):
    await make_task(bus, TASK, LAYOUT, keyframe_every=2)
    (tmp_path / "file").write_text("")
    await lead_to(bus, tmp_path / "file", 4)
    assert [record.body.keyframe for record in await chain_of(bus, TASK)] == [True, False, True, False, True]
    assert "keyframe_cache_failed" in caplog.text


async def test_a_full_disk_leaves_no_half_file_behind(bus, tmp_path, caplog):
    full = Path("/dev/full")
    assert full.exists()
    await make_task(bus, TASK, LAYOUT, keyframe_every=2)
    cache = KeyframeCache(tmp_path, TASK)
    replica = await restored(bus, tmp_path / "other")
    body = (await chain_of(bus, TASK))[0].body
    (tmp_path / TASK).mkdir(exist_ok=True)
    half = cache._path(body).with_suffix(f".half-{os.getpid()}")
    half.symlink_to(full)
    cache.store(body, replica.fold.state.vectors())
    assert list((tmp_path / TASK).iterdir()) == []
    assert "No space left on device" in caplog.text


async def test_what_a_killed_process_left_half_written_is_deleted_and_what_is_being_written_is_not(bus, tmp_path):
    await make_task(bus, TASK, LAYOUT, keyframe_every=2)
    cache = KeyframeCache(tmp_path / "mine", TASK)
    replica = await restored(bus, tmp_path / "other")
    body = (await chain_of(bus, TASK))[0].body
    cache.store(body, replica.fold.state.vectors())
    left, fresh = (cache._path(body).with_name(f"{name}.half-{number}") for name, number in (("a", 11), ("b", 12)))
    left.touch()
    fresh.touch()
    os.utime(left, (0, 0))
    cache.store(body, replica.fold.state.vectors())
    assert sorted(path.name for path in (tmp_path / "mine" / TASK).iterdir()) == [cache._path(body).name, "b.half-12"]


async def test_a_standby_keeps_what_the_leader_published(bus, tmp_path):
    await make_task(bus, TASK, LAYOUT, keyframe_every=2)
    replica = Replica(bus, TASK, cache=KeyframeCache(tmp_path / "standby", TASK))
    await replica.enter()
    await lead_to(bus, tmp_path / "leader", 2)
    while replica.height < 2:
        await replica.follow(1.0)
    await replica.close()
    mine, theirs = files(tmp_path / "standby")[-1], files(tmp_path / "leader")[-1]
    assert (mine.name, mine.read_bytes()) == (theirs.name, theirs.read_bytes())


async def test_vectors_from_the_folder_serve_where_their_parts_are_gone(bus, tmp_path):
    await make_task(bus, TASK, LAYOUT, keyframe_every=2)
    await lead_to(bus, tmp_path, 2)
    for ref in (await chain_of(bus, TASK))[-1].body.parts:
        if ref.name in {"x", "served"}:
            bus.log.partition(topic_name(TASK, Topic.MODELS)).spoil(ref.offset)
    replica = await restored(bus, tmp_path)
    assert replica.fold.state.model.version == 2
    assert replica.replayed == 0


async def test_a_newest_file_that_never_became_official_costs_nothing_but_its_reading(bus, tmp_path):
    await make_task(bus, TASK, LAYOUT, keyframe_every=2)
    await lead_to(bus, tmp_path, 2)
    (tmp_path / TASK / "unofficial.vectors").write_bytes(bytes(BYTES))
    replica = await restored(bus, tmp_path, ahead=True)
    assert replica.fold.state.state_hash() == (await chain_of(bus, TASK))[-1].body.state_hash
    assert len(files(tmp_path)) == 3


def test_what_was_read_ahead_is_given_once_and_for_its_own_path_only(tmp_path):
    assert ReadAhead(tmp_path / "missing").take(tmp_path / "a.vectors") is None
    (tmp_path / "a.vectors").write_bytes(b"1234")
    assert ReadAhead(tmp_path).take(tmp_path / "b.vectors") is None
    ahead = ReadAhead(tmp_path)
    taken = ahead.take(tmp_path / "a.vectors")
    assert taken is not None
    assert taken[:] == b"1234"
    assert ahead.take(tmp_path / "a.vectors") is None
