"""What a device is given that it cannot work with, and what it says."""

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from broker_topics.errors import ConfigError
from broker_topics.layout import Layout, Tensor
from worker import LocalResult, TrainContext, Worker
from worker.outbox import OutboxFullError, SqliteOutbox
from worker.outbox_format import Owner
from worker.state import DeviceState

SMALL = Layout(tensors=(Tensor(name="w", shape=(4,)),))
OWNER = Owner(task="t", client_id="w-1", layout=SMALL.fingerprint, size=4)


def never(model: object, context: TrainContext) -> LocalResult:
    raise AssertionError("nothing is trained here")


@pytest.mark.parametrize(
    ("client_id", "said"),
    [
        ("", "1 to 128 printable characters"),
        ("w" * 129, "1 to 128 printable characters"),
        ("w\n1", "1 to 128 printable characters"),
        ("..", "1 to 128 printable characters"),
        (17, "client id 17 is int: give a text, such as 'w-1'"),
        (None, "client id None is NoneType"),
    ],
)
def test_an_id_that_cannot_be_one_is_refused_when_the_worker_is_made(client_id: object, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Worker(task="t", client_id=client_id, model={"w": np.zeros(4, np.float32)}, train=never)  # type: ignore[arg-type]


def test_an_outbox_that_another_program_has_open_is_told_so_and_works_once_it_is_free(tmp_path: Path) -> None:
    outbox = SqliteOutbox(tmp_path)
    outbox.open(OWNER)
    assert outbox._database is not None
    outbox._database.execute("PRAGMA busy_timeout = 1")
    with closing(sqlite3.connect(outbox.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(OutboxFullError, match="close the program that has it open"):
            outbox.save(DeviceState(residual=np.ones(4, np.float32), sequence=3))
        other.execute("ROLLBACK")
    outbox.save(DeviceState(residual=np.ones(4, np.float32), sequence=3))
    outbox.close()
    stored = SqliteOutbox(tmp_path).open(OWNER)
    assert stored is not None
    assert stored.sequence == 3


def test_an_outbox_that_is_a_folder_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "outbox.sqlite").mkdir()
    with pytest.raises(ConfigError, match=r"cannot be opened: .*; let this user write to its folder"):
        SqliteOutbox(tmp_path).open(OWNER)
