"""The outbox: what was stored is there after anything, and what is damaged is never read in half."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from broker_topics.chain import ChainPosition
from broker_topics.errors import ConfigError
from broker_topics.layout import Layout, Tensor
from broker_topics.task import TaskSettings
from worker.outbox import OutboxFullError, SqliteOutbox
from worker.outbox_format import Owner, blobs_of
from worker.state import Base, DeviceState, Queued, Row, Tally

SIZE = 700_000  # more than two pieces of a mebibyte
OWNER = Owner(task="t", client_id="w-1", layout=17, size=SIZE)


def vector(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(SIZE).astype(np.float32)


def full_state() -> DeviceState:
    """A state in which everything is filled in."""
    base = Base(version=7, hash=b"12345678", vector=vector(1))
    queued = Queued(base=base, local=vector(2), work=3, steps=60, pull=61.5, num_examples=9, since_s=12.5)
    row = Row(
        data=b"row" * 1000,
        crc=99,
        incarnation=2,
        sequence=5,
        base_version=6,
        work=2.0,
        since_s=11.0,
        partition=3,
        offset=1234,
    )
    return DeviceState(
        residual=vector(3),
        incarnation=2,
        sequence=5,
        carry=1.0,
        queued=queued,
        row=row,
        position=ChainPosition(40, 39, bytes(range(32))),
        settings=TaskSettings(buffer_size=5, model={"scale": 9.8}),
        stale_in_a_row=1,
        share=0.5,
        tally=Tally(trained=9.0, accepted=4.0, discarded=1.0, updates_accepted=3),
    )


def same(one: DeviceState | None, other: DeviceState) -> bool:
    """Equal to the last bit."""
    if one is None or one.queued is None or other.queued is None or one.row is None or other.row is None:
        return False
    facts = ("incarnation", "sequence", "carry", "position", "settings", "stale_in_a_row", "share", "tally")
    waiting = ("work", "steps", "pull", "num_examples", "since_s")
    row = ("crc", "incarnation", "sequence", "base_version", "work", "since_s", "partition", "offset")
    return (
        all(getattr(one, name) == getattr(other, name) for name in facts)
        and all(getattr(one.queued, name) == getattr(other.queued, name) for name in waiting)
        and all(getattr(one.row, name) == getattr(other.row, name) for name in row)
        and (one.queued.base.version, one.queued.base.hash) == (other.queued.base.version, other.queued.base.hash)
        and {name: bytes(blob) for name, blob in blobs_of(one).items()}
        == {name: bytes(blob) for name, blob in blobs_of(other).items()}
    )


def stored(folder: Path) -> DeviceState:
    """A folder with a full state in it, closed."""
    outbox = SqliteOutbox(folder)
    assert outbox.open(OWNER) is None
    state = full_state()
    outbox.save(state)
    outbox.close()
    return state


def test_a_new_folder_holds_nothing(tmp_path: Path) -> None:
    outbox = SqliteOutbox(tmp_path / "deep" / "folder")
    assert outbox.open(OWNER) is None
    assert outbox.moved_aside is None
    outbox.close()


def test_everything_comes_back_to_the_last_bit(tmp_path: Path) -> None:
    state = stored(tmp_path)
    outbox = SqliteOutbox(tmp_path)
    assert same(outbox.open(OWNER), state)
    assert outbox.stored_bytes == 3 * 4 * SIZE + 3000
    outbox.close()


def test_what_is_gone_from_the_state_is_gone_from_the_file(tmp_path: Path) -> None:
    outbox = SqliteOutbox(tmp_path)
    outbox.open(OWNER)
    state = full_state()
    outbox.save(state)
    outbox.save(replace(state, queued=None, row=None))
    outbox.close()
    again = SqliteOutbox(tmp_path)
    loaded = again.open(OWNER)
    assert loaded is not None
    assert (loaded.queued, loaded.row) == (None, None)
    assert np.array_equal(loaded.residual, state.residual)
    again.close()


def test_changes_after_a_restart_replace_what_was_there(tmp_path: Path) -> None:
    stored(tmp_path)
    outbox = SqliteOutbox(tmp_path)
    state = outbox.open(OWNER)
    assert state is not None
    outbox.save(replace(state, residual=vector(8), queued=None))
    outbox.close()
    again = SqliteOutbox(tmp_path)
    loaded = again.open(OWNER)
    assert loaded is not None
    assert np.array_equal(loaded.residual, vector(8))
    assert loaded.queued is None
    again.close()


def test_unchanged_vectors_are_not_written_again(tmp_path: Path) -> None:
    outbox = SqliteOutbox(tmp_path)
    outbox.open(OWNER)
    state = full_state()
    outbox.save(state)
    wal = tmp_path / "outbox.sqlite-wal"
    before = wal.stat().st_size
    outbox.save(replace(state, sequence=6))
    assert wal.stat().st_size - before < 100_000
    outbox.close()


def test_a_power_cut_forgets_nothing_because_every_commit_is_synchronised(tmp_path: Path) -> None:
    outbox = SqliteOutbox(tmp_path)
    outbox.open(OWNER)
    assert outbox._database is not None
    assert outbox._database.execute("PRAGMA synchronous").fetchone() == (2,)
    assert outbox._database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    outbox.close()


def test_a_second_process_is_refused_with_the_mend(tmp_path: Path) -> None:
    first = SqliteOutbox(tmp_path)
    first.open(OWNER)
    script = (
        "import sys; from pathlib import Path; from worker.outbox import *; from worker.outbox_format import Owner\n"
        "from broker_topics.errors import ConfigError\n"
        f"try: SqliteOutbox(Path(sys.argv[1])).open(Owner(task='t', client_id='w-1', layout=17, size={SIZE}))\n"
        "except ConfigError as error: print(error); sys.exit(2)\n"
    )
    second = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=False)
    assert second.returncode == 2
    assert "another process uses" in second.stdout
    assert "state_dir" in second.stdout
    first.close()


def test_a_closed_outbox_may_be_opened_by_another(tmp_path: Path) -> None:
    state = stored(tmp_path)
    outbox = SqliteOutbox(tmp_path)
    outbox.open(OWNER)
    outbox.close()
    assert same(outbox.open(OWNER), state)
    outbox.close()


@pytest.mark.parametrize(
    ("changed", "named"),
    [({"task": "other"}, "another task"), ({"client_id": "w-2"}, "another device"), ({"layout": 18}, "another model")],
)
def test_the_state_of_another_is_refused_and_left_alone(tmp_path: Path, changed: dict[str, object], named: str) -> None:
    state = stored(tmp_path)
    with pytest.raises(ConfigError, match=named):
        SqliteOutbox(tmp_path).open(replace(OWNER, **changed))  # type: ignore[arg-type]
    outbox = SqliteOutbox(tmp_path)
    assert same(outbox.open(OWNER), state)
    outbox.close()


def damage_pages(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for start in range(8192, len(data), 4096):
        data[start + 100 : start + 140] = bytes(40)
    path.write_bytes(data)


def flip_one_bit_of_a_vector(path: Path) -> None:
    data = bytearray(path.read_bytes())
    where = data.index(vector(2).tobytes()[200_000:200_040])
    data[where + 3] ^= 1
    path.write_bytes(data)


def flip_one_bit_of_the_facts(path: Path) -> None:
    data = bytearray(path.read_bytes())
    where = data.rindex(b"stale_in_a_row") + len(b"stale_in_a_row")
    data[where] ^= 2
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def scribble(path: Path) -> None:
    path.write_bytes(b"this was never a database, whatever its name says" * 100)


@pytest.mark.parametrize(
    "damage", [damage_pages, flip_one_bit_of_a_vector, flip_one_bit_of_the_facts, truncate, scribble]
)
def test_a_damaged_outbox_is_moved_aside_whole_and_the_device_begins_anew(tmp_path: Path, damage: object) -> None:
    stored(tmp_path)
    path = tmp_path / "outbox.sqlite"
    damage(path)  # type: ignore[operator]
    outbox = SqliteOutbox(tmp_path)
    assert outbox.open(OWNER) is None
    assert outbox.moved_aside == tmp_path / "outbox.sqlite.corrupt"
    assert outbox.moved_aside.exists()
    outbox.save(full_state())
    outbox.close()
    again = SqliteOutbox(tmp_path)
    assert same(again.open(OWNER), full_state())
    again.close()


def test_the_second_damaged_outbox_does_not_overwrite_the_first(tmp_path: Path) -> None:
    for name in ("outbox.sqlite.corrupt", "outbox.sqlite.corrupt-2"):
        stored(tmp_path)
        scribble(tmp_path / "outbox.sqlite")
        outbox = SqliteOutbox(tmp_path)
        outbox.open(OWNER)
        assert outbox.moved_aside == tmp_path / name
        outbox.close()


def test_a_full_disk_says_so_and_leaves_what_was_stored(tmp_path: Path) -> None:
    state = stored(tmp_path)
    outbox = SqliteOutbox(tmp_path)
    outbox.open(OWNER)
    assert outbox._database is not None
    pages = outbox._database.execute("PRAGMA page_count").fetchone()[0]
    outbox._database.execute(f"PRAGMA max_page_count = {pages}")
    bigger = replace(state, row=replace(state.row, data=bytes(1_000_000)))  # type: ignore[type-var]
    with pytest.raises(OutboxFullError, match="free space"):
        outbox.save(bigger)
    outbox._database.execute(f"PRAGMA max_page_count = {2 * pages}")
    outbox.save(bigger)
    outbox.close()
    again = SqliteOutbox(tmp_path)
    loaded = again.open(OWNER)
    assert loaded is not None
    assert loaded.row is not None
    assert loaded.row.data == bytes(1_000_000)
    again.close()


def test_a_failed_transaction_changes_nothing(tmp_path: Path) -> None:
    state = stored(tmp_path)
    outbox = SqliteOutbox(tmp_path)
    outbox.open(OWNER)
    assert outbox._database is not None
    pages = outbox._database.execute("PRAGMA page_count").fetchone()[0]
    outbox._database.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(OutboxFullError):
        outbox.save(replace(state, sequence=6, row=replace(state.row, data=bytes(1_000_000))))  # type: ignore[type-var]
    outbox.close()
    again = SqliteOutbox(tmp_path)
    assert same(again.open(OWNER), state)
    again.close()


def test_a_state_above_its_limit_is_refused_with_the_mend(tmp_path: Path) -> None:
    outbox = SqliteOutbox(tmp_path, max_bytes=1_000_000)
    outbox.open(OWNER)
    with pytest.raises(OutboxFullError, match="raise outbox_max_bytes"):
        outbox.save(full_state())
    outbox.close()


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ConfigError, match="state_dir"):
        SqliteOutbox(tmp_path / "file" / "state").open(OWNER)


WRITER = """
import sys
from dataclasses import replace
from pathlib import Path
import numpy as np
from worker.outbox import SqliteOutbox
from worker.outbox_format import Owner
from worker.state import DeviceState, Row

outbox = SqliteOutbox(Path(sys.argv[1]))
outbox.open(Owner(task="t", client_id="w-1", layout=17, size=50_000))
state = DeviceState(residual=np.zeros(50_000, np.float32))
for number in range(1, 1_000_000):
    row = Row(data=number.to_bytes(4, "big") * 500, crc=number, incarnation=1, sequence=number, base_version=0,
              work=1.0, since_s=0.0)
    state = replace(state, sequence=number, row=row, residual=np.full(50_000, number, np.float32))
    outbox.save(state)
    print(number, flush=True)
"""


@pytest.mark.parametrize("after", [1, 20, 57])
def test_killed_while_it_writes_the_outbox_holds_one_whole_transaction(tmp_path: Path, after: int) -> None:
    writer = subprocess.Popen([sys.executable, "-c", WRITER, tmp_path], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    last = 0
    for line in writer.stdout:
        last = int(line)
        if last >= after:
            break
    os.kill(writer.pid, signal.SIGKILL)
    last = max([last, *(int(line) for line in writer.stdout if line.endswith("\n"))])
    writer.wait()
    outbox = SqliteOutbox(tmp_path)
    state = outbox.open(Owner(task="t", client_id="w-1", layout=17, size=50_000))
    assert state is not None
    assert state.row is not None
    assert state.sequence in {last, last + 1}, "everything that was reported as stored is there"
    assert state.row.data == state.sequence.to_bytes(4, "big") * 500
    assert (state.residual == state.sequence).all()
    outbox.close()


def test_a_fresh_state_is_all_zeros() -> None:
    layout = Layout(tensors=(Tensor(name="w", shape=(3,)),))
    state = DeviceState.fresh(layout)
    assert state.residual.tolist() == [0.0, 0.0, 0.0]
    assert (state.incarnation, state.sequence, state.waiting) == (1, 0, 0)
