"""What is known about a run at one instant: the live view draws it, the report is written from the last one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from headwater.demo.data import HeldOut

RoleState = Literal["starting", "running", "down", "finished"]
Activity = Literal["training", "waiting", "offline"]

ROWS_IN_A_STREAK = 3
"""How many evaluations in a row must reach the target: one alone may be luck."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """The served model, judged once on the held-out windows."""

    at_s: float
    """Seconds since the first device began to train."""
    version: int
    updates: int
    """Updates accepted up to this version."""
    uplink_bytes: int
    """Bytes of all updates up to this version, headers included."""
    accuracy: float
    loss: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One watch as the fleet's observer sees it."""

    name: str
    period_s: float
    """Seconds that the simulated watch needs for one training."""
    examples: int
    updates: int
    """Updates accepted from it."""
    refused: int
    mean_staleness: float
    activity: Activity


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A stretch of a device's time, for the timeline."""

    device: str
    activity: Activity
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One accepted update, for the timeline."""

    device: str
    at_s: float
    staleness: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """One process of the demo; a role that dies is started again."""

    name: str
    pid: int | None
    state: RoleState
    restarts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A run at one instant; everything is counted from the beginning of the run."""

    task: str
    broker: str
    """Where the log lives, as a reader would say it: `Apache Kafka at localhost:19092` or `memory`."""
    seed: int
    held_out: HeldOut
    target: float
    elapsed_s: float
    """Seconds since the first training; before it, since the run was prepared."""
    model_version: int
    updates_accepted: int
    updates_per_s: float
    """Over the last ten seconds."""
    rejects: Mapping[str, int]
    """Refused updates by reject code."""
    server_steps: int
    uplink_bytes: int
    uplink_bytes_float32: int
    """What the accepted and refused updates would weigh as float32 vectors without any header."""
    downlink_bytes: int
    staleness: Mapping[int, int]
    """Accepted updates by staleness in versions."""
    evaluations: tuple[Evaluation, ...]
    devices: tuple[Device, ...]
    roles: tuple[Role, ...]
    happenings: tuple[str, ...]
    """What a watcher should notice, oldest first: a role that died, a role that came back."""
    spans: tuple[Span, ...]
    arrivals: tuple[Arrival, ...]
    served_hash: str
    chain_head: str
    begun: bool = True
    """Whether a device has trained; before that, processes are starting."""
    page_url: str = ""
    """Where a browser shows the same run, as long as it lasts."""

    @property
    def updates_refused(self) -> int:
        """Refused updates, whatever the reason."""
        return sum(self.rejects.values())

    @property
    def compression(self) -> float:
        """How many times smaller the updates were than float32 vectors; 0 before the first one."""
        return self.uplink_bytes_float32 / self.uplink_bytes if self.uplink_bytes else 0.0

    @property
    def accuracy(self) -> float:
        """The newest held-out accuracy, 0 before the first evaluation."""
        return self.evaluations[-1].accuracy if self.evaluations else 0.0

    @property
    def seconds_to_target(self) -> float | None:
        """When the third evaluation in a row had reached the target; None if that never happened."""
        streak = 0
        for evaluation in self.evaluations:
            streak = streak + 1 if evaluation.accuracy >= self.target else 0
            if streak == ROWS_IN_A_STREAK:
                return evaluation.at_s
        return None

    @property
    def staleness_p50(self) -> int:
        """The median staleness of accepted updates (the lower one of two), 0 before the first."""
        total, seen = sum(self.staleness.values()), 0
        for value in sorted(self.staleness):
            seen += self.staleness[value]
            if 2 * seen >= total:
                return value
        return 0

    @property
    def staleness_max(self) -> int:
        """The largest staleness that was accepted, 0 before the first."""
        return max(self.staleness, default=0)

    def role(self, name: str) -> Role | None:
        """The process called `name`, if the run has one."""
        return next((role for role in self.roles if role.name == name), None)

    def update_share(self, device: Device) -> float:
        """A device's part of all accepted updates, 0 to 1."""
        return device.updates / max(1, sum(each.updates for each in self.devices))

    def data_share(self, device: Device) -> float:
        """A device's part of all training windows, 0 to 1."""
        return device.examples / max(1, sum(each.examples for each in self.devices))
