"""What a store makes durable, in the words of the crash points."""

from broker_topics.crash_points import Io
from worker.state import DeviceState


def stored_as(before: DeviceState, after: DeviceState) -> Io:
    """The most telling change between what was stored and what is to be; an event may make several."""
    if after.tally.updates_given_back > before.tally.updates_given_back or after.carry > before.carry:
        return Io.STORE_GIVEN_BACK
    if before.row is not None and (after.row is None or after.row.crc != before.row.crc):
        return Io.STORE_SETTLED
    if after.row is not None and before.row is None:
        return Io.STORE_BEFORE_SEND
    if after.row is not None and before.row is not None and after.row.offset != before.row.offset:
        return Io.STORE_OFFSET
    return Io.STORE_TRAINING
