"""Everything that the fold reads: vectors, ledger, fleet figures, recent bases, and how far the log was consumed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np

from aggregator.fold.fairness import Fairness
from aggregator.fold.ledger import Ledger
from aggregator.fold.server_optimizer import server_optimizer
from broker_topics.errors import ConfigError, RejectCode, WireError
from broker_topics.hashing import tree_hash
from broker_topics.hidden import HiddenModel
from broker_topics.layout import Layout, Vector
from broker_topics.task import SHORTEST_WINDOW, TaskSettings

FORMAT = 1
LONGEST_WINDOW = 100_000
_CYCLES = 50
_BASE_BYTES = 8

HIDDEN, SERVED, X, VELOCITY = "hidden", "served", "x", "velocity"


@dataclass(slots=True, kw_only=True)
class FoldState:
    """The fold between two inputs. Only `Fold` changes it; between two records it is what a keyframe holds.

    x: float32[P], the global model. velocity: float32[P] of the server optimizer, None if it has none.
    bases: first 8 bytes of the hidden model's hash, of the newest max_staleness + 1 versions.
    max_staleness: versions beyond which an update is stale, in force until the next server step.
    vector: next offset of every partition of updates, control last.
    last_crc: of each partition, the CRC of the input right before `vector`; None where that was void or there is none.
    """

    settings: TaskSettings
    layout: Layout
    model: HiddenModel
    x: Vector
    velocity: Vector | None
    ledger: Ledger
    fairness: Fairness
    bases: dict[int, bytes]
    max_staleness: int
    paused: bool
    vector: list[int]
    last_crc: list[int | None]

    @classmethod
    def genesis(cls, *, settings: TaskSettings, layout: Layout, first: Vector, vector: Sequence[int]) -> "FoldState":
        """Version 0: x, x̂ and served are copies of `first`, float32[P], which is not modified.

        Raises:  ConfigError: the first model does not fit the layout, or is not finite.
        """
        if first.dtype != np.float32 or first.shape != (layout.size,) or not np.isfinite(first).all():
            raise ConfigError(f"the first model must be {layout.size} finite float32 numbers")
        model = HiddenModel(version=0, hidden=first.copy(), served=first.copy())
        return cls(
            settings=settings,
            layout=layout,
            model=model,
            x=first.copy(),
            velocity=server_optimizer(settings).init(layout.size),
            ledger=Ledger(),
            fairness=Fairness(),
            bases={0: model.hidden_hash()[:_BASE_BYTES]},
            max_staleness=settings.max_staleness or SHORTEST_WINDOW,
            paused=False,
            vector=list(vector),
            last_crc=[None] * len(vector),
        )

    def state_hash(self) -> bytes:
        """32 bytes naming x and what the optimizer carries."""
        return tree_hash(self.x) if self.velocity is None else tree_hash(self.x, self.velocity)

    def hashes(self) -> tuple[bytes, bytes, bytes]:
        """What a record says of the model: state hash, hidden hash, served hash."""
        return self.state_hash(), self.model.hidden_hash(), self.model.served_hash()

    def chosen_staleness(self, buffer_size: int) -> int:
        """max_staleness as it should now be: the setting, or max(200, 50 · active devices / K) of the fleet.

        A limit below a device's own cycle would starve it for ever.
        """
        if self.settings.max_staleness:
            return self.settings.max_staleness
        wanted = int(_CYCLES * self.fairness.population / buffer_size)
        return min(LONGEST_WINDOW, max(SHORTEST_WINDOW, wanted))

    def turn(self, *, base_hash: bytes, max_staleness: int) -> None:
        """Close a version: name its base, and forget bases and devices that are too old."""
        version = self.model.version
        self.bases[version] = base_hash
        self.max_staleness = max_staleness
        for old in range(next(iter(self.bases)), version - max_staleness):
            del self.bases[old]
        for entry in self.ledger.evict(version=version, max_staleness=max_staleness):
            if entry.habit is not None:
                self.fairness.forget(entry.habit)

    def vectors(self) -> dict[str, Vector]:
        """The state's own vectors by name, not copied: what a keyframe carries beside `meta`."""
        vectors = {HIDDEN: self.model.hidden, SERVED: self.model.served, X: self.x}
        if self.velocity is not None:
            vectors[VELOCITY] = self.velocity
        return vectors

    def meta(self) -> bytes:
        """Everything but the vectors as MessagePack, layout and settings included; equal states give equal bytes.

        Packed row by row, so that other threads get their turn however large the fleet is.
        """
        packer = msgpack.Packer()
        rows = [packer.pack(row) for row in self.ledger.rows()]
        fixed = {
            "bases": [next(iter(self.bases)), b"".join(self.bases.values())],
            "fairness": self.fairness.to_row(),
            "format": FORMAT,
            "last_crc": self.last_crc,
            "layout": self.layout.to_bytes(),
            "max_staleness": self.max_staleness,
            "paused": self.paused,
            "settings": self.settings.to_bytes(),
            "vector": self.vector,
            "version": self.model.version,
        }
        return b"".join([packer.pack(fixed), packer.pack_array_header(len(rows)), *rows])

    @staticmethod
    def size_of(meta: bytes) -> int:
        """P, how many numbers each vector beside this meta has; raises WireError (malformed)."""
        return Layout.from_bytes(_objects(meta)[0]["layout"]).size

    @classmethod
    def restore(cls, meta: bytes, vectors: Mapping[str, Vector]) -> "FoldState":
        """The state that gave `meta` and `vectors`, for `Fold` to go on from.

        Args:    vectors: float32[P] each; they become the state's own and are changed by it.
        Raises:  WireError: malformed, if they are not what one state gave.
        """
        fixed, rows = _objects(meta)
        try:
            return _restored(fixed, rows, vectors)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise WireError(RejectCode.MALFORMED, f"a keyframe's server state cannot be read: {error!r}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Glance:
    """What a keyframe says beside its vectors, for whoever only looks.

    population: the fleet's estimated size. arrivals: accepted updates so far.
    """

    settings: TaskSettings
    ledger: Ledger
    population: float
    arrivals: int
    paused: bool


def glance(meta: bytes) -> Glance:
    """Read server state without any vector; raises WireError (malformed) where it cannot be read."""
    fixed, rows = _objects(meta)
    try:
        fleet = Fairness.from_row(fixed["fairness"])
        return Glance(
            settings=TaskSettings.from_bytes(fixed["settings"]),
            ledger=Ledger.from_rows(rows),
            population=fleet.population,
            arrivals=fleet.arrivals,
            paused=bool(fixed["paused"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise WireError(RejectCode.MALFORMED, f"a keyframe's server state cannot be read: {error!r}") from error


def _objects(meta: bytes) -> tuple[dict[str, Any], list[object]]:
    """The two objects of which server state consists, their outer types checked."""
    unpacker = msgpack.Unpacker(max_buffer_size=max(1, len(meta)))
    unpacker.feed(meta)
    try:
        match list(unpacker):
            case [{"layout": bytes(), "settings": bytes(), **rest} as fixed, list(rows)] if rest:
                if unpacker.tell() == len(meta):
                    return fixed, rows
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise WireError(RejectCode.MALFORMED, f"a keyframe's server state cannot be read: {error!r}") from error
    raise WireError(RejectCode.MALFORMED, "a keyframe's server state is cut short or is none")


def _restored(fixed: dict[str, Any], rows: list[object], vectors: Mapping[str, Vector]) -> FoldState:
    if fixed["format"] != FORMAT:
        raise ValueError(f"format {fixed['format']} is unknown")
    settings, layout = TaskSettings.from_bytes(fixed["settings"]), Layout.from_bytes(fixed["layout"])
    own = {name: _vector(vector, layout.size) for name, vector in vectors.items()}
    carries = server_optimizer(settings).init(0) is not None
    if set(own) != {HIDDEN, SERVED, X} | ({VELOCITY} if carries else set()):
        raise ValueError(f"vectors {', '.join(sorted(own))} are not those of the task's optimizer")
    version, vector, last_crc = fixed["version"], list(fixed["vector"]), list(fixed["last_crc"])
    oldest, names = fixed["bases"]
    bases = {oldest + i: names[i * _BASE_BYTES : (i + 1) * _BASE_BYTES] for i in range(len(names) // _BASE_BYTES)}
    if version not in bases or max(bases) != version or len(vector) != len(last_crc):
        raise ValueError("bases, version and vector do not fit together")
    return FoldState(
        settings=settings,
        layout=layout,
        model=HiddenModel(version=version, hidden=own[HIDDEN], served=own[SERVED]),
        x=own[X],
        velocity=own.get(VELOCITY),
        ledger=Ledger.from_rows(rows),
        fairness=Fairness.from_row(fixed["fairness"]),
        bases=bases,
        max_staleness=int(fixed["max_staleness"]),
        paused=bool(fixed["paused"]),
        vector=vector,
        last_crc=last_crc,
    )


def _vector(vector: Vector, size: int) -> Vector:
    if vector.dtype != np.float32 or vector.shape != (size,):
        raise ValueError(f"a vector is {vector.dtype}{list(vector.shape)}, float32[{size}] is needed")
    return np.require(vector, requirements=["C", "W"])
