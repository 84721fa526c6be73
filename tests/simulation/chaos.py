"""What happens in the time of trouble beside lost answers and crashes: the events that a seed draws from."""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import TYPE_CHECKING

import numpy as np

from broker_topics.codecs import CodecId, Encoded, encode
from broker_topics.memory_log import MemoryPartition
from broker_topics.messages import Control, Head, Update
from broker_topics.models_log import HEAD_KEY
from broker_topics.partitions import partition_of
from broker_topics.record import Record
from tests.simulation.devices import Watch
from tests.simulation.history import walk
from tests.simulation.network import COMMITS, CONTROL, MODELS, TASK, UPDATES, Link
from tests.simulation.servers import Witness

if TYPE_CHECKING:
    from tests.simulation.world import World

DAY_MS = 24 * 3600 * 1000


@dataclass(slots=True)
class Chaos:
    """Draws one event after the other; which kinds a seed knows at all is drawn first."""

    world: "World"
    witness: Witness
    done: Counter[str] = field(default_factory=Counter)
    lost_parts: bool = False
    ate: bool = False
    _kinds: list[Callable[[], None]] = field(default_factory=list)
    _mean_s: float = 1.0

    def __post_init__(self) -> None:
        rng, every = self.rng, self._all()
        self._kinds = rng.sample(every, rng.randint(3, len(every)))
        self._mean_s = rng.choice([1.0, 2.5, 6.0])

    @property
    def rng(self) -> Random:
        return self.world.rng

    def _all(self) -> list[Callable[[], None]]:
        return [
            self.offline,
            self.kill_device,
            self.stop_device,
            self.reinstall,
            self.copy_outbox,
            self.restore_backup,
            self.kill_aggregator,
            self.stop_aggregator,
            self.nobody_serves,
            self.kill_reader,
            self.send_again,
            self.deliver_late,
            self.garbage,
            self.forged,
            self.unreadable,
            self.gap,
            self.pause,
            self.resume,
            self.broker_down,
            self.false_head,
            self.lose_head,
            self.lose_part,
            self.eat_consumed,
            self.compact,
        ]

    async def run(self, seconds: float) -> None:
        """Trouble for so long."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + seconds
        while True:
            await asyncio.sleep(self.rng.expovariate(1 / self._mean_s))
            if loop.time() > end_s:
                return
            kind = self.rng.choice(self._kinds)
            self.done[kind.__name__] += 1
            kind()

    def make_calm(self) -> None:
        """The end of all trouble."""
        self.world.weather.calm = True
        self.world.log.down = False
        for link in [one.link for one in self.world.watches] + [one.link for one in self.world.servers]:
            _bring_back(link)
        _bring_back(self.witness.link)
        self.world.log.deliver_late()

    def _later(self, delay_s: float, what: Callable[[], object]) -> None:
        asyncio.get_running_loop().call_later(delay_s, what)

    def _watch(self) -> Watch:
        return self.rng.choice([watch for watch in self.world.watches if not watch.abandoned])

    def _partition(self) -> MemoryPartition:
        """A partition of updates that devices use."""
        key = self.rng.choice(self.world.watches).client_id.encode()
        return self.world.log.partition(UPDATES, partition_of(key, len(self.world.log.partitions(UPDATES))))

    # Devices

    def offline(self) -> None:
        link = self._watch().link
        if link is not None:
            link.online = False
            self._later(self.rng.choice([5.0, 20.0, 60.0]), partial(_bring_back, link))

    def kill_device(self) -> None:
        link = self._watch().link
        if link is not None:
            link.kill()

    def stop_device(self) -> None:
        watch = self._watch()
        if watch.worker is not None:
            watch.worker.stop()

    def reinstall(self) -> None:
        watch = self._watch()
        watch.abandoned = True
        if watch.link is not None:
            watch.link.kill()
        self.world.add_watch(watch.client_id)

    def copy_outbox(self) -> None:
        watch = self._watch()
        if len(self.world.watches) < 9:
            self.world.add_watch(watch.client_id, watch.outbox.copy())

    def restore_backup(self) -> None:
        watch = self._watch()
        if watch.link is not None and watch.outbox.history:
            watch.link.kill()
            watch.outbox.restore(self.rng.choice(watch.outbox.history))

    # Aggregators

    def kill_aggregator(self) -> None:
        link = self.rng.choice(self.world.servers).link
        if link is not None:
            link.kill()

    def stop_aggregator(self) -> None:
        aggregator = self.rng.choice(self.world.servers).aggregator
        if aggregator is not None:
            aggregator.stop.set()

    def nobody_serves(self) -> None:
        for server in self.world.servers:
            if server.link is not None:
                server.link.online = False
                self._later(self.rng.uniform(5, 30), partial(_bring_back, server.link))

    def kill_reader(self) -> None:
        if self.witness.link is not None:
            self.witness.link.kill()

    # The log

    def send_again(self) -> None:
        """A copy of an update reaches the log late."""
        where = self._partition()
        readable = [record for record in where.read(where.start, 10_000) if record.readable]
        if readable:
            copied = self.rng.choice(readable)
            where.append(copied.key, copied.value)

    def deliver_late(self) -> None:
        self.world.log.deliver_late()

    def garbage(self) -> None:
        self._partition().append(self.rng.choice([None, b"w-0", b"x"]), self.rng.randbytes(self.rng.choice([0, 7, 90])))

    def forged(self) -> None:
        """An update that is well formed and wrong in one way."""
        rng, client = self.rng, self.rng.choice(self.world.watches).client_id
        encoded: Encoded = encode(np.full(4, 1.0, np.float32), CodecId.FLOAT32)
        update = Update(
            task=rng.choice([TASK, TASK, "other"]),
            client_id=rng.choice([client, "stranger"]),
            incarnation=1,
            sequence=rng.choice([1, 3, 2_000_000]),
            layout=7,
            base_version=rng.choice([0, 10_000]),
            base_hash=bytes(8),
            num_examples=1,
            num_steps=1,
            work=1.0,
            encoded=encoded,
        )
        self._partition().append(client.encode(), update.to_bytes())

    def unreadable(self) -> None:
        where = self._partition()
        where.spoil(where.append(b"w-0", b"torn"))

    def gap(self) -> None:
        self._partition().leave_gap(self.rng.randint(1, 3))

    def pause(self) -> None:
        self._command("pause")

    def resume(self) -> None:
        self._command(self.rng.choice(["resume", "resume", "dance"]))

    def _command(self, command: str) -> None:
        self.world.log.partition(CONTROL).append(b"operator", Control(command=command).to_bytes())

    def broker_down(self) -> None:
        self.world.log.down = True
        self._later(self.rng.uniform(0.5, 10), lambda: setattr(self.world.log, "down", False))

    def false_head(self) -> None:
        """`head` names what is not there, or is no head."""
        models, rng = self.world.log.partition(MODELS), self.rng
        false = Head(offset=rng.randint(0, 500), height=rng.randint(0, 50), record_hash=rng.randbytes(32)).to_bytes()
        models.append(HEAD_KEY, rng.choice([false, b"nonsense"]))

    def lose_head(self) -> None:
        self.world.log.partition(MODELS).append(HEAD_KEY, None)

    def lose_part(self) -> None:
        """A power cut took a part of the newest keyframe, or of a delta; an older keyframe is still whole."""
        models = self.world.log.partition(MODELS)
        young = [record for record in models.records[-12:-1] if record.key != HEAD_KEY]
        if not young or self.ate:
            return
        lost = self.rng.choice(young)
        there = {record.offset for record in models.records if record is not lost}
        if any(all(part.offset in there for part in keyframe.body.parts) for keyframe in self._keyframes()):
            models.records.remove(lost)
            self.lost_parts = True

    def eat_consumed(self) -> None:
        """Retention takes what no replay from the newest keyframe needs."""
        if self.lost_parts:
            return
        self.ate = True
        for partition, offset in enumerate(self._keyframes()[-1].body.vector[:-1]):
            where = self.world.log.partition(UPDATES, partition)
            if offset > where.start:
                where.delete_before(self.rng.randint(where.start, offset))

    def _keyframes(self) -> list[Record]:
        where = self.world.log.partition(COMMITS)
        return [record for _, record in walk(where.read(where.start, 100_000)) if record.body.keyframe]

    def compact(self) -> None:
        """The cleaner comes by; it leaves alone what is younger than a day, and always the last record."""
        models = self.world.log.partition(MODELS)
        old_ms = int(self.world.wall() * 1000) - DAY_MS
        young = [record.offset for record in models.records[:-1] if record.timestamp_ms > old_ms]
        models.compact(before=young[0] if young else models.records[-1].offset)

    def compact_all(self) -> None:
        """What the cleaner will have done a day after the end."""
        models = self.world.log.partition(MODELS)
        models.compact(before=models.records[-1].offset)


def _bring_back(link: Link | None) -> None:
    """The end of an outage."""
    if link is not None:
        link.online = True
