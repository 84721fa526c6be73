"""What happens to processes in the time of trouble: the events that a seed draws from."""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import TYPE_CHECKING

from tests.simulation.devices import Watch
from tests.simulation.log_trouble import LogTrouble
from tests.simulation.network import Link
from tests.simulation.servers import Witness

if TYPE_CHECKING:
    from tests.simulation.world import World


OFTEN = 3
"""How many times as often as other kinds of trouble the one comes that a world names."""


@dataclass(slots=True)
class Chaos:
    """Draws one event after the other; which kinds a seed knows at all is drawn first, but for what the world names."""

    world: "World"
    witness: Witness
    done: Counter[str] = field(default_factory=Counter)
    log: LogTrouble = field(init=False)
    _kinds: list[Callable[[], None]] = field(default_factory=list)
    _mean_s: float = 1.0

    def __post_init__(self) -> None:
        self.log = LogTrouble(self.world)
        rng, every = self.rng, self._all()
        self._kinds = rng.sample(every, rng.randint(3, len(every)))
        if self.world.trouble:
            self._kinds += [getattr(self.log, self.world.trouble)] * OFTEN
        self._mean_s = rng.choice([0.5, 1.0, 3.0])

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
            *self.log.kinds,
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
        self.log.calm_s = asyncio.get_running_loop().time()

    def _later(self, delay_s: float, what: Callable[[], object]) -> None:
        asyncio.get_running_loop().call_later(delay_s, what)

    def _watch(self) -> Watch:
        return self.rng.choice([watch for watch in self.world.watches if not watch.abandoned])

    # Devices

    def offline(self) -> None:
        link = self._watch().link
        if link is not None:
            link.online = False
            self._later(self.rng.choice([5.0, 20.0, 60.0]), partial(_bring_back, link))

    def kill_device(self) -> None:
        link = self._watch().link
        if link is not None:
            link.kill_within(self.rng.randrange(30))

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
            link.kill_within(self.rng.randrange(30))

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


def _bring_back(link: Link | None) -> None:
    """The end of an outage."""
    if link is not None:
        link.online = True
