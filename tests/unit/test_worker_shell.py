"""Whole devices on the in-memory bus with a real aggregator: what a user sees."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from broker_topics.bus import Bus
from broker_topics.errors import ConfigError
from broker_topics.follow import Follower
from broker_topics.memory import MemoryBus
from broker_topics.memory_log import Fault, MemoryLog
from broker_topics.messages import Telemetry, Update
from broker_topics.topics import Topic, topic_name
from tests.fleet import LAYOUT, chain_of, make_task, running, until
from worker import Kind, Limits, LocalResult, TrainContext, Worker, WorkerEvent
from worker.adapters import adapter_for
from worker.outbox import MemoryOutbox, OutboxFullError
from worker.state import DeviceState

QUICK = Limits(backoff_initial_s=0.01, backoff_max_s=0.05)


def model() -> dict[str, np.ndarray]:
    return {t.name: np.zeros(t.shape, np.float32) for t in LAYOUT.tensors}


def towards(goal: float, pause_s: float = 0.01) -> Callable[[Any, TrainContext], LocalResult]:
    """A training that pulls every number towards a goal."""

    def train(arrays: Any, context: TrainContext) -> LocalResult:
        context.stop.wait(pause_s)
        for array in arrays.values():
            array[...] = array + np.float32(0.2) * (np.float32(goal) - array)
        return LocalResult(num_examples=4, num_steps=20, metrics={"loss": float(np.square(arrays["w"] - goal).sum())})

    return train


@dataclass
class Diary:
    """What a worker told of itself."""

    events: list[WorkerEvent] = field(default_factory=list)

    def __call__(self, event: WorkerEvent) -> None:
        self.events.append(event)

    def count(self, kind: Kind, **facts: object) -> int:
        return sum(
            1
            for e in self.events
            if e.kind is kind and all(e.facts.get(name) == value for name, value in facts.items())
        )


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


@pytest.fixture
async def bus(log: MemoryLog) -> AsyncIterator[MemoryBus]:
    async with MemoryBus(log) as bus:
        yield bus


@asynccontextmanager
async def serving(*workers: Worker) -> AsyncIterator[None]:
    """Workers that serve while the block runs; what they raise is raised at the end."""
    tasks = [asyncio.create_task(worker.serve()) for worker in workers]
    try:
        yield
    finally:
        for worker in workers:
            worker.stop()
        await asyncio.gather(*tasks)


def worker(bus: Bus, folder: Path, diary: Diary | None = None, **changed: Any) -> Worker:
    fields: dict[str, Any] = {
        "task": "t",
        "client_id": "w-1",
        "model": model(),
        "train": towards(1.0),
        "bus": bus,
        "state_dir": folder,
        "on_event": diary,
        "seed": 1,
        "limits": QUICK,
    }
    return Worker(**{**fields, **changed})


async def test_devices_with_different_data_agree_on_one_model(bus: MemoryBus, tmp_path: Path) -> None:
    await make_task(bus, "t", flush_deadline_s=0.05)
    low = worker(bus, tmp_path / "1", train=towards(0.0), client_id="w-1")
    high = worker(bus, tmp_path / "2", train=towards(2.0), client_id="w-2")
    async with running(bus, "t"), serving(low, high):
        await until(lambda: version_of(low) >= 30)
        served = low.model()
    assert list(served) == ["w", "b"]
    assert served["w"].shape == (2, 3)
    assert 0.3 < float(served["w"].mean()) < 1.7


def version_of(worker: Worker) -> int:
    snapshot = worker._session.following.snapshot if worker._session else None
    return snapshot.base.version if snapshot else -1


async def test_every_update_that_was_acknowledged_is_in_exactly_one_record(bus: MemoryBus, tmp_path: Path) -> None:
    await make_task(bus, "t", flush_deadline_s=0.05)
    diary = Diary()
    async with running(bus, "t"), serving(worker(bus, tmp_path, diary)):
        await until(lambda: diary.count(Kind.SETTLED, outcome="accepted") >= 10)
    chain = await chain_of(bus, "t")
    crcs = [decision.crc for record in chain for decision in record.body.decisions if decision.accepted]
    assert len(set(crcs)) == len(crcs)
    assert len(crcs) >= diary.count(Kind.SETTLED)


async def test_a_restart_goes_on_with_the_next_sequence(bus: MemoryBus, log: MemoryLog, tmp_path: Path) -> None:
    await make_task(bus, "t", flush_deadline_s=0.05)
    async with running(bus, "t"):
        for _ in range(3):
            diary = Diary()
            async with serving(worker(bus, tmp_path, diary)):
                await until(lambda diary=diary: diary.count(Kind.SETTLED) >= 2)  # type: ignore[misc]
            assert diary.count(Kind.DISCARDED) == 0
            assert diary.count(Kind.INCARNATION) == 0
    sequences = [update.sequence for update in updates_in(log)]
    assert sorted(set(sequences)) == list(range(1, max(sequences) + 1))


def updates_in(log: MemoryLog) -> list[Update]:
    records = [r for p in log.partitions(topic_name("t", Topic.UPDATES)) for r in p.records]
    return [Update.from_bytes(record.value or b"") for record in records]


async def test_offline_a_device_trains_on_and_brings_all_its_work_in_one_update(
    bus: MemoryBus, log: MemoryLog, tmp_path: Path
) -> None:
    await make_task(bus, "t", flush_deadline_s=0.05)
    diary = Diary()
    async with serving(worker(bus, tmp_path, diary)):
        async with running(bus, "t"):
            await until(lambda: diary.count(Kind.SETTLED) >= 2)
        log.down = True
        trained = diary.count(Kind.TRAINED)
        await until(lambda: diary.count(Kind.TRAINED) >= trained + 10)
        log.down = False
        settled = diary.count(Kind.SETTLED)
        async with running(bus, "t"):
            await until(lambda: diary.count(Kind.SETTLED) >= settled + 2)
    assert diary.count(Kind.UNREACHABLE) == 1
    assert max(update.work for update in updates_in(log)) >= 10


async def test_a_device_that_starts_while_the_broker_is_away_waits_for_it(
    bus: MemoryBus, log: MemoryLog, tmp_path: Path
) -> None:
    await make_task(bus, "t", flush_deadline_s=0.05)
    log.down = True
    diary = Diary()
    async with serving(worker(bus, tmp_path, diary)):
        await asyncio.sleep(0.05)
        assert diary.count(Kind.TRAINED) == 0
        log.down = False
        async with running(bus, "t"):
            await until(lambda: diary.count(Kind.SETTLED) >= 1)


async def test_lost_answers_and_refused_sends_cost_nothing(bus: MemoryBus, log: MemoryLog, tmp_path: Path) -> None:
    await make_task(bus, "t", flush_deadline_s=0.05)
    rng, diary, topic = np.random.default_rng(4), Diary(), topic_name("t", Topic.UPDATES)

    def trouble(name: str, partition: int, key: bytes | None, value: bytes | None) -> Fault | None:
        if name != topic:
            return None
        outcome = rng.choice(["written", "refused", "unacknowledged", "late"])
        return Fault(outcome=str(outcome))  # type: ignore[arg-type]

    log.on_send = trouble
    async with running(bus, "t"), serving(worker(bus, tmp_path, diary)):
        await until(lambda: diary.count(Kind.SETTLED, outcome="accepted") >= 10)
    accepted = [d for record in await chain_of(bus, "t") for d in record.body.decisions if d.accepted]
    assert len({decision.crc for decision in accepted}) == len(accepted)
    assert diary.count(Kind.IN_DOUBT) > 0
    assert diary.count(Kind.DISCARDED) == 0


async def test_a_copied_outbox_takes_a_new_incarnation(bus: MemoryBus, log: MemoryLog, tmp_path: Path) -> None:
    await make_task(bus, "t", flush_deadline_s=0.05)
    async with running(bus, "t"):
        first = Diary()
        async with serving(worker(bus, tmp_path / "a", first)):
            await until(lambda: first.count(Kind.SETTLED) >= 3)
        again = Diary()
        async with serving(worker(bus, tmp_path / "b", again)):  # a new installation under the same id
            await until(lambda: again.count(Kind.SETTLED, outcome="accepted") >= 1)
    assert again.count(Kind.INCARNATION) == 1
    assert max(update.incarnation for update in updates_in(log)) == 2


async def test_a_corrupted_outbox_is_reported_and_the_device_goes_on(bus: MemoryBus, tmp_path: Path) -> None:
    await make_task(bus, "t", flush_deadline_s=0.05)
    (tmp_path / "outbox.sqlite").write_bytes(b"scribbled over" * 1000)
    diary = Diary()
    async with running(bus, "t"), serving(worker(bus, tmp_path, diary)):
        await until(lambda: diary.count(Kind.SETTLED, outcome="accepted") >= 1)
    assert diary.count(Kind.OUTBOX_CORRUPT, moved_to=str(tmp_path / "outbox.sqlite.corrupt")) == 1


async def test_an_unknown_task_is_a_clear_error(bus: MemoryBus, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="task 't' is unknown"):
        await worker(bus, tmp_path).serve()


async def test_a_model_that_is_not_the_task_s_is_a_clear_error(bus: MemoryBus, tmp_path: Path) -> None:
    await make_task(bus, "t")
    other = {"w": np.zeros((2, 4), np.float32), "b": np.zeros(2, np.float32)}
    with pytest.raises(ConfigError, match=r"tensor 0 is w \[2, 4\], the task has w \[2, 3\]"):
        await worker(bus, tmp_path, model=other).serve()


async def test_a_second_worker_on_the_same_state_is_refused(bus: MemoryBus, tmp_path: Path) -> None:
    await make_task(bus, "t")
    diary = Diary()
    async with serving(worker(bus, tmp_path, diary)):
        await until(lambda: diary.count(Kind.TRAINED) >= 1)
        with pytest.raises(ConfigError, match="another process"):
            await worker(bus, tmp_path).serve()


async def test_a_training_function_that_returns_nothing_is_a_clear_error(bus: MemoryBus, tmp_path: Path) -> None:
    await make_task(bus, "t")
    with pytest.raises(ConfigError, match="return a LocalResult"):
        await worker(bus, tmp_path, train=lambda model, context: None).serve()


async def test_a_training_function_that_raises_is_tried_again(bus: MemoryBus, tmp_path: Path) -> None:
    await make_task(bus, "t")
    attempts, diary = [], Diary()

    def train(arrays: Any, context: TrainContext) -> LocalResult:
        attempts.append(context.seed)
        if len(attempts) < 3:
            raise ValueError("no data yet")
        return towards(1.0)(arrays, context)

    async with serving(worker(bus, tmp_path, diary, train=train)):
        await until(lambda: diary.count(Kind.TRAINED) >= 1)
    assert diary.count(Kind.TRAINING_FAILED, reason="ValueError: no data yet") == 2
    assert len(set(attempts)) == len(attempts), "each training has a seed of its own"


async def test_a_device_that_may_not_train_only_follows(bus: MemoryBus, tmp_path: Path) -> None:
    await make_task(bus, "t")
    charging, diary = threading.Event(), Diary()
    device = worker(bus, tmp_path, diary, can_train=charging.is_set)
    async with serving(device):
        await until(lambda: diary.count(Kind.TRAINING_SKIPPED) >= 3)
        assert diary.count(Kind.TRAINED) == 0
        assert device.model()["w"].tolist() == [[0, 0, 0], [0, 0, 0]]
        charging.set()
        await until(lambda: diary.count(Kind.TRAINED) >= 1)


async def test_a_stop_ends_a_long_training_early_and_keeps_its_work(bus: MemoryBus, tmp_path: Path) -> None:
    await make_task(bus, "t")
    begun, diary = threading.Event(), Diary()

    def train(arrays: Any, context: TrainContext) -> LocalResult:
        begun.set()
        arrays["b"] += np.float32(1)
        assert context.stop.wait(20)
        return LocalResult(num_examples=4, num_steps=3)

    async with asyncio.timeout(10), serving(worker(bus, tmp_path, diary, train=train)):
        await until(begun.is_set)
    assert diary.count(Kind.TRAINED) == 1
    seen: list[float] = []

    def look(arrays: Any, context: TrainContext) -> LocalResult:
        seen.append(float(arrays["b"][0]))
        context.stop.wait(0.01)
        return LocalResult(num_examples=4, num_steps=3)

    bus.log.down = True
    async with serving(worker(bus, tmp_path, train=look)):
        await until(lambda: len(seen) > 0)
    assert seen[0] == 1.0, "offline, the next start goes on from the local model"


async def test_a_training_that_ignores_the_stop_is_left_behind(bus: MemoryBus, tmp_path: Path) -> None:
    await make_task(bus, "t")
    begun, release = threading.Event(), threading.Event()

    def train(arrays: Any, context: TrainContext) -> LocalResult:
        begun.set()
        release.wait(30)
        return LocalResult(num_examples=4, num_steps=3)

    async with asyncio.timeout(10), serving(worker(bus, tmp_path, train=train, stop_grace_s=0.05)):
        await until(begun.is_set)
    release.set()


async def test_training_never_stands_in_the_way_of_following(bus: MemoryBus, tmp_path: Path) -> None:
    await make_task(bus, "t", flush_deadline_s=0.05)
    slow_begun, diary = threading.Event(), Diary()

    def slow(arrays: Any, context: TrainContext) -> LocalResult:
        slow_begun.set()
        context.stop.wait(30)
        return LocalResult(num_examples=4, num_steps=1)

    sleeper = worker(bus, tmp_path / "1", client_id="w-1", train=slow)
    async with running(bus, "t"), serving(sleeper, worker(bus, tmp_path / "2", diary, client_id="w-2")):
        await until(slow_begun.is_set)
        start = version_of(sleeper)
        await until(lambda: version_of(sleeper) >= start + 5)


async def test_telemetry_tells_operators_how_a_device_fares(bus: MemoryBus, log: MemoryLog, tmp_path: Path) -> None:
    await make_task(bus, "t", flush_deadline_s=0.05)
    diary = Diary()
    async with running(bus, "t"), serving(worker(bus, tmp_path, diary)):
        await until(lambda: len(reports_in(log)) >= 3)
    report = reports_in(log)[-1]
    assert report.client_id == "w-1"
    assert {"train_seconds", "loss", "outbox_updates", "outbox_bytes", "base_version_lag"} <= set(report.values)
    assert sum(float(r.values["publish_attempts"]) for r in reports_in(log)) >= 1


def reports_in(log: MemoryLog) -> list[Telemetry]:
    records = [r for p in log.partitions(topic_name("t", Topic.TELEMETRY)) for r in p.records]
    return [Telemetry.from_bytes(record.value or b"") for record in records]


async def test_telemetry_can_be_switched_off(bus: MemoryBus, log: MemoryLog, tmp_path: Path) -> None:
    await make_task(bus, "t", flush_deadline_s=0.05)
    diary = Diary()
    async with running(bus, "t"), serving(worker(bus, tmp_path, diary, telemetry=False)):
        await until(lambda: diary.count(Kind.SETTLED) >= 3)
    assert reports_in(log) == []


async def test_a_loss_that_is_not_a_number_does_not_stop_a_device(bus: MemoryBus, tmp_path: Path) -> None:
    await make_task(bus, "t", flush_deadline_s=0.05)
    diary = Diary()

    def train(arrays: Any, context: TrainContext) -> LocalResult:
        towards(1.0)(arrays, context)
        return LocalResult(num_examples=4, num_steps=20, metrics={"loss": float("nan")})

    async with running(bus, "t"), serving(worker(bus, tmp_path, diary, train=train)):
        await until(lambda: diary.count(Kind.SETTLED) >= 3)


async def test_the_served_model_is_the_follower_s_bit_for_bit(bus: MemoryBus, tmp_path: Path) -> None:
    await make_task(bus, "t", flush_deadline_s=0.05)
    device = worker(bus, tmp_path)
    async with running(bus, "t"), serving(device):
        await until(lambda: version_of(device) >= 5)
    version, served = version_of(device), device.model()
    follower = Follower(bus, "t")
    await follower.enter(until=version)
    assert np.array_equal(LAYOUT.flatten(served), follower.model.served)
    await follower.close()


async def test_there_is_no_model_before_the_broker_was_reached(bus: MemoryBus, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no model was received yet"):
        worker(bus, tmp_path).model()


async def test_a_stop_before_the_start_ends_it_at_once(bus: MemoryBus, tmp_path: Path) -> None:
    await make_task(bus, "t")
    device = worker(bus, tmp_path)
    device.stop()
    async with asyncio.timeout(5):
        await device.serve()


async def test_a_worker_may_serve_again_after_a_stop(bus: MemoryBus, tmp_path: Path) -> None:
    await make_task(bus, "t")
    diary = Diary()
    device = worker(bus, tmp_path, diary)
    for rounds in (1, 2):
        async with serving(device):
            await until(lambda rounds=rounds: diary.count(Kind.TRAINED) >= 5 * rounds)  # type: ignore[misc]


async def test_an_error_of_the_callback_ends_the_worker(bus: MemoryBus, tmp_path: Path) -> None:
    await make_task(bus, "t")

    def callback(event: WorkerEvent) -> None:
        if event.kind is Kind.TRAINED:
            raise RuntimeError("a bug in the caller's callback")

    with pytest.raises(RuntimeError, match="the caller's callback"):
        await worker(bus, tmp_path, on_event=callback).serve()


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"client_id": ""}, "client id"),
        ({"task": "a task"}, "task name"),
        ({"bootstrap": "localhost:9092"}, "not both"),
        ({"model": 3}, "PyTorch module or a dict"),
    ],
)
async def test_what_cannot_work_is_refused_when_the_worker_is_made(
    bus: MemoryBus, tmp_path: Path, changed: dict[str, object], named: str
) -> None:
    with pytest.raises(ConfigError, match=named):
        worker(bus, tmp_path, **changed)


async def test_the_default_folder_is_the_user_s_by_task_and_client(
    bus: MemoryBus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    await make_task(bus, "t")
    diary = Diary()
    async with serving(worker(bus, tmp_path, diary, client_id="a/b", state_dir=None)):
        await until(lambda: diary.count(Kind.TRAINED) >= 1)
    assert list(tmp_path.rglob("outbox.sqlite")) == [tmp_path / "headwater" / "t" / "a%2Fb" / "outbox.sqlite"]


async def test_a_full_disk_is_waited_out_and_nothing_is_sent_that_is_not_stored(
    bus: MemoryBus, log: MemoryLog, tmp_path: Path
) -> None:
    await make_task(bus, "t")
    diary, outbox = Diary(), FullOutbox()
    async with serving(worker(bus, tmp_path, diary, outbox=outbox)):
        await until(lambda: diary.count(Kind.OUTBOX_FULL, reason="no space left") >= 3)
        assert updates_in(log) == []
        outbox.full = False
        await until(lambda: len(updates_in(log)) == 1)
    assert diary.count(Kind.TRAINED) >= 1


async def test_a_stop_with_a_full_disk_ends_with_the_mend(bus: MemoryBus, tmp_path: Path) -> None:
    await make_task(bus, "t")
    diary = Diary()
    with pytest.raises(ConfigError, match="no space left"):
        async with asyncio.timeout(10), serving(worker(bus, tmp_path, diary, outbox=FullOutbox())):
            await until(lambda: diary.count(Kind.OUTBOX_FULL) >= 1)


class FullOutbox(MemoryOutbox):
    """A disk without space, until there is some."""

    full = True

    def save(self, state: DeviceState) -> None:
        if self.full:
            raise OutboxFullError("no space left")
        super().save(state)


async def test_a_torch_module_is_trained_and_the_served_one_is_a_module_too(bus: MemoryBus, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed; pip install 'headwater[torch]'")
    torch.set_num_threads(1)
    net = torch.nn.Linear(2, 1)
    inputs = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    targets = inputs @ torch.tensor([[2.0], [-1.0]])

    def train(model: Any, context: TrainContext) -> LocalResult:
        # By hand: the first optimizer of a process spends five seconds on imports.
        for _ in range(20):
            loss = torch.nn.functional.mse_loss(model(inputs), targets) + context.proximal_term(model)
            model.zero_grad()
            loss.backward()
            context.clip(model)
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.sub_(context.learning_rate * parameter.grad)
        return LocalResult(num_examples=4, num_steps=20, metrics={"loss": loss.item()})

    layout = adapter_for(net).layout
    await make_task(bus, "t", layout, flush_deadline_s=0.05, buffer_size=1, local_learning_rate=0.1)
    diary = Diary()
    device = worker(bus, tmp_path, diary, model=net, train=train)
    async with running(bus, "t"), serving(device):
        await until(lambda: version_of(device) >= 40, within_s=60)
    served = device.model()
    assert isinstance(served, torch.nn.Linear)
    assert served is not net
    assert torch.nn.functional.mse_loss(served(inputs), targets).item() < 0.1


async def test_every_training_runs_in_the_same_thread_and_not_in_the_loop_s(bus: MemoryBus, tmp_path: Path) -> None:
    await make_task(bus, "t")
    threads: list[int] = []

    def train(model: Any, context: TrainContext) -> LocalResult:
        threads.append(threading.get_ident())
        return towards(1.0)(model, context)

    async with serving(worker(bus, tmp_path, train=train)):
        await until(lambda: len(threads) >= 5)
    assert len(set(threads)) == 1
    assert threads[0] != threading.get_ident()


async def test_a_command_line_beats_what_the_code_says_and_settings_fill_what_it_left_open(
    bus: MemoryBus, tmp_path: Path
) -> None:
    await make_task(bus, "t")
    diary = Diary()
    device = worker(bus, tmp_path / "code", diary, task="other", limits=None)
    device.adopt(task="t", state_dir=tmp_path / "line", limits=QUICK)
    async with serving(device):
        await until(lambda: diary.count(Kind.TRAINED) >= 1)
    assert (tmp_path / "line" / "outbox.sqlite").exists()
    with pytest.raises(ConfigError, match="leave out --bootstrap"):
        device.adopt(bootstrap="localhost:9092")
    with pytest.raises(ConfigError, match="task name"):
        device.adopt(task="a task")
