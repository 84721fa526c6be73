"""What each reject code means to a person, and what becomes of the work in a refused update."""

from collections.abc import Mapping
from enum import Enum, auto
from typing import Final

from broker_topics.errors import RejectCode


class Fate(Enum):
    """What a device does with the work in a refused update."""

    GIVEN_BACK = auto()
    DISCARDED = auto()
    NEW_INCARNATION = auto()
    GIVEN_BACK_NEW_INCARNATION = auto()
    FIRST_COPY = auto()


FATES: Final[Mapping[Fate, str]] = {
    Fate.GIVEN_BACK: "puts the work back into its residual: nothing is lost",
    Fate.DISCARDED: "discards and counts it",
    Fate.NEW_INCARNATION: "discards and counts it, takes a new incarnation",
    Fate.GIVEN_BACK_NEW_INCARNATION: "puts the work back into its residual, takes a new incarnation",
    Fate.FIRST_COPY: "does what the outcome of the first copy asks for",
}

REJECTS: Final[Mapping[RejectCode, tuple[str, Fate]]] = {
    RejectCode.MALFORMED: (
        "The bytes are no valid frame: damaged, cut short, of an unknown format, or with an element of a wrong kind.",
        Fate.DISCARDED,
    ),
    RejectCode.TOO_LARGE: ("The record is larger than the task's `max_update_bytes`.", Fate.DISCARDED),
    RejectCode.WRONG_TASK: ("The update names another task than the topic's.", Fate.DISCARDED),
    RejectCode.IDENTITY: (
        "The record's key is not the client id in the update, or it lies in a partition that is not this client's.",
        Fate.DISCARDED,
    ),
    RejectCode.RETIRED: (
        "The incarnation is older than the one last heard: a copied or restored outbox speaks. The refusal tells the "
        "current one.",
        Fate.NEW_INCARNATION,
    ),
    RejectCode.DUPLICATE: ("The same bytes were decided before; a resend after a lost answer.", Fate.FIRST_COPY),
    RejectCode.CONFLICT: (
        "The sequence was used before for other bytes: two processes share an identity, or an outbox was copied.",
        Fate.GIVEN_BACK_NEW_INCARNATION,
    ),
    RejectCode.PASSED: ("The sequence is older than the last one decided.", Fate.NEW_INCARNATION),
    RejectCode.SEQUENCE_JUMP: ("The sequence is more than a million ahead of the last one.", Fate.NEW_INCARNATION),
    RejectCode.UNKNOWN_LAYOUT: ("The model's tensors are not the task's in name, shape and order.", Fate.DISCARDED),
    RejectCode.STALE: ("More server steps lie since the base version than `max_staleness` admits.", Fate.GIVEN_BACK),
    RejectCode.FUTURE_VERSION: ("The base version does not exist yet.", Fate.GIVEN_BACK),
    RejectCode.UNKNOWN_BASE: ("The base is no published version, or its hash is another one.", Fate.GIVEN_BACK),
    RejectCode.TOO_SOON: (
        "Fewer versions than `min_separation` lie between this and the device's last accepted update.",
        Fate.DISCARDED,
    ),
    RejectCode.BAD_PAYLOAD: (
        "The compressed payload does not hold what its header declares: sizes, positions, symbols or codebook.",
        Fate.DISCARDED,
    ),
    RejectCode.NON_FINITE: ("A number of the delta is infinite or not a number.", Fate.DISCARDED),
    RejectCode.NORM: ("The delta's L2 norm is above the task's `max_update_norm`.", Fate.DISCARDED),
    RejectCode.SIGNATURE: ("The signature is missing or does not belong to the enrolled key.", Fate.DISCARDED),
    RejectCode.REVOKED: ("The device's enrolment was revoked.", Fate.DISCARDED),
    RejectCode.UNREADABLE: ("The broker's record itself could not be read; its offset was passed.", Fate.DISCARDED),
    RejectCode.GONE: ("A roll back named a version whose keyframe is not kept, or never was.", Fate.DISCARDED),
}
"""Code → (what is wrong, what the device does)."""
