"""The settings of a task: written once into the chain's first record, read by the aggregator and by every device."""

import difflib
import hashlib
import math
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any

import msgpack

from broker_topics.errors import ConfigError, RejectCode, WireError
from broker_topics.setting import setting

RULES = ("buffered", "fedbuff", "fedasync")
STALENESS = ("polynomial", "hinge", "constant")
SERVER_OPTIMIZERS = ("sgd", "momentum")
CODECS = ("float32", "bfloat16", "int8", "sparse")
COUNTING = ("device", "examples")

SHORTEST_WINDOW = 200
"""max_staleness that is never gone below where it follows the fleet."""

REMEMBERED = 10
"""Lifetimes of max_staleness versions for which the aggregator remembers a device's last update."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSettings:
    """Everything about one task that devices and aggregator must agree on."""

    rule: str = setting("buffered", "Server rule: buffered (arrival-corrected), fedbuff or fedasync.")
    buffer_size: int = setting(10, "K: accepted updates to a server step; at most half the active devices.")
    backlog_buffer_size: int = setting(1000, "Most updates to a server step while more than K wait in the log.")
    flush_deadline_s: float = setting(10.0, "A waiting buffer steps after this many seconds even if not full.")
    server_learning_rate: float = setting(1.0, "η_g: what multiplies the mean of a buffer.")
    server_optimizer: str = setting("sgd", "Server optimizer: sgd or momentum.")
    server_momentum: float = setting(0.9, "Momentum of the server optimizer, if it is momentum.")
    fedasync_mixing: float = setting(0.6, "α of fedasync: the weight of a fresh update.")
    arrival_correction: bool = setting(True, "Weigh devices by how rarely they are heard, so that slow ones count.")
    staleness: str = setting("polynomial", "Staleness weight: polynomial, hinge or constant.")
    staleness_exponent: float = setting(0.5, "a of the polynomial weight (1 + τ)^-a; a multiple of 1/1024.")
    hinge_start: int = setting(10, "b of the hinge weight: staleness up to which nothing is taken off.")
    hinge_slope: float = setting(0.1, "a of the hinge weight 1 / (1 + a (τ − b)).")
    staleness_relative: bool = setting(True, "Judge staleness against the device's own habit.")
    max_staleness: int = setting(0, "Older updates are refused as stale; 0 follows the fleet: max(200, 50·active/K).")
    min_separation: int = setting(0, "Versions that must lie between two accepted updates of one device.")
    max_update_norm: float = setting(0.0, "Updates with a larger L2 norm are refused; 0 admits any finite one.")
    counting: str = setting("device", "What counts equally in the objective: each device, or each of its examples.")
    max_examples: int = setting(10000, "Cap on the examples that one device may claim, if examples count.")
    served_horizon: int = setting(100, "H: updates over which the served model averages versions.")
    codec: str = setting("sparse", "How devices pack updates: float32, bfloat16, int8 or sparse.")
    density: float = setting(0.01, "Share of coordinates in a sparse update.")
    dense_tensors_up_to: int = setting(0, "Tensors of at most this many numbers travel whole beside a sparse rest.")
    downlink_density: float = setting(0.05, "Share of coordinates in a published delta.")
    max_update_bytes: int = setting(1024 * 1024, "Largest update that is accepted; devices lower the density to fit.")
    keyframe_every: int = setting(50, "S: server steps between two keyframes.")
    local_learning_rate: float = setting(0.05, "η_l that devices are told to train with.")
    local_epochs: int = setting(1, "Passes over its data that a device makes for one training.")
    local_deadline_s: float = setting(0.0, "Seconds that one training may take; 0 sets no limit.")
    reference_steps: float = setting(
        20.0, "Local steps that one training counts as, whatever a device really made; 0 leaves updates as they are."
    )
    max_local_steps: int = setting(2000, "Local steps that may gather in one waiting update; then training pauses.")
    model: Mapping[str, float] = field(
        default_factory=dict, metadata={"help": "Numbers that the task's own code needs on every device, e.g. scales."}
    )

    def __post_init__(self) -> None:
        self._check_kinds()
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ConfigError(f"{name} = {getattr(self, name)!r}: choose one of {', '.join(choices)}")
        for name, (low, high) in _RANGES.items():
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"{name} = {getattr(self, name)}: must lie between {low} and {high}")
        if self.backlog_buffer_size < self.buffer_size:
            raise ConfigError(
                f"backlog_buffer_size = {self.backlog_buffer_size}: must be at least buffer_size = {self.buffer_size}; "
                "set both"
            )
        if (self.staleness_exponent * 1024) % 1:
            raise ConfigError("staleness_exponent must be a multiple of 1/1024, for example 0.5")

    def _check_kinds(self) -> None:
        for known in fields(self):
            value, kind = getattr(self, known.name), type(_default(known))
            if kind is float and type(value) is int:
                object.__setattr__(self, known.name, float(value))
            elif kind is dict:
                object.__setattr__(self, known.name, _numbers(value))
            elif type(value) is not kind:
                raise ConfigError(f"{known.name} = {value!r}: must be a value like {_default(known)!r}")
            if kind is float and not math.isfinite(value):
                raise ConfigError(f"{known.name} must be finite")

    def to_bytes(self) -> bytes:
        """All settings as MessagePack, names sorted; the same bytes for equal settings."""
        names = sorted(known.name for known in fields(self))
        packed: bytes = msgpack.packb({name: getattr(self, name) for name in names})
        return packed

    @property
    def digest(self) -> bytes:
        """SHA-256 of the settings: `rules` in every record of the chain."""
        return hashlib.sha256(self.to_bytes()).digest()

    @property
    def remembered_versions(self) -> int:
        """Versions for which a device's last update is remembered at least."""
        return REMEMBERED * (self.max_staleness or SHORTEST_WINDOW)

    @classmethod
    def from_bytes(cls, data: bytes) -> "TaskSettings":
        """Read what `to_bytes` wrote; raises WireError (malformed) on anything else, unknown settings included."""
        try:
            return cls(**msgpack.unpackb(data))
        except (ValueError, TypeError, ConfigError) as error:
            raise WireError(RejectCode.MALFORMED, f"task settings cannot be read: {error}") from error

    @classmethod
    def from_pairs(cls, pairs: Mapping[str, str]) -> "TaskSettings":
        """Settings as typed on a command line, `name=value`; `model.NAME=value` fills the task's own numbers.

        >>> TaskSettings.from_pairs({"buffer_size": "5", "model.scale": "9.8"}).buffer_size
        5
        """
        known = {f.name: f for f in fields(cls)}
        chosen: dict[str, Any] = {}
        for name, text in pairs.items():
            if name.startswith("model."):
                chosen.setdefault("model", {})[name.removeprefix("model.")] = _parse(name, text, 0.0)
            elif name == "model":
                raise ConfigError("model: name each number of the task's own, for example model.scale=9.8")
            elif name not in known:
                raise ConfigError(f"unknown task setting {name!r}; {_nearest(name, sorted(known))}")
            else:
                chosen[name] = _parse(name, text, _default(known[name]))
        return cls(**chosen)


_CHOICES = {
    "rule": RULES,
    "staleness": STALENESS,
    "server_optimizer": SERVER_OPTIMIZERS,
    "codec": CODECS,
    "counting": COUNTING,
}
_RANGES: dict[str, tuple[float, float]] = {
    "buffer_size": (1, 10_000),
    "backlog_buffer_size": (1, 10_000),
    "flush_deadline_s": (0.05, 86_400),
    "server_learning_rate": (1e-9, 100),
    "server_momentum": (0, 0.9999),
    "fedasync_mixing": (1e-9, 1),
    "staleness_exponent": (0, 4),
    "hinge_start": (0, 1_000_000),
    "hinge_slope": (0, 1_000),
    "max_staleness": (0, 100_000),
    "min_separation": (0, 100_000),
    "max_update_norm": (0, 1e30),
    "max_examples": (1, 2**40),
    "served_horizon": (1, 1_000_000),
    "density": (1e-5, 0.2),
    "dense_tensors_up_to": (0, 1_000_000),
    "downlink_density": (1e-5, 0.2),
    "max_update_bytes": (1024, 1024 * 1024),
    "keyframe_every": (1, 100_000),
    "local_learning_rate": (1e-12, 1e6),
    "local_epochs": (1, 10_000),
    "local_deadline_s": (0, 1e7),
    "reference_steps": (0, 1e9),
    "max_local_steps": (1, 10**9),
}


def _default(known: "Field[Any]") -> Any:
    return known.default if known.default is not MISSING else {}


def _numbers(value: object) -> dict[str, float]:
    if not isinstance(value, Mapping) or not all(
        isinstance(name, str) and type(number) in (int, float) and math.isfinite(number)
        for name, number in value.items()
    ):
        raise ConfigError("model must map names to finite numbers")
    return {name: float(number) for name, number in sorted(value.items())}


def _parse(name: str, text: str, like: Any) -> Any:
    try:
        if isinstance(like, bool):
            return {"true": True, "false": False}[text.lower()]
        return type(like)(text)
    except (ValueError, KeyError):
        raise ConfigError(f"{name} = {text!r}: must be {_KINDS[type(like)]}") from None


_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}


def _nearest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, 1, 0.6)
    return f"did you mean {near[0]}?" if near else f"known are: {', '.join(known)}"
